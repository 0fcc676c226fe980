"""Attention of rows that hold several documents, on a CPU: each by itself, beside a mask.

    python benchmarks/documents.py [--repetitions 9]

Forward and backward in float32, as training computes it; the two in turns. Rows of several lengths,
about 4,096 positions together, with documents of 300 positions on average, of 110, or one a row.
Writes results/documents.json: medians in milliseconds and their ratio.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch

from nextword.machine.device import processor_name
from nextword.model import documents as room
from nextword.model.attention import attention
from nextword.model.documents import may_look, pieces_of

POSITIONS, HEADS, WIDTH = 4096, 6, 64
CASES = [(256, 110), (256, 300), (384, 300), (512, 300), (2048, 300), (2048, None)]


def measure(length, share, repetitions):
    """Return the medians of both ways."""
    rows = POSITIONS // length
    ends = torch.rand(rows, length) < (0 if share is None else 1 / share)
    documents = ends.cumsum(dim=1)
    ways = {
        "mask": may_look(documents, causal=True),
        "by itself": pieces_of(documents, causal=True),
    }
    read = [
        torch.randn(rows, length, HEADS, WIDTH).transpose(1, 2).requires_grad_() for _ in range(3)
    ]
    pull = torch.randn(rows, HEADS, length, WIDTH)
    taken = {name: [] for name in ways}
    for number in range(repetitions + 1):
        for name, seen in ways.items():
            began = time.perf_counter()
            attention(*read, seen).backward(pull)
            if number:  # the first makes what is made once
                taken[name].append(1e3 * (time.perf_counter() - began))
    found = {name: round(statistics.median(times), 2) for name, times in taken.items()}
    ratio = round(found["by itself"] / found["mask"], 3)
    return {"positions": length, "of a document": share, "rows": rows, **found, "ratio": ratio}


def main():
    """Measure each case; write results/documents.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=9)
    given = parser.parse_args()
    torch.manual_seed(0)
    room.LONG_ROW = 0  # also where it is not done, to show why
    load, found = os.getloadavg(), []
    for length, share in CASES:
        found.append(measure(length, share, given.repetitions))
        print(found[-1], flush=True)
    result = {
        "date": time.strftime("%Y-%m-%d"), "processor": processor_name(),
        "threads": torch.get_num_threads(), "torch": torch.__version__, "load_before": load,
        "milliseconds": found,
    }  # fmt: skip
    file = Path(__file__).parent / "results" / "documents.json"
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
