"""Is training on text without labels worth it? Few labels, with it and without.

The task: does a story's first part tell of a toy or of an instrument? The names of toys and of
instruments are many, so few labels name only some of them; text without labels has shown the
company that each keeps. Both sides take the same steps on the same labels, each at the rate that
did best on labels set aside for that.

    python benchmarks/finetune.py RUN     writes results/finetune.json
"""

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from pathlib import Path

import torch

import nextword
from nextword.corpus.builtin.stories import default_grammar
from nextword.finetune import finetune
from nextword.prediction.loading import find_model_folder
from nextword.settings import resolve

SIZES = (100, 300, 1000)
SEEDS = (0, 1, 2, 3, 4)
TUNED_SEEDS = (0, 1)
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)
STEPS = 150
TUNED_ON, JUDGED_ON = 400, 1000
DRAWN_WITH = 7_000_003
"""Seed of the labelled stories, which no run was trained on."""
RESULTS = Path(__file__).parent / "results" / "finetune.json"


def draw(count: int, first: int) -> list[dict[str, str]]:
    """Draw stories and label them by the grammar's lists."""
    grammar = default_grammar()
    kinds = {
        kind: {option.parts[0].text for option in grammar.rules[kind].options}
        for kind in ("toy", "instrument")
    }
    rows, index = [], first
    while len(rows) < count:
        text = grammar.draw(DRAWN_WITH, index).text
        index += 1
        part = " ".join(re.split(r"(?<=\.) ", text)[:4])
        named = {
            kind
            for kind, words in kinds.items()
            if any(re.search(rf"\b{re.escape(word)}\b", part) for word in words)
        }
        if len(named) == 1:
            rows.append({"text": part, "label": named.pop()})
    return rows


def accuracy(
    start: str, file: str, judged: list[dict[str, str]], rate: float, seed: int, scratch: bool
) -> float:
    """Finetune once, and return the share of right labels on stories set aside."""
    options = {
        "finetune.steps": STEPS,
        "finetune.learning_rate": rate,
        "finetune.seed": seed,
        "finetune.holdout": 0.0,
    }
    done = finetune(start, [file], resolve(given=options), from_nothing=scratch)
    said = nextword.load(str(done.folder)).classify(*[row["text"] for row in judged])
    right = sum(one.label == row["label"] for one, row in zip(said, judged, strict=True))
    return right / len(judged)


def main() -> None:
    """Tune, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    start = str(find_model_folder(parser.parse_args().run)[0].absolute())
    tuned_on, judged_on = draw(TUNED_ON, 10_000_000), draw(JUDGED_ON, 20_000_000)
    began, results = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NEXTWORD_RUNS"] = folder
        for size in SIZES:
            files = []
            for seed in SEEDS:
                files.append(f"{folder}/labels-{size}-{seed}.jsonl")
                rows = draw(size, seed * 100_000)
                Path(files[-1]).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
            for scratch in (False, True):
                tried = {
                    rate: statistics.mean(
                        accuracy(start, files[seed], tuned_on, rate, seed, scratch)
                        for seed in TUNED_SEEDS
                    )
                    for rate in RATES
                }
                best = max(tried, key=tried.__getitem__)
                found = [
                    accuracy(start, file, judged_on, best, seed, scratch)
                    for seed, file in zip(SEEDS, files, strict=True)
                ]
                row = {
                    "labels": size,
                    "begins_with": "new weights" if scratch else "the run",
                    "rate": best,
                    "tried": tried,
                    "accuracy": found,
                    "mean": statistics.mean(found),
                    "spread": statistics.stdev(found),
                }
                results.append(row)
                print(json.dumps(row), flush=True)
    RESULTS.write_text(
        json.dumps(
            {
                "task": "toy or instrument, from a story's first four sentences",
                "steps": STEPS,
                "judged_on": JUDGED_ON,
                "torch": torch.__version__,
                "seconds": round(time.monotonic() - began),
                "results": results,
            },
            indent=1,
        )
        + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
