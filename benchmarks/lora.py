"""Which rate suits LoRA, and what does it lose beside teaching all weights?

Two tasks on stories that no run was trained on: labels (toy or instrument, as in finetune.py), and
answers (a story's first four sentences → its next two). Each rate is a multiple of the one that
teaches all weights by default.

    python benchmarks/lora.py RUN     writes results/lora.json
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
from finetune import DRAWN_WITH, draw

import nextword
from nextword.corpus.builtin.stories import default_grammar
from nextword.finetune import finetune
from nextword.objectives.options import finetune_rate
from nextword.prediction.loading import find_model_folder
from nextword.settings import resolve

TIMES = (3, 5, 10)
SEEDS = (0, 1)
RANKS = (8,)
LABELS, ANSWERS, STEPS = 300, 300, 150
RESULTS = Path(__file__).parent / "results" / "lora.json"


def endings(count: int, first: int) -> list[dict[str, str]]:
    """Draw stories in two parts."""
    rows, index = [], first
    while len(rows) < count:
        parts = re.split(r"(?<=\.) ", default_grammar().draw(DRAWN_WITH, index).text)
        rows.append({"prompt": " ".join(parts[:4]), "answer": " ".join(parts[4:6])})
        index += 1
    return rows


def judged(start: str, file: str, seed: int, rank: int, rate: float) -> dict[str, float]:
    """Teach once; return the hold-out's figures."""
    options = {
        "finetune.steps": STEPS,
        "finetune.seed": seed,
        "finetune.lora_rank": rank,
        "finetune.learning_rate": rate,
    }
    scores = finetune(start, [file], resolve(given=options)).scores
    assert scores is not None  # a fifth is held out
    return scores.as_dict()


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    start = find_model_folder(parser.parse_args().run)[0].absolute()
    width = nextword.load(str(start)).opened.model.shape.hidden_size
    began, results = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NEXTWORD_RUNS"] = folder
        tasks = {"labels": draw(LABELS, 0), "answers": endings(ANSWERS, 30_000_000)}
        for task, rows in tasks.items():
            file = f"{folder}/{task}.jsonl"
            Path(file).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
            for rank in (0, *RANKS):
                for times in TIMES if rank else (1,):
                    rate = times * finetune_rate(width)
                    found = [judged(str(start), file, seed, rank, rate) for seed in SEEDS]
                    row = {
                        "task": task,
                        "rank": rank or "all weights",
                        "times": times,
                        "losses": [one["loss"] for one in found],
                        "loss": statistics.mean(one["loss"] for one in found),
                    }
                    results.append(row)
                    print(json.dumps(row), flush=True)
    about = {"steps": STEPS, "torch": torch.__version__, "seconds": round(time.monotonic() - began)}
    RESULTS.write_text(json.dumps({**about, "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
