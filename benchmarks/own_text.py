"""A text of one's own by the default, beside counting and packing, and beside other ways to learn.

    python benchmarks/own_text.py TEXT … [--seeds 1] [--size BYTES] [--ways default] [--at-once 1]

`nextword train TEXT` without an option on each TEXT (or its first BYTES, cut at a line's end), and
what else is asked for: "hard targets" (`--training.soft-targets 0`, which reads four times in steps
of 2,048 tokens), "no dropout", "weight decay 0.1". Bits a byte on the whole hold-out, of what the
run keeps; the ruler's best row that has read no more (n-grams of the same pieces, compressors),
PPMd that has read the training text too; seconds from the command to its end; with `--at-once 2` of
runs that share the cores, a thread each. Adds to results/own_text.json, a row for each text and
size; seeds that are there already are not measured again.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from initialization import beginning

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "own_text.json"
WAYS = {
    "default": [],
    "hard targets": ["--training.soft-targets", "0"],
    "no dropout": ["--training.dropout", "0"],
    "weight decay 0.1": ["--training.weight-decay", "0.1"],
}


def train(
    text: Path, words: list[str], threads: int | None, measures: bool, seed: int
) -> dict[str, float]:
    """Return what one training in an empty place came to, and of the first seed the ruler."""
    with tempfile.TemporaryDirectory() as place:
        places = {"NEXTWORD_RUNS": f"{place}/runs", "NEXTWORD_CACHE": f"{place}/cache"}
        environment = {**os.environ, **places, "PYTHONPATH": str(ROOT)}
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        command = [sys.executable, "-m", "nextword"]
        asked = [*words, "--training.seed", str(seed), "--name", "run", "--quiet", "--json"]
        began = time.perf_counter()
        done = subprocess.run(
            [*command, "train", str(text), *asked],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found = {"seconds": round(time.perf_counter() - began, 1)}
        found["bits_per_byte"] = round(json.loads(done.stdout)["bits_per_byte"], 4)
        if measures and not seed:
            ruler = subprocess.run(
                [*command, "ruler", "run", "--primed", "--json"],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            marks = json.loads(ruler.stdout)["marks"]
            others = {m["name"]: m["value"] for m in marks if m["kind"] in ("count", "pack")}
            best = min(others, key=lambda name: others[name])
            found["best_row"] = best
            found["best_row_bits"] = round(others[best], 4)
            primed = min(m["value"] for m in marks if m["kind"] == "primed")
            found["best_primed_bits"] = round(primed, 4)
    return found


def main() -> None:
    """Measure in turn, and write each row as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--size", type=int)
    parser.add_argument("--ways", nargs="+", choices=[*WAYS], default=["default"])
    parser.add_argument("--at-once", type=int, default=1)
    given = parser.parse_args()
    threads = None if given.at_once == 1 else 1
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}
    with (
        tempfile.TemporaryDirectory() as place,
        ThreadPoolExecutor(given.at_once) as several,
    ):
        texts = [beginning(file, given.size, place) for file in given.text]
        names = [f"{text.stem}, {text.stat().st_size:,} bytes" for text in texts]
        known = [rows.get(name, {}) for name in names]
        asked = [
            {
                way: [
                    several.submit(train, text, WAYS[way], threads, way == "default", seed)
                    for seed in range(len(before.get("seconds", {}).get(way, ())), given.seeds)
                ]
                for way in given.ways
            }
            for text, before in zip(texts, known, strict=True)
        ]
        for name, before, runs_of in zip(names, known, asked, strict=True):
            found = {way: [run.result() for run in runs] for way, runs in runs_of.items()}
            told = {
                what: before.get(what, {})
                | {
                    way: [*before.get(what, {}).get(way, ()), *(one[what] for one in runs)]
                    for way, runs in found.items()
                }
                for what in ("bits_per_byte", "seconds")
            }
            first = before or found["default"][0]
            median = statistics.median(told["bits_per_byte"]["default"])
            rows[name] = {
                **told,
                "at_once": given.at_once,
                "best_row": first["best_row"],
                "best_row_bits": first["best_row_bits"],
                "best_primed_bits": first["best_primed_bits"],
                "below_the_best_row": round(1 - median / first["best_row_bits"], 4),
                "load_average": round(os.getloadavg()[0], 2),
            }
            print(name, json.dumps(rows[name]), flush=True)
            result = {"date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(), "rows": rows}
            RESULTS.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
