"""Set a masked model beside the exact odds: what may stand at a hidden place, given both sides.

The stories' grammar gives each whole text its probability. So the true odds of what stands at a
hidden place follow by Bayes' rule: put every entry of the vocabulary there, keep those that make a
text the grammar can write (and that the vocabulary cuts just so), and divide by their sum.

    python benchmarks/masked.py RUN            one run, place by place
    python benchmarks/masked.py --seeds 0 1 2  train on several seeds and write results/masked.json
"""

import argparse
import json
import math
import os
import random
import tempfile
import time
from pathlib import Path

import torch

import nextword
from nextword.corpus.builtin.stories import Grammar, default_grammar
from nextword.language_model import Model
from nextword.prediction.scoring import hide_each
from nextword.vocabulary.tokenizer import Vocabulary

PLACES = 20
SAYING = "We are all humans born to"
UNSEEN_SEED = 1_000_003
"""Of stories that no run was trained on."""
RESULTS = Path(__file__).parent / "results" / "masked.json"


def posterior(
    grammar: Grammar, vocabulary: Vocabulary, ids: list[int], place: int
) -> dict[int, float]:
    """Return the exact probability of each entry at a hidden place of a whole story."""
    found = {}
    for entry in range(len(vocabulary)):
        if not vocabulary.piece_bytes(entry):
            continue
        tried = [*ids[:place], entry, *ids[place + 1 :]]
        text = vocabulary.decode(tried)
        story = grammar.parse(text)
        if story is not None and vocabulary.encode(text) == tried:
            found[entry] = story.log_probability
    most = max(found.values())
    total = math.fsum(math.exp(one - most) for one in found.values())
    return {entry: math.exp(one - most) / total for entry, one in found.items()}


def places(vocabulary: Vocabulary) -> list[tuple[list[int], int]]:
    """Choose stories and hidden places: five in the saying, the others anywhere."""
    grammar, source = default_grammar(), random.Random(0)
    chosen: list[tuple[list[int], int]] = []
    index = 0
    while len(chosen) < PLACES:
        story = grammar.draw(UNSEEN_SEED, index).text
        ids = vocabulary.encode(story)
        index += 1
        if len(chosen) < 5:
            if story.startswith(SAYING):
                after = len(vocabulary.encode(SAYING))
                chosen.append((ids, after + len(chosen) % 2))
        else:
            chosen.append((ids, source.randrange(len(ids))))
    return chosen


def distances(model: Model, known: list[tuple[list[int], int, dict[int, float]]]) -> list[dict]:
    """Return how far the model's odds are from the exact ones, place by place."""
    vocabulary, network = model.vocabulary, model.opened.model
    rows = []
    for ids, place, exact in known:
        window = torch.tensor([vocabulary.end_id, *ids, vocabulary.end_id]).numpy()
        with torch.inference_mode():
            state = hide_each(network, window, torch.tensor([place + 1]).numpy(), vocabulary.mask)
            odds = (state @ network.output_weight.T).double().softmax(-1)[0]
        differences = {id_: abs(float(odds[id_]) - p) for id_, p in exact.items()}
        others = 1 - sum(float(odds[id_]) for id_ in exact)
        worst = max(differences, key=differences.__getitem__)
        rows.append(
            {
                "before": vocabulary.decode(ids[max(place - 6, 0) : place]),
                "hidden": vocabulary.piece(ids[place]),
                "after": vocabulary.decode(ids[place + 1 : place + 4]),
                "candidates": len(exact),
                "exact": exact[ids[place]],
                "model": float(odds[ids[place]]),
                "worst_piece": vocabulary.piece(worst),
                "worst": max(max(differences.values()), others),
            }
        )
    return rows


def measure(model: Model) -> list[dict]:
    """Compute the exact odds and the model's."""
    grammar, vocabulary = default_grammar(), model.vocabulary
    known = [
        (ids, place, posterior(grammar, vocabulary, ids, place))
        for ids, place in places(vocabulary)
    ]
    return distances(model, known)


def main() -> None:
    """Measure one run, or train on several seeds and write the result down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?")
    parser.add_argument("--seeds", type=int, nargs="*", default=[])
    parser.add_argument("--option", action="append", default=[], help="room.name=value")
    given = parser.parse_args()
    if given.run:
        rows = measure(nextword.load(given.run))
        for row in rows:
            print(json.dumps(row))
        print("worst", max(row["worst"] for row in rows))
        return
    results = []
    options = (one.partition("=") for one in given.option)
    extra = {key: json.loads(value) for key, _, value in options}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NEXTWORD_RUNS"] = folder
        for seed in given.seeds:
            began = time.monotonic()
            model = nextword.train(
                name=f"masked-{seed}-{time.time_ns()}",
                options={"objective.name": "masked", "training.seed": seed, **extra},
            )
            seconds = time.monotonic() - began
            rows = measure(model)
            results.append(
                {
                    "seed": seed,
                    "seconds": round(seconds, 1),
                    "nats_per_hidden_token": model.evaluate().nats_per_token,
                    "worst": max(row["worst"] for row in rows),
                    "places": rows,
                }
            )
            print(
                seed,
                round(seconds),
                results[-1]["nats_per_hidden_token"],
                [round(row["worst"], 3) for row in rows],
                flush=True,
            )
    if not extra:
        RESULTS.write_text(json.dumps({"runs": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
