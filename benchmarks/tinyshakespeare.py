"""Train the recipe on tinyshakespeare: nats/character on its last tenth, and the seconds.

    python benchmarks/tinyshakespeare.py PATH/TO/tinyshakespeare.txt [--runs 3]

The text (1,115,394 bytes, all ASCII: a byte is a character) is that of nanoGPT's headline figures;
its CPU recipe reaches 1.88 nats/character. Nats/character = nats/token × tokens ÷ characters,
whatever the vocabulary.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main():
    """Run the recipe some times, each in an empty place, and write results/tinyshakespeare.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    recipe = Path(__file__).parents[1] / "recipes" / "tinyshakespeare.toml"
    rows = []
    for seed in range(given.runs):
        with tempfile.TemporaryDirectory() as place:
            environment = {
                **os.environ,
                "NEXTWORD_RUNS": f"{place}/runs",
                "NEXTWORD_CACHE": f"{place}/cache",
            }
            words = [
                "train",
                str(given.text.resolve()),
                "--recipe",
                str(recipe),
                "--training.seed",
                str(seed),
            ]
            command = [sys.executable, "-m", "nextword", *words, "--quiet", "--json"]
            load, began = os.getloadavg(), time.perf_counter()
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True
            )
            seconds = time.perf_counter() - began
            values = json.loads(done.stdout)
            rows.append(
                {
                    "seed": seed,
                    "nats_per_character": values["bits_per_byte"] * math.log(2),
                    "seconds_in_all": round(seconds, 1),
                    "seconds_of_training": round(values["seconds"], 1),
                    "load_average": load,
                }
            )
            print(rows[-1], flush=True)
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    result = {"date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(), "runs": rows}
    (folder / "tinyshakespeare.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
