"""What does a network gain that also learns what another one expects? Beside itself alone.

    python benchmarks/teachers.py TEXT … [--depths 2,3,3] [--seeds 1] [--at-once 1]

Of each text a network of each depth by the default, and a chain: the first depth alone, each other
one taught by all before it (`--training.teacher`). Bits a byte on the whole hold-out of what
each keeps, and seconds from the command to its end. One thread each, so many chains at once. What
is there already is not measured again. Writes results/teachers.json.
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

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "teachers.json"


def train(place, text, name, words):
    """Train; return bits a byte and seconds."""
    places = {"NEXTWORD_RUNS": f"{place}/runs", "NEXTWORD_CACHE": f"{place}/cache"}
    alone = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "nextword", "train", str(text), "--name", name, *words]
    began = time.perf_counter()
    done = subprocess.run(
        [*command, "--machine.threads", "1", "--quiet", "--json"],
        env={**os.environ, **places, **alone},
        check=True,
        capture_output=True,
    )
    bits = json.loads(done.stdout)["bits_per_byte"]
    return round(bits, 4), round(time.perf_counter() - began, 1)


def measure(text, depths, seed):
    """Train the chain of one text and seed, and of each depth but the first one alone as well."""
    ways, trained = {}, []
    with tempfile.TemporaryDirectory() as place:
        for number, depth in enumerate(depths):
            # Networks that teach and are taught begin with other first weights.
            own = ["--model.depth", str(depth), "--training.seed", str(100 * seed + number)]
            name = f"network-{number}"
            if f"{depth} alone" not in ways:
                alone = f"{name}-alone" if trained else name
                ways[f"{depth} alone"] = train(place, text, alone, own)
            if trained:
                teachers = ",".join(f"network-{before}" for before in range(number))
                way = f"{depth} taught by {' and '.join(trained)}"
                ways[way] = train(place, text, name, [*own, "--training.teacher", teachers])
            trained.append(str(depth))
    return {
        "text": f"{text.stem}, {text.stat().st_size:,} bytes",
        "seed": seed,
        "bits_per_byte": {way: found[0] for way, found in ways.items()},
        "seconds": {way: found[1] for way, found in ways.items()},
    }


def gains(rows):
    """Return how far each taught network ends below itself alone: of each text the median."""
    shares = {}
    for row in rows:
        bits = row["bits_per_byte"]
        for way, found in bits.items():
            depth, _, teacher = way.partition(" taught by ")
            if teacher:
                told = shares.setdefault(row["text"], {}).setdefault(way, [])
                told.append(1 - found / bits[f"{depth} alone"])
    return {
        text: {way: round(statistics.median(found), 4) for way, found in ways.items()}
        for text, ways in shares.items()
    }


def main():
    """Measure what is missing, and write each chain as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--depths", default="2,3,3")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=1)
    given = parser.parse_args()
    depths = [int(depth) for depth in given.depths.split(",")]
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.is_file() else []
    known = {(row["text"], row["seed"]) for row in rows}
    asked = [
        (text.resolve(), depths, seed)
        for seed in range(given.seeds)
        for text in given.texts
        if (f"{text.stem}, {text.stat().st_size:,} bytes", seed) not in known
    ]
    with ThreadPoolExecutor(given.at_once) as threads:
        for row in threads.map(lambda one: measure(*one), asked):
            rows.append(row)
            print(row, flush=True)
            rows.sort(key=lambda row: (row["text"], row["seed"]))
            told = {"date": time.strftime("%Y-%m-%d"), "at_once": given.at_once}
            told |= {"below_alone": gains(rows), "rows": rows}
            RESULTS.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
