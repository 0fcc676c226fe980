"""How fast near duplicates are found between training and hold-out, and how many of them.

python benchmarks/leakage.py

The text is random: words drawn by Zipf's law, in documents of 200 to 20,000 tokens, of which some
repeat a hold-out document with a share of their tokens changed. Beside the speed of the whole
check stand its peak memory and, for each share, the mean true similarity of the copies and the
share of them found. The peak is that of the whole process, above what the imports take: pages of
the mapped files, which the system may drop at any time, are in it.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np

from nextword.vocabulary.leakage import SIMILAR, exact_repeats, find_leaks
from nextword.vocabulary.shards import ShardWriter, TokenStream
from nextword.vocabulary.shingles import Scale

VOCABULARY, END = 32_000, 0
EDITS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1)
REPETITIONS = 5
CASES = {"subwords": (4.0, 32_000, 50_000_000), "bytes": (1.0, 256, 100_000_000)}
"""Bytes a token, entries, training tokens."""


def draw(generator, count, entries):
    """Draw tokens whose frequencies fall by Zipf's law; id 0 ends texts."""
    return np.minimum(generator.zipf(1.2, count), entries - 1)


def write(folder, side, documents):
    """Write one shard and open it."""
    writer = ShardWriter(folder / f"{side}-00000.ds", VOCABULARY)
    for document in documents:
        writer.add(document, 0, END)
    writer.close()
    return TokenStream([writer.file], VOCABULARY, END)


def edit(generator, document, share, entries):
    """Change a share of the tokens, at random places."""
    changed = document.copy()
    places = generator.random(len(document)) < share
    changed[places] = draw(generator, int(places.sum()), entries)
    return changed


def similarity(first, second, width):
    """Return the Jaccard similarity of two documents' shingles."""
    sets = [
        set(map(tuple, np.lib.stride_tricks.sliding_window_view(each, width).tolist()))
        for each in (first, second)
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def plant(generator, holdout, entries):
    """Copy every second hold-out document, each with one of the shares of tokens changed."""
    edits = {number: EDITS[number // 2 % len(EDITS)] for number in range(0, len(holdout), 2)}
    copies = {
        number: edit(generator, holdout[number], share, entries) for number, share in edits.items()
    }
    return edits, copies


def mingle(generator, copies, entries, size, train_tokens):
    """Yield documents of their own, with the copies here and there among them."""
    tokens, waiting = 0, list(copies.values())
    while tokens < train_tokens or waiting:
        document = draw(generator, generator.integers(200, 20_000) * size, entries)
        tokens += len(document)
        yield document
        while waiting and len(waiting) > len(copies) * (1 - tokens / train_tokens):
            yield waiting.pop()


def measure(folder, bytes_per_token, entries, train_tokens):
    """Plant copies of hold-out documents in a training text; time the search for them."""
    generator = np.random.default_rng(0)
    size = round(4 / bytes_per_token)
    lengths = generator.integers(200, 2000, 1000) * size
    holdout = [draw(generator, length, entries) for length in lengths]
    edits, copies = plant(generator, holdout, entries)
    train_stream = write(folder, "train", mingle(generator, copies, entries, size, train_tokens))
    holdout_stream = write(folder, "holdout", holdout)
    seconds = []
    for _ in range(REPETITIONS):
        began = time.perf_counter()
        leaks = find_leaks(train_stream, holdout_stream, bytes_per_token)
        seconds.append(time.perf_counter() - began)
    began = time.perf_counter()
    exact_repeats(train_stream)
    repeats_seconds = time.perf_counter() - began
    megabytes = len(train_stream) * bytes_per_token / 1e6
    return {
        "bytes_per_token": bytes_per_token,
        "train_megabytes": round(megabytes),
        "train_units": leaks.train_units,
        "holdout_units": leaks.holdout_units,
        "share_leaked": round(leaks.share, 4),
        "megabytes_per_second": [round(megabytes / each, 1) for each in seconds],
        "exact_repeats_megabytes_per_second": round(megabytes / repeats_seconds, 1),
        "copies": recall(holdout, copies, edits, holdout_stream, leaks, bytes_per_token),
    }


def recall(holdout, copies, edits, stream, leaks, bytes_per_token):
    """For each share of edited tokens: how similar the copies are, and how many were found."""
    starts = np.concatenate([[0], stream.document_ends])
    width = Scale.of(bytes_per_token).shingle
    rows = {}
    for share in EDITS:
        numbers = [number for number, each in edits.items() if each == share]
        alike = np.array([similarity(holdout[each], copies[each], width) for each in numbers])
        found = np.array(
            [
                (
                    (leaks.holdout_ranges[:, 1] > starts[number])
                    & (leaks.holdout_ranges[:, 0] < starts[number + 1])
                ).any()
                for number in numbers
            ]
        )
        rows[f"{share:.1%} of tokens changed"] = {
            "copies": len(numbers),
            "mean_similarity": round(float(alike.mean()), 3),
            "similar_0.8": int((alike >= 0.8).sum()),
            "of_these_found": int(found[alike >= 0.8].sum()),
            "similar_0.7": int((alike >= SIMILAR).sum()),
            "of_those_found": int(found[alike >= SIMILAR].sum()),
            "less_similar_found_by_a_passage": int(found[alike < SIMILAR].sum()),
        }
    return rows


def main():
    """Measure one case; or each in a process of its own, for its own peak; write the results."""
    if len(sys.argv) > 1:
        case = CASES[sys.argv[1]]
        loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with tempfile.TemporaryDirectory() as folder:
            row = measure(Path(folder), *case)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({**row, "peak_megabytes_above_imports": round((peak - loaded) / 1024)}))
        return
    rows = {
        name: json.loads(
            subprocess.run([sys.executable, __file__, name], check=True, capture_output=True).stdout
        )
        for name in CASES
    }
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "processor": processor(),
        "load_average": os.getloadavg(),
        "rensa": metadata.version("rensa"),
        **rows,
    }
    print(json.dumps(result, indent=2))
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "leakage.json").write_text(json.dumps(result, indent=2) + "\n")


def processor():
    """Name the processor, where the system tells."""
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.is_file() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), None)


if __name__ == "__main__":
    main()
