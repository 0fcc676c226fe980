"""Do the default rates hold at other depths? Bits a byte over rates, depth by depth.

    python benchmarks/depths.py TEXT … [--depths 1,2,4] [--factors 0.3,0.5,0.7,1,1.6] [--at-once 1]

Each text is trained on with the defaults but for the depth, both rates (0.012 and 0.03) times a
factor, one seed, one thread. What is there already is not measured again, so a sweep may be stopped
and gone on with. Losses do not depend on what else the machine does; seconds are only noted.
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

RATES = {"learning-rate": 0.012, "matrix-learning-rate": 0.03}
RESULTS = Path(__file__).parent / "results" / "depths.json"


def measure(text, depth, factor):
    """Train once; return steps with their bits a byte on the hold-out."""
    with tempfile.TemporaryDirectory() as root:
        return measure_in(root, text, depth, factor)


def measure_in(root, text, depth, factor):
    """Do so in an empty place."""
    rates = [
        word for name, rate in RATES.items() for word in (f"--training.{name}", str(rate * factor))
    ]
    command = [sys.executable, "-m", "nextword", "train", str(text), "--name", "it", *rates]
    command += ["--model.depth", str(depth), "--machine.threads", "1", "--quiet"]
    environment = {**os.environ, "NEXTWORD_RUNS": str(root), "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    seconds = time.perf_counter() - began
    events = map(json.loads, (Path(root) / "it" / "metrics.jsonl").read_text().splitlines())
    judged = [event for event in events if event["event"] == "evaluation"]
    return {
        "text": text.name,
        "depth": depth,
        "factor": factor,
        "bits_per_byte": [[event["step"], round(event["bits_per_byte"], 4)] for event in judged],
        "seconds": round(seconds),
    }


def main():
    """Measure what is missing, and write results/depths.json after each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--depths", default="1,2,4")
    parser.add_argument("--factors", default="0.3,0.5,0.7,1,1.6")
    parser.add_argument("--at-once", type=int, default=1)
    given = parser.parse_args()
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.is_file() else []
    known = {(row["text"], row["depth"], row["factor"]) for row in rows}
    asked = [
        (text, depth, factor)
        for depth in map(int, given.depths.split(","))
        for factor in map(float, given.factors.split(","))
        for text in given.texts
        if (text.name, depth, factor) not in known
    ]
    with ThreadPoolExecutor(given.at_once) as threads:
        for row in threads.map(lambda one: measure(*one), asked):
            rows.append(row)
            print(row, flush=True)
            rows.sort(key=lambda row: (row["text"], row["depth"], row["factor"]))
            told = {"date": time.strftime("%Y-%m-%d"), "rows": rows}
            RESULTS.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
