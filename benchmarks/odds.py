"""The default run on five seeds: how far above the floor, the odds, the stories that parse.

python benchmarks/odds.py [--seeds 5] [--beside COMMIT] [--option training.steps=680 …]

Each training is a process of its own, timed from the command to its end. With --beside each seed is
trained by that commit too, in turns with this one, and asked by this program. With options of one's
own the rows are printed and not kept.
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
PROMPT = "We are all humans born to"


def main():
    """Train and ask; write results/odds.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--beside", metavar="COMMIT")
    parser.add_argument("--option", action="append", default=[])
    given = parser.parse_args()
    options = [f"--{option}" for option in given.option]
    load = os.getloadavg()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        trees = {"this": checked_out("HEAD", f"{place}/this")}
        if given.beside:
            trees[given.beside] = checked_out(given.beside, f"{place}/beside")
        for seed in range(given.seeds):
            for name, tree in trees.items():
                rows.append({"program": name, **trained(tree, place, seed, options)})
                print(rows[-1], flush=True)
    if options:
        return
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "load_before": load,
        "median_seconds": {
            name: statistics.median(row["seconds"] for row in rows if row["program"] == name)
            for name in trees
        },
        "runs": rows,
    }
    (folder / "odds.json").write_text(json.dumps(result, indent=2) + "\n")


def checked_out(commit: str, place: str) -> str:
    """Clone this repository as it was at a commit; return the folder."""
    subprocess.run(["git", "clone", "-q", "--no-checkout", ROOT, place], check=True)
    subprocess.run(["git", "-C", place, "checkout", "-q", "--detach", commit], check=True)
    return place


def trained(tree: str, place: str, seed: int, options: list[str]) -> dict:
    """Train from nothing by the program in a folder, and ask the model."""
    import nextword
    from nextword.corpus.builtin.stories import default_grammar

    with tempfile.TemporaryDirectory(dir=place) as fresh:
        places = {f"NEXTWORD_{name}": f"{fresh}/{name}" for name in ("RUNS", "CACHE")}
        began = time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, "-m", "nextword", "train", "--name", "it"),
                *("--training.seed", str(seed), *options),
            ],
            cwd=fresh,
            env={**os.environ, "PYTHONPATH": tree, **places},
            capture_output=True,
            check=True,
        )
        seconds = time.perf_counter() - began
        model = nextword.load(f"{fresh}/RUNS/it")
        scores = model.evaluate()
        written = model.generate_several("", 100, seed=0)
        odds = {
            word: round(model.probability(PROMPT, f" {word}"), 4)
            for word in ("make", "make mistakes", "create", "learn")
        }
        return {
            "seed": seed,
            "seconds": round(seconds, 1),
            "above_floor": round(model.floor(scores).excess(scores.nats_per_token)[1], 4),
            "stories_that_parse": sum(
                default_grammar().parse(text) is not None for text in written
            ),
            **odds,
        }


if __name__ == "__main__":
    main()
