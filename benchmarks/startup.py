"""How long until the command line has answered --help, in milliseconds.

python benchmarks/startup.py
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = (["--help"], ["train", "--help"], ["generate", "--help"])


def main():
    """Measure each command, interleaved; write results/startup.json."""
    program = str(Path(sys.executable).with_name("nextword"))
    times = {" ".join(command): [] for command in COMMANDS}
    for _ in range(11):
        for command in COMMANDS:
            began = time.perf_counter()
            subprocess.run([program, *command], capture_output=True, check=True)
            times[" ".join(command)].append(1000 * (time.perf_counter() - began))
    rows = {
        name: {"median_ms": round(statistics.median(row)), "least_ms": round(min(row))}
        for name, row in times.items()
    }
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        **rows,
    }
    print(json.dumps(result, indent=2))
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "startup.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
