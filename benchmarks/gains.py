"""What a run's own curve says of more steps and of one more layer: beside what they then bring.

    python benchmarks/gains.py TEXT … [--seeds 1] [--at-once 1]

Each text by the default, with half as many steps again, and with one more layer. From the first:
the share by which the part of the hold-out that is scored on the way fell over the last quarter of
the steps, which is what `nextword train` goes by at its end (`explanation/curve.py`). From all
three: bits a byte on the whole hold-out of what is kept. One thread each, so many at once. Writes
results/gains.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "gains.json"
WAYS = {
    "default": lambda steps, layers: [],
    "half as many steps again": lambda steps, layers: ["--training.steps", str(round(1.5 * steps))],
    "one more layer": lambda steps, layers: ["--model.depth", str(layers + 1)],
}


def train(text, words, seed):
    """Train; return layers, the curve, and bits a byte of what is kept."""
    with tempfile.TemporaryDirectory() as place:
        places = {"NEXTWORD_RUNS": f"{place}/runs", "NEXTWORD_CACHE": f"{place}/cache"}
        alone = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "nextword", "train", str(text), "--name", "it", *words]
        command += ["--training.seed", str(seed), "--machine.threads", "1", "--quiet", "--json"]
        done = subprocess.run(
            command, env={**os.environ, **places, **alone}, check=True, capture_output=True
        )
        run = Path(place) / "runs" / "it"
        lines = (run / "metrics.jsonl").read_text().splitlines()
        facts = json.loads((run / "run.json").read_text())
    told = [one for one in map(json.loads, lines) if one["event"] == "evaluation"]
    return {
        "layers": facts["shape"]["num_hidden_layers"],
        "curve": [[one["step"], round(one["partial_nats_per_token"], 4)] for one in told],
        "bits_per_byte": round(json.loads(done.stdout)["bits_per_byte"], 4),
    }


def all_ways(text, seed):
    """Train in all ways; the default says how many steps there are."""
    first = train(text, [], seed)
    steps = first["curve"][-1][0]
    ways = [(way, words(steps, first["layers"])) for way, words in list(WAYS.items())[1:]]
    others = {way: train(text, words, seed) for way, words in ways}
    return {"default": first, **others}


def main():
    """Measure, and write each text as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=1)
    given = parser.parse_args()
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.is_file() else {}

    def measure(text):
        found = list(map(partial(all_ways, text), range(given.seeds)))
        bits = {way: statistics.median(one[way]["bits_per_byte"] for one in found) for way in WAYS}
        ends = [one["default"]["curve"][-2:] for one in found]
        row = {
            "last_quarter": round(statistics.median(1 - b[1] / a[1] for a, b in ends), 4),
            "gains": {way: round(1 - bits[way] / bits["default"], 4) for way in list(WAYS)[1:]},
            "runs": found,
        }
        return f"{text.stem}, {text.stat().st_size:,} bytes", row

    with ThreadPoolExecutor(given.at_once) as several:
        for name, row in several.map(measure, given.texts):
            rows[name] = row
            print(name, row["last_quarter"], row["gains"], flush=True)
            told = {"date": time.strftime("%Y-%m-%d"), "seeds": given.seeds, "rows": rows}
            RESULTS.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
