"""Prepare 2 GB of text in bounded memory, killed half-way and resumed; learn from 1 GB.

    python benchmarks/scale.py [--gigabytes 2] [--folder PLACE]

The text is one file, drawn from 300,000 made-up words with Zipf's frequencies, a new word now and
then: harder on a vocabulary trainer than prose of the same size. Resident memory is the kernel's
own peak (VmHWM) of each process.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PEAK = """
import sys
from nextword.cli import main
try:
    main(sys.argv[1:])
finally:
    lines = open("/proc/self/status").read().splitlines()
    print("PEAK", next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""
LEARN = """
import sys, time
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.train import sample_texts, train_vocabulary
from nextword.corpus.documents import read_pieces
from nextword.corpus.options import CorpusSettings
settings = VocabularySettings(kind="bpe", size=50_048, sample_bytes=int(sys.argv[2]))
texts = (piece.text for piece in read_pieces([sys.argv[1]], CorpusSettings()))
began = time.perf_counter()
found = train_vocabulary(sample_texts(texts, int(sys.argv[3]), settings), 1 << 40, settings)
lines = open("/proc/self/status").read().splitlines()
print("SECONDS", time.perf_counter() - began, len(found))
print("PEAK", next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


def write_text(file, size):
    """Write about `size` bytes of lines of Zipf-distributed made-up words."""
    source = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    lexicon = [
        "".join(source.choice(letters, length)) for length in source.integers(2, 11, 300_000)
    ]
    weights = 1 / np.arange(1, len(lexicon) + 1)
    borders = np.cumsum(weights / weights.sum())
    written = 0
    with open(file, "w", encoding="utf-8") as out:
        while written < size:
            drawn = np.searchsorted(borders, source.random(1 << 20)).clip(max=len(lexicon) - 1)
            words = [lexicon[number] for number in drawn]
            for place in source.integers(0, len(words), 2000):  # words of their own
                words[place] += words[place - 1]
            lines = (" ".join(words[start : start + 14]) for start in range(0, len(words), 14))
            block = ".\n".join(lines) + "\n"
            out.write(block)
            written += len(block)
    return written


def run(code, *arguments, **environment):
    """Run a child; return its seconds and the peak of its memory in MB."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    peak = next(line for line in done.stdout.splitlines() if line.startswith("PEAK"))
    seconds = time.perf_counter() - began
    return {"seconds": round(seconds, 1), "peak_mb": round(int(peak.split()[1]) / 1000)}


def kill_half_way(text, folder, size):
    """Prepare until half of the text is encoded, then kill; return how far it had come."""
    child = subprocess.Popen(
        [sys.executable, "-m", "nextword", "prepare", str(text), "-o", str(folder)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    progress = folder / "progress.json"
    while child.poll() is None:
        time.sleep(0.2)
        if progress.is_file():
            done = json.loads(progress.read_text())
            if done["pieces"] * 131_072 > size / 2:
                child.send_signal(signal.SIGKILL)
                child.wait()
                return {"shards": done["shards"], "pieces": done["pieces"]}
    raise SystemExit("it was done before it could be killed")


def main():
    """Measure; write results/scale.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    place = given.folder or Path(tempfile.mkdtemp())
    place.mkdir(parents=True, exist_ok=True)
    text = place / "large.txt"
    size = write_text(text, given.gigabytes * 1e9)
    load = os.getloadavg()
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "load_average": load,
        "bytes": size,
        "prepare": run(PEAK, "prepare", text, "-o", place / "whole"),
        "killed": kill_half_way(text, place / "resumed", size),
        "prepare_resumed": run(PEAK, "prepare", text, "-o", place / "resumed"),
    }
    result["prepare"]["mb_per_second"] = round(size / 1e6 / result["prepare"]["seconds"], 1)
    same = all(
        file.read_bytes() == (place / "resumed" / file.name).read_bytes()
        for file in (place / "whole").glob("train-*.ds.index")
    )
    tokens = [
        sum(file.stat().st_size for file in (place / name).glob("train-*.ds"))
        for name in ("whole", "resumed")
    ]
    result["resumed_is_the_same"] = same and tokens[0] == tokens[1]
    result["train_50_steps"] = run(
        PEAK,
        *("train", place / "whole", "--training.steps", 50, "--quiet"),
        NEXTWORD_RUNS=place / "runs",
    )  # fmt: skip
    result["vocabulary_of_50048_from_1_gb"] = run(LEARN, text, 1_000_000_000, size)
    result["vocabulary_from_the_default_sample"] = run(LEARN, text, 32_000_000, size)
    if given.folder is None:
        shutil.rmtree(place)
    print(json.dumps(result, indent=2))
    folder = Path(__file__).parent / "results"
    (folder / "scale.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
