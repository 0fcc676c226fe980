"""How long what the README says takes really takes here: the default training, and the tests.

    python benchmarks/readme.py                  (about ten minutes on two quiet cores)
    python benchmarks/readme.py train            (a part alone; the others stay as they were)
    python benchmarks/readme.py train --keep DIR   (keeps the run, for other figures of README)

Everything begins from nothing: no prepared text, no model trained before. Writes
results/readme.json, with the hardware and how busy it was before; `tests/test_readme.py` keeps the
README's times within a factor of 1.5 of it. Prints what the training said, to be shown there.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "readme.json"
COMMANDS = {
    "train": [sys.executable, "-m", "nextword", "train"],
    "tests": [sys.executable, "-m", "pytest", "-q"],
    "inner_loop": [sys.executable, "-m", "pytest", "-q", "-m", "not slow"],
}


NUMBERS = ("no", "a", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
UNITS = {"s": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600}


def seconds_of(words: str) -> float:
    """Understand a time in words: "95 s", "two minutes", "a minute and a half"."""
    number, unit, *half = words.split()
    value = NUMBERS.index(number) if number in NUMBERS else float(number)
    return (value + 0.5 * bool(half)) * UNITS[unit.removesuffix("s") or unit]


def measure(part: str, keep: str | None) -> dict:
    """Run one command from nothing; return its seconds and what it says of itself."""
    load = os.getloadavg()
    with contextlib.nullcontext(keep) if keep else tempfile.TemporaryDirectory() as folder:
        kept = {"CACHE": "cache", "RUNS": "runs", "TEST_CACHE": "trained"}
        places = {f"NEXTWORD_{name}": f"{folder}/{place}" for name, place in kept.items()}
        began = time.perf_counter()
        done = subprocess.run(
            COMMANDS[part],
            cwd=folder if part == "train" else ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **places},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - began
    print(done.stdout[-3000:], done.stderr, sep="\n")
    if done.returncode:
        raise SystemExit(f"{part}: ended with {done.returncode}; nothing is written")
    found = {"seconds": round(seconds, 1)}
    if part == "train":
        found["estimated_seconds"] = seconds_of(re.search(r"about (.+?) for", done.stderr)[1])
        found["training_seconds"] = seconds_of(re.search(r"Done in (.+?)\.", done.stderr)[1])
    else:
        found["passed"] = int(re.search(r"(\d+) passed", done.stdout)[1])
    return {"date": time.strftime("%Y-%m-%d"), "load_before": load, **found}


def hardware() -> dict:
    """Say what it was measured on."""
    import torch

    from nextword.machine.device import processor_name

    return {
        "processor": processor_name(),
        "bfloat16": "avx512" in torch.backends.cpu.get_cpu_capability().lower(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def main() -> None:
    """Measure the parts named, or all, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*COMMANDS, []], default=list(COMMANDS))
    parser.add_argument("--keep", help="an empty folder for what is made")
    given = parser.parse_args()
    parts = given.parts
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results.pop("note", None)
    results["hardware"] = hardware()
    for part in parts:
        results[part] = measure(part, given.keep)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
