"""Does a small text profit from a model of another text? Bits a byte alone and with --from.

    python benchmarks/other_text.py OTHER TEXT … [--seeds 5]

OTHER is trained on once, by default; then each text with each seed, by default and from that run.
Losses do not depend on what else the machine does; seconds do, one thread each, and are only noted.
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

RESULTS = Path(__file__).parent / "results" / "other_text.json"


def train(root, name, *arguments):
    """Train once; return bits a byte on the whole hold-out at the end, and seconds."""
    command = [sys.executable, "-m", "nextword", "train", *map(str, arguments), "--name", name]
    environment = {**os.environ, "NEXTWORD_RUNS": str(root), "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    command += ["--machine.threads", "1", "--quiet"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    seconds = time.perf_counter() - began
    events = map(json.loads, (Path(root) / name / "metrics.jsonl").read_text().splitlines())
    last = [event for event in events if event["event"] == "evaluation"][-1]
    return last["bits_per_byte"], seconds


def main():
    """Measure, and write results/other_text.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    told = {"date": time.strftime("%Y-%m-%d"), "other": given.other.name, "seeds": given.seeds}
    with tempfile.TemporaryDirectory() as root:
        train(root, "other", given.other)
        for text in given.texts:
            found = {"alone": [], "from_other": []}
            for seed in range(given.seeds):
                for way, more in (("alone", ()), ("from_other", ("--from", "other"))):
                    name = f"{text.stem}-{way}-{seed}"
                    found[way].append(train(root, name, text, "--training.seed", seed, *more))
            rows = {way: sorted(bits for bits, _ in each) for way, each in found.items()}
            medians = {way: statistics.median(row) for way, row in rows.items()}
            told[text.name] = {
                "bits_per_byte": {way: [round(one, 4) for one in row] for way, row in rows.items()},
                "medians": {way: round(value, 4) for way, value in medians.items()},
                "gain": round(1 - medians["from_other"] / medians["alone"], 4),
                "seconds": {
                    way: round(statistics.median(seconds for _, seconds in each))
                    for way, each in found.items()
                },
            }
            print(text.name, told[text.name], flush=True)
            RESULTS.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
