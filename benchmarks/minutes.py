"""Is what `--minutes` chooses the best there is time for? Beside a grid of depths in the same time.

    python benchmarks/minutes.py TEXT [--minutes 2,5,15] [--depths 2,3,4,6] [--at-once 1]

`nextword train TEXT --minutes M`, and the same with each depth said, so that the choice is the
script's and everything else (steps, schedule, clock) is the program's; `--depths ""` for the first
alone. So many at once, with a thread each where that is more than one. Bits a byte on the whole
hold-out of what each run keeps, and seconds from the command to its end. What is there already is
not measured again. Writes results/minutes.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "minutes.json"


def measure(text, minutes, depth, at_once):
    """Train by the clock; return what came of it."""
    with tempfile.TemporaryDirectory() as place:
        places = {"NEXTWORD_RUNS": f"{place}/runs", "NEXTWORD_CACHE": f"{place}/cache"}
        environment = {**os.environ, **places, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "nextword", "train", str(text), "--name", "it"]
        command += ["--minutes", str(minutes), "--quiet", "--json"]
        if at_once > 1:
            environment["OMP_NUM_THREADS"] = "1"
            command += ["--machine.threads", "1"]
        command += [] if depth is None else ["--model.depth", str(depth)]
        began = time.perf_counter()
        done = subprocess.run(command, env=environment, check=True, capture_output=True)
        seconds = time.perf_counter() - began
        facts, *before = (
            json.loads((run / "run.json").read_text())
            for run in sorted((Path(place) / "runs").iterdir())
        )
        log = (Path(place) / "runs" / "it" / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in log]
    return {
        "text": text.name,
        "minutes": minutes,
        "depth": depth,
        "layers": facts["shape"]["num_hidden_layers"],
        "taught_by": [one["shape"]["num_hidden_layers"] for one in before],
        "steps": max(event["step"] for event in events if event["event"] == "step"),
        "bits_per_byte": round(json.loads(done.stdout)["bits_per_byte"], 4),
        "seconds": round(seconds, 1),
        "at_once": at_once,
    }


def main():
    """Measure what is missing, and write each row as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--minutes", default="2,5,15")
    parser.add_argument("--depths", default="2,3,4,6")
    parser.add_argument("--at-once", type=int, default=1)
    given = parser.parse_args()
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.is_file() else []
    known = {(row["text"], row["minutes"], row["depth"]) for row in rows}
    asked = [
        (given.text, minutes, depth)
        for minutes in map(float, given.minutes.split(","))
        for depth in (None, *map(int, filter(None, given.depths.split(","))))
        if (given.text.name, minutes, depth) not in known
    ]
    with ThreadPoolExecutor(given.at_once) as threads:
        for row in threads.map(lambda one: measure(*one, given.at_once), asked):
            rows.append(row)
            print(row, flush=True)
            rows.sort(key=lambda row: (row["text"], row["minutes"], row["depth"] or 0))
            told = {"date": time.strftime("%Y-%m-%d"), "rows": rows}
            RESULTS.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
