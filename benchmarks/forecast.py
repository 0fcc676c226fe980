"""How near `--dry-run` comes to what a run then takes, and `--minutes` to the time it was given.

    python benchmarks/forecast.py FILE [FILE …]

For each text the default and a larger network: seconds from the first step to the end, the most
memory of the process and the size of the run's folder, foreseen and measured; then a run of a
minute, from the command to its end. Writes results/forecast.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OPTIONS = {"default": [], "3 layers": ["--model.depth", "3", "--training.steps", "60"]}


def main():
    """Foresee, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="+", metavar="FILE")
    parser.add_argument("--minutes", type=float, default=1.0)
    given = parser.parse_args()
    result = {"date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(), "rows": []}
    for text in given.texts:
        for name, options in OPTIONS.items():
            row = {"text": Path(text).name, "options": name, "load": os.getloadavg()[0]}
            result["rows"].append(row | compared(text, options))
            print(result["rows"][-1], flush=True)
    asked = 60 * given.minutes
    took = by_clock(given.texts[-1], given.minutes)
    result["by_clock"] = {"asked": asked, "took": round(took, 1), "off": round(took / asked - 1, 4)}
    print(result["by_clock"])
    file = Path(__file__).parent / "results" / "forecast.json"
    file.write_text(json.dumps(result, indent=2) + "\n")


def environment(place):
    """Return where a run keeps what it makes."""
    return {**os.environ, "NEXTWORD_RUNS": f"{place}/runs", "NEXTWORD_CACHE": f"{place}/cache"}


def compared(text, options):
    """Foresee one run, then train it."""
    command = [sys.executable, "-m", "nextword", "train", str(Path(text).absolute()), *options]
    with tempfile.TemporaryDirectory() as place:
        told = {"env": environment(place), "cwd": place}
        done = subprocess.run(
            [*command, "--dry-run", "--json"], capture_output=True, check=True, **told
        )
        foreseen = json.loads(done.stdout)
        run = Path(place) / "runs" / "it"
        process = subprocess.Popen([*command, "--name", "it", "--quiet"], **told)
        log, first = run / "metrics.jsonl", None
        while process.poll() is None and first is None:
            time.sleep(0.02)
            if log.is_file() and '"event": "step"' in log.read_text():
                first = time.perf_counter()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - first + foreseen["step_seconds"]
        assert status == 0, status
        size = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
    pairs = {
        "seconds": (foreseen["seconds"], seconds),
        "memory": (foreseen["memory_bytes"], 1024 * used.ru_maxrss),
        "disk": (foreseen["disk_bytes"], size),
    }
    return {
        name: {"foreseen": round(a, 1), "measured": round(b, 1), "off": round(a / b - 1, 3)}
        for name, (a, b) in pairs.items()
    }


def by_clock(text, minutes):
    """Return the seconds of a run that was given so many minutes, from nothing."""
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, "-m", "nextword", "train", str(Path(text).absolute())),
                *("--minutes", str(minutes), "--quiet"),
            ],
            env=environment(place),
            cwd=place,
            check=True,
        )
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
