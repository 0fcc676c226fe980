"""How fast text becomes tokens, beside nanoGPT's script and beside `tokenizers` alone.

    pip install requests  # which prepare.py asks for
    python benchmarks/preparing.py TINYSHAKESPEARE PATH/TO/nanoGPT [--repetitions 7]

1. tinyshakespeare to characters, from nothing to the first batch as tensors, as a user gets there:
   ours prepares and reads in one process, as `nextword train` does; of nanoGPT one runs prepare.py,
   unchanged, and then a program that draws a batch as its train.py does. Interleaved; our cache is
   empty each time.
2. Bulk encoding of the built-in Python prose: fastokens, and `tokenizers`, with the same
   vocabulary, interleaved; the ids are compared.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def ours(text):
    """Prepare and read the first batch."""
    from nextword.corpus.options import CorpusSettings
    from nextword.targets.batch import read_batch
    from nextword.targets.windows import Windows
    from nextword.vocabulary.options import VocabularySettings
    from nextword.vocabulary.training_data import gather

    prepared = gather([text], CorpusSettings(), VocabularySettings(kind="char"))
    batch = read_batch([prepared.train], Windows(len(prepared.train), 64, 12, 0), 0)
    import torch

    return torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)


def theirs(folder):
    """Draw a batch from what prepare.py wrote, as nanoGPT's train.py does."""
    import numpy as np
    import torch

    data = np.memmap(Path(folder) / "train.bin", dtype=np.uint16, mode="r")
    places = torch.randint(len(data) - 64, (12,))
    x = torch.stack([torch.from_numpy(data[i : i + 64].astype(np.int64)) for i in places])
    y = torch.stack([torch.from_numpy(data[i + 1 : i + 65].astype(np.int64)) for i in places])
    return x, y


def time_children(text, nanogpt, repetitions):
    """Measure both from the start of a process, interleaved."""
    seconds = {"nextword": [], "nanogpt": []}
    for _ in range(repetitions):
        with tempfile.TemporaryDirectory() as place:
            shutil.copy(nanogpt / "data" / "shakespeare_char" / "prepare.py", place)
            shutil.copy(text, Path(place) / "input.txt")
            commands = {
                "nextword": [[__file__, "--child", "nextword", text]],
                "nanogpt": [[f"{place}/prepare.py"], [__file__, "--child", "nanogpt", place]],
            }
            for which, programs in commands.items():
                began = time.perf_counter()
                for program in programs:
                    subprocess.run(
                        [sys.executable, *program],
                        env={**os.environ, "NEXTWORD_CACHE": f"{place}/cache"},
                        check=True,
                        capture_output=True,
                    )
                seconds[which].append(time.perf_counter() - began)
    ratios = [b / a for a, b in zip(seconds["nextword"], seconds["nanogpt"], strict=True)]
    return {
        **{f"{which}_seconds": round(statistics.median(row), 2) for which, row in seconds.items()},
        "nanogpt_over_nextword": [
            round(value, 2) for value in (min(ratios), statistics.median(ratios), max(ratios))
        ],
    }


def time_encoding(repetitions):
    """Encode the same pieces both ways; return MB/s of each."""
    from nextword.corpus.builtin import read_builtin
    from nextword.corpus.documents import whole_documents
    from nextword.corpus.options import CorpusSettings
    from nextword.vocabulary.fast import fast_encoder
    from nextword.vocabulary.options import VocabularySettings
    from nextword.vocabulary.train import train_vocabulary

    texts = [
        piece.text for piece in whole_documents(read_builtin(CorpusSettings(builtin="python")))
    ]
    size = sum(len(text.encode()) for text in texts)
    vocabulary = train_vocabulary(texts, size, VocabularySettings(size=16_384))
    texts *= 8
    fast = fast_encoder(vocabulary)
    speeds = {"fastokens": [], "tokenizers": []}
    for _ in range(repetitions):
        for name, encode in (("fastokens", fast), ("tokenizers", vocabulary.encode_many)):
            began = time.perf_counter()
            ids = encode(texts)
            speeds[name].append(8 * size / 1e6 / (time.perf_counter() - began))
            if name == "fastokens":
                flat = [part.tolist() for part in ids]
            else:
                same = flat == ids
    return {
        "bytes": 8 * size,
        "same_ids": same,
        **{
            f"{name}_mb_per_second": round(statistics.median(row), 1)
            for name, row in speeds.items()
        },
    }


def main():
    """Measure; write results/preparing.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", nargs="?", type=Path)
    parser.add_argument("nanogpt", nargs="?", type=Path)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--child", nargs=2)
    given = parser.parse_args()
    if given.child:
        (ours if given.child[0] == "nextword" else theirs)(given.child[1])
        return
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "to_the_first_batch": time_children(str(given.text), given.nanogpt, given.repetitions),
        "encoding": time_encoding(given.repetitions),
    }
    print(json.dumps(result, indent=2))
    folder = Path(__file__).parent / "results"
    (folder / "preparing.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
