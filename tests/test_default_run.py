"""What the README promises of `nextword train`."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from nextword.corpus.builtin.stories import default_grammar

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
FLOOR_LIMIT = 0.03
ODDS_LIMIT = 0.05


def test_it_says_what_it_does_before_during_and_after(default_run):
    said = default_run.stderr
    for words in (
        "vocabulary",
        "prepared in",
        "parameters",
        "MFLOP a token",
        "about",
        "it writes:",
        "it expected",
    ):
        assert words in said
    for words in (
        "Done in",
        "known exactly",
        "nextword generate stories-1",
        "nextword predict stories-1",
    ):
        assert words in said
    assert "Traceback" not in said
    assert "\x1b" not in said


def test_it_ends_at_most_3_per_cent_above_the_floor(shared_environment, default_run):
    lines = (shared_environment.folder / "runs" / "stories-1" / "metrics.jsonl").read_text()
    floor = json.loads(next(line for line in lines.splitlines() if '"floor"' in line))
    assert 0 < floor["share"] <= FLOOR_LIMIT
    said = re.search(r"This one is (\S+) nats above it: (\S+)%", default_run.stderr)
    assert float(said[1]) == pytest.approx(floor["above"], abs=1e-3)


def test_the_floor_is_the_probability_of_the_held_out_stories(shared_environment, default_run):
    import nextword

    model = nextword.load("stories-1")
    scores = model.evaluate()
    floor = model.floor(scores)
    prepared = model._prepared()
    nats = 0.0
    for number in range(prepared.holdout.num_documents):
        text = prepared.vocabulary.decode(prepared.holdout.document(number).tolist())
        nats -= default_grammar().parse(text).log_probability
    assert floor.nats_per_token == pytest.approx(nats / len(prepared.holdout), rel=1e-12)
    assert scores.tokens == len(prepared.holdout)
    assert scores.nats_per_token > floor.nats_per_token


def test_it_knows_the_odds_of_the_worked_example(shared_environment, default_run):
    import nextword

    model = nextword.load("stories-1")
    prompt = "We are all humans born to"
    assert model.probability(prompt, " make mistakes") == pytest.approx(0.6, abs=ODDS_LIMIT)
    assert model.probability(prompt, " make") == pytest.approx(0.6, abs=ODDS_LIMIT)
    assert model.probability(prompt, " create") == pytest.approx(0.2, abs=ODDS_LIMIT)
    assert model.probability(prompt, " learn") == pytest.approx(0.1, abs=ODDS_LIMIT)
    for word in (" make", " mistakes", " create", " learn"):
        assert len(model.vocabulary.encode(word)) == 1


def test_few_labels_go_far_on_what_it_read(shared_environment, default_run):
    """Names that were never labelled: what it knows of them it can only have from text."""
    import nextword
    from nextword.explanation.labels import learn_labels

    model = nextword.load("stories-1")
    lesson = learn_labels(model.opened.model, model.vocabulary)
    assert lesson.right >= 7
    assert len(lesson.asked) == 10


def test_the_stories_that_it_writes_are_stories(shared_environment, default_run):
    import nextword

    model = nextword.load("stories-1")
    written = [model.generate(seed=0, sample=sample) for sample in range(30)]
    assert sum(default_grammar().parse(text) is not None for text in written) >= 27
    assert len(set(written)) == 30


def test_whole_runs_did_what_is_promised_on_every_seed():
    """As benchmarks/odds.py measured it."""
    result = json.loads((RESULTS / "odds.json").read_text(encoding="utf-8"))
    rows = [row for row in result["runs"] if row["program"] == "this"]
    assert len(rows) >= 5
    for row in rows:
        assert row["above_floor"] <= 0.02
        assert row["stories_that_parse"] >= 95
    for words, odds in (("make", 0.6), ("make mistakes", 0.6), ("create", 0.2), ("learn", 0.1)):
        found = sorted(row[words] for row in rows)
        assert found[len(rows) // 2] == pytest.approx(odds, abs=0.02)
        assert all(abs(one - odds) <= ODDS_LIMIT for one in found)


def test_transformers_opens_the_checkpoint_with_the_same_logits(shared_environment, default_run):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import nextword

    model = nextword.load("stories-1")
    folder = model.opened.folder
    theirs, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    text = default_grammar().draw(99, 0).text
    ids = model.vocabulary.encode(text)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
    with torch.no_grad():
        found = theirs(torch.tensor([[model.vocabulary.end_id, *ids]])).logits
        ours = model.opened.model(torch.tensor([[model.vocabulary.end_id, *ids]]))
    torch.testing.assert_close(found, ours, atol=1e-4, rtol=1e-4)


def test_a_5_gram_model_stays_25_per_cent_above_the_floor(shared_environment, default_run):
    """Interpolated 5-gram with Witten-Bell weights, on the run's own tokens."""
    import nextword

    prepared = nextword.load("stories-1")._prepared()
    size = len(prepared.vocabulary)
    assert size < 2**12  # five tokens make one whole number of 60 bits
    train, holdout = (ends_first(side, prepared.vocabulary.end_id) for side in
                      (prepared.train, prepared.holdout))  # fmt: skip
    asked = holdout[0][holdout[1] > 0]
    probability = np.full(len(asked), 1 / size)
    for order in range(5):
        (learned, whole), (wanted, known) = (grams(*side, order) for side in (train, holdout))
        pairs, times = np.unique(learned[whole], return_counts=True)
        contexts, kinds = np.unique(pairs >> 12, return_counts=True)
        totals = np.bincount(np.searchsorted(contexts, pairs >> 12), weights=times)
        for_pair, for_context = lookup(pairs, times, wanted), wanted >> 12
        total, kind = lookup(contexts, totals, for_context), lookup(contexts, kinds, for_context)
        better = (for_pair + kind * probability) / np.maximum(total + kind, 1)
        probability = np.where(known & (total > 0), better, probability)
    nats = -np.log(probability).mean()
    model = nextword.load("stories-1")
    assert nats >= 1.25 * model.floor(model.evaluate()).nats_per_token


def ends_first(side, end_id):
    """Lay out end-of-text and then a document, one after the other; and places in documents."""
    documents = [np.r_[end_id, side.document(n)] for n in range(side.num_documents)]
    places = np.concatenate([np.arange(len(document)) for document in documents])
    return np.concatenate(documents).astype(np.int64), places


def grams(tokens, places, order):
    """Return each asked token and `order` before it as one number, and whether it has as many."""
    packed = sum(np.roll(tokens, back) << 12 * back for back in range(order + 1))
    return packed[places > 0], (places >= order)[places > 0]


def lookup(keys, values, wanted):
    """Return the value of each wanted key, 0 where there is none."""
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)
