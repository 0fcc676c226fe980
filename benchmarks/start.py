"""Seconds of a run that are not training: from the command to its first step, and from its last.

    python benchmarks/start.py TEXT [--repetitions 5]

`nextword train TEXT` for some steps, as a process, with the network and hold-out of the default:
once with an empty cache, where the text is prepared first, and once where it was prepared before. A
step is seen from outside, when its line stands in the run's log. Beside it what importing torch
takes alone, in the same minute.
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

STEPS = 12


def one_run(text, place, cache):
    """Return seconds to the first step, and from the last to the prompt."""
    command = [str(Path(sys.executable).with_name("nextword")), "train", str(text)]
    command += ["--training.steps", str(STEPS), "--name", "run"]
    environment = {
        **os.environ,
        "NEXTWORD_RUNS": str(place),
        "NEXTWORD_CACHE": str(cache),
        "PYTHONUNBUFFERED": "1",
    }
    log, seen = place / "run" / "metrics.jsonl", {}
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            time.sleep(0.01)
            if log.exists():
                written = log.read_bytes()
                for step in (1, STEPS):
                    if f'"event": "step", "step": {step},'.encode() in written:
                        seen.setdefault(step, time.perf_counter())
        ended = time.perf_counter()
    if process.returncode or len(seen) != 2:
        raise SystemExit(f"{' '.join(command)}: status {process.returncode}, steps seen {seen}")
    return seen[1] - began, ended - seen[STEPS]


def import_torch():
    """Return seconds until torch is imported, the interpreter's start included."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - began


def main():
    """Measure; write results/start.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    found = {"torch": [], "first step": [], "first step, prepared": [], "end": []}
    found["end, asked before"] = []
    loads = []
    for _ in range(given.repetitions):
        loads.append(round(os.getloadavg()[0], 2))
        found["torch"].append(import_torch())
        with tempfile.TemporaryDirectory() as place:
            cache = Path(place, "cache")
            for number, when in enumerate(("", "prepared")):
                runs = Path(place, str(number))
                first, end = one_run(given.text.absolute(), runs, cache)
                found["first step, prepared" if when else "first step"].append(first)
                found["end, asked before" if when else "end"].append(end)
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "bytes": given.text.stat().st_size,
        "load_averages": loads,
        "seconds": {
            name: [round(one, 2) for one in (statistics.median(row), min(row), max(row))]
            for name, row in found.items()
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    (Path(__file__).parent / "results" / "start.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
