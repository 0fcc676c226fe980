"""Beginning with the odds of pairs beside beginning with random weights, on texts of one's own.

    python benchmarks/initialization.py TEXT … [--seeds 1] [--size BYTES]

Both ways train by the defaults but with hard targets, one after the other, on each TEXT (or its
first BYTES, cut at a line's end) and on the built-in `python` corpus. Bits a byte on the whole
hold-out, of what the run keeps. Adds to results/initialization.json, a row for each text and size.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "initialization.json"
WAYS = ("random", "bigram")


def train(words: list[str], way: str, seed: int) -> float:
    """Return bits a byte of one training in an empty place."""
    with tempfile.TemporaryDirectory() as place:
        places = {"NEXTWORD_RUNS": f"{place}/runs", "NEXTWORD_CACHE": f"{place}/cache"}
        asked = ["--training.initialization", way, "--training.seed", str(seed)]
        asked += ["--training.soft-targets", "0"]
        done = subprocess.run(
            [sys.executable, "-m", "nextword", "train", *words, *asked, "--quiet", "--json"],
            env={**os.environ, **places, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
    return float(json.loads(done.stdout)["bits_per_byte"])


def beginning(text: Path, size: int | None, place: str) -> Path:
    """Return a text, or a file of its first bytes."""
    if size is None:
        return text.resolve()
    part = Path(place) / text.name
    part.write_bytes(text.read_bytes()[:size].rpartition(b"\n")[0] + b"\n")
    return part


def main() -> None:
    """Measure in turn, and write each row as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--size", type=int)
    given = parser.parse_args()
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as place:
        texts = {file.stem: [str(beginning(file, given.size, place))] for file in given.text}
        if given.size is None:
            texts["built-in python"] = ["--corpus.builtin", "python"]
        for name, words in texts.items():
            found = {way: [train(words, way, seed) for seed in range(given.seeds)] for way in WAYS}
            medians = {way: round(statistics.median(values), 4) for way, values in found.items()}
            bytes_ = None if name == "built-in python" else Path(words[0]).stat().st_size
            row = {"bytes": bytes_, "bits_per_byte": found, "medians": medians}
            row["gain"] = round(1 - medians["bigram"] / medians["random"], 4)
            rows[name if given.size is None else f"{name}, {given.size:,} bytes"] = row
            print(name, medians, f"{row['gain']:.1%}", flush=True)
            result = {"date": time.strftime("%Y-%m-%d"), "rows": rows}
            RESULTS.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
