"""The default run on five seeds: how far above the floor, the odds, the stories that parse.

python benchmarks/odds.py [--seeds 5] [--option training.steps=680 …]

With options of one's own the rows are printed and not kept.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

PROMPT = "We are all humans born to"


def main():
    """Train and ask; write results/odds.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--option", action="append", default=[])
    given = parser.parse_args()
    named = (option.split("=", 1) for option in given.option)
    options = {name: json.loads(value) for name, value in named}
    rows = []
    with tempfile.TemporaryDirectory() as place:
        os.environ.update(NEXTWORD_RUNS=f"{place}/runs", NEXTWORD_CACHE=f"{place}/cache")
        import nextword
        from nextword.corpus.builtin.stories import default_grammar

        for seed in range(given.seeds):
            began = time.perf_counter()
            model = nextword.train(options={**options, "training.seed": seed})
            seconds = time.perf_counter() - began
            scores = model.evaluate()
            written = model.generate_several("", 100, seed=0)
            odds = {
                word: model.probability(PROMPT, f" {word}")
                for word in ("make", "make mistakes", "create", "learn")
            }
            rows.append(
                {
                    "seed": seed,
                    "seconds": round(seconds, 1),
                    "above_floor": round(model.floor(scores).excess(scores.nats_per_token)[1], 4),
                    "stories_that_parse": sum(
                        default_grammar().parse(text) is not None for text in written
                    ),
                    **{word: round(value, 4) for word, value in odds.items()},
                }
            )
            print(rows[-1], flush=True)
    if options:
        return
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    result = {"date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(), "runs": rows}
    (folder / "odds.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
