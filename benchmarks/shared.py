"""Several trainings at once on the same cores: how much longer each takes than one alone.

python benchmarks/shared.py [--steps 60] [--rounds 3]

With the program's own setting (threads that wait do so asleep after a moment) and without it, in
turn; without it a training is stopped where it takes 2.5 times as long. Writes results/shared.json.
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
RESULTS = Path(__file__).parent / "results" / "shared.json"
LONGEST = 2.5
"""Times the seconds with the setting that trainings without it are given."""
SPINNING = "10000000000"
"""What libgomp does by itself where no more threads run than cores: hardly ever sleep."""


def train_at_once(
    folder: str, count: int, steps: int, spin: str | None, most: float | None = None
) -> float:
    """Start so many trainings together; return the seconds until the last has ended, or `most`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NEXTWORD_CACHE": f"{folder}/cache"}
    environment["NEXTWORD_RUNS"] = tempfile.mkdtemp(dir=folder)
    environment.pop("GOMP_SPINCOUNT", None)
    if spin:
        environment["GOMP_SPINCOUNT"] = spin
    words = [sys.executable, "-m", "nextword", "train", "--quiet"]
    words += ["--training.steps", str(steps), "--training.evaluate-every", str(steps)]
    began = time.perf_counter()
    running = [
        subprocess.Popen([*words, "--name", f"r{number}"], env=environment, cwd=folder)
        for number in range(count)
    ]
    for process in running:
        left = None if most is None else max(most - (time.perf_counter() - began), 0.1)
        try:
            if process.wait(left):
                raise SystemExit(f"a training ended with {process.returncode}")
        except subprocess.TimeoutExpired:
            for one in running:
                one.kill()
            for one in running:
                one.wait()
            return float(most or 0)
    return time.perf_counter() - began


def main() -> None:
    """Measure one, two and three at once, with and without the setting, in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    from nextword.machine.device import processor_name

    load = os.getloadavg()
    seconds: dict[str, dict[int, list[float]]] = {"set": {}, "spinning": {}}
    with tempfile.TemporaryDirectory() as folder:
        train_at_once(folder, 1, 1, None)  # prepares the text
        for _ in range(given.rounds):
            for count in (1, 2, 3):
                for name, spin in (("set", None), ("spinning", SPINNING)):
                    most = LONGEST * seconds["set"][count][-1] if spin else None
                    took = train_at_once(folder, count, given.steps, spin, most)
                    seconds[name].setdefault(count, []).append(round(took, 1))
    medians = {
        name: {count: statistics.median(times) for count, times in by_count.items()}
        for name, by_count in seconds.items()
    }
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "load_before": load,
        "steps": given.steps,
        "seconds": seconds,
        "times_one_alone": {
            name: {count: round(value / by_count[1], 2) for count, value in by_count.items()}
            for name, by_count in medians.items()
        },
        "one_alone_set_to_spinning": round(medians["set"][1] / medians["spinning"][1], 3),
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
