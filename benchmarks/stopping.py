"""Seconds from a signal to the end of a training of 27 million parameters.

    python benchmarks/stopping.py [--repetitions 2]

A run is told to stop (SIGTERM) in the midst of a step of many parts, of an evaluation, and of a
checkpoint that is being written; each time it saves first and leaves with 143.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nextword.machine.device import choose_machine
from nextword.machine.options import MachineSettings

SHAPE = [
    "--model.depth", "8", "--model.hidden-size", "512", "--model.context", "256",
    "--corpus.stories", "400", "--training.steps", "1000", "--training.batch-tokens", "4096",
    "--training.micro-batch-tokens", "1024",
]  # fmt: skip
MOMENTS = {
    "a step": ("step", ["--training.evaluate-every", "1000"]),
    "an evaluation": ("step", ["--training.evaluate-every", "1"]),
    "a checkpoint": (
        "evaluation",
        ["--training.evaluate-every", "1", "--training.evaluate-tokens", "512"],
    ),
}
"""After which line of the log the signal comes, soon, and what makes that the moment."""


def stopped(place, kind, options):
    """Return the seconds from the signal to the end."""
    command = [sys.executable, "-m", "nextword", "train", "--name", "run", *SHAPE, *options]
    environment = {**os.environ, "NEXTWORD_RUNS": str(place)}
    log = place / "run" / "metrics.jsonl"
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        while not log.exists() or f'"event": "{kind}"' not in log.read_text():
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
            time.sleep(0.01)
        time.sleep(random.uniform(0.05, 0.5))
        told = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        process.wait()
        took = time.perf_counter() - told
    if process.returncode != 143 or not list((place / "run" / "checkpoints").glob("step-*")):
        raise SystemExit(f"{kind}: status {process.returncode}")
    return took


def main():
    """Measure; write results/stopping.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=2)
    given = parser.parse_args()
    took = {name: [] for name in MOMENTS}
    for _ in range(given.repetitions):
        for name, (kind, options) in MOMENTS.items():
            with tempfile.TemporaryDirectory() as place:
                took[name].append(round(stopped(Path(place), kind, options), 2))
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": choose_machine(MachineSettings()).describe(),
        "load_average": round(os.getloadavg()[0], 2),
        "seconds": {
            name: [statistics.median(row), min(row), max(row)] for name, row in took.items()
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    (Path(__file__).parent / "results" / "stopping.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
