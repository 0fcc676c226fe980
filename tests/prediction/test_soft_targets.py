"""Soft targets: what counting expects at each place of a text that it has not counted itself."""

import json

import numpy as np
import pytest
import torch

import nextword
from nextword.base.errors import SettingsError
from nextword.prediction.ngram import KneserNey
from nextword.prediction.recent import recall
from nextword.prediction.soft_targets import ORDER, SoftTargets
from nextword.targets.batch import Batch
from nextword.training.schedule import SOFT_FALL, soft_share
from nextword.training.step import LanguageModelLoss
from tests.model.test_transformer import SHAPE, scattered

ENTRIES, END = 23, 0


class Stream:
    """Tokens in documents, as shards hold them."""

    end_id = END

    def __init__(self, documents):
        self.tokens = np.concatenate(documents)
        self.document_ends = np.cumsum([len(document) for document in documents])

    def __len__(self):
        return len(self.tokens)

    def read(self, start, stop):
        return self.tokens[start:stop]


def documents(lengths=(1, 200, 3, 60, 410, 2, 2, 90), *, closed=True):
    source = np.random.default_rng(0)
    found = []
    for length in lengths:
        words = source.integers(1, ENTRIES, length)
        words[length // 2 :] = np.minimum(words[length // 2 :], 4)  # some contexts come often
        found.append(np.append(words, END) if closed else words)
    return found


def expected(stream, cuts, place):
    """The same by the class's own words: count all but the fold, read the tokens before."""
    fold = int(np.searchsorted(cuts, place, side="right")) - 1
    start, stop = int(cuts[fold]), int(cuts[fold + 1])
    rest, begin, context = [], 0, None
    for end in stream.document_ends.tolist():
        rest += [stream.read(a, b) for a, b in ((begin, min(end, start)), (max(begin, stop), end))]
        if begin <= place < end:
            context = [END, *stream.read(begin, place).tolist()]
        begin = end
    model = KneserNey(ORDER, ENTRIES, END).learn([part for part in rest if len(part)])
    return model.distribution(context)


@pytest.mark.parametrize("folds", [2, 5])
def test_each_place_has_the_odds_of_all_other_folds(folds):
    stream = Stream(documents())
    soft = SoftTargets(stream, ENTRIES, folds)
    places = np.arange(len(stream))
    found = soft.at(places)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    for place in places.tolist():
        np.testing.assert_allclose(
            found[place], expected(stream, soft.cuts, place), rtol=2e-5, atol=1e-7
        )


def test_what_a_fold_alone_says_is_not_expected_in_it():
    """A token that stands in one fold only is no likelier there than one never seen."""
    text = np.tile(np.arange(1, 9), 100)
    text[:100] = np.where(text[:100] == 5, 22, text[:100])
    soft = SoftTargets(Stream([text]), ENTRIES, 8)
    inside, outside = soft.at(np.array([44])), soft.at(np.array([444]))
    assert text[44] == 22
    assert inside[0, 22] == inside[0, 21] < 0.01
    assert outside[0, 5] > 0.5


def test_a_text_that_no_end_closes_and_many_rows():
    stream = Stream([*documents((300,)), *documents((200,), closed=False)])
    soft = SoftTargets(stream, ENTRIES, 3)
    places = np.random.default_rng(1).integers(0, len(stream), (4, 7))
    targets = stream.tokens[places]
    batch = Batch(stream.tokens[places - 1], targets)
    added = soft.added(places, batch, 0.25)
    assert added.shape == (4, 7, ENTRIES)
    np.testing.assert_allclose(added.sum(-1), 0, atol=1e-6)
    whole = added + np.eye(ENTRIES)[targets]
    soft_odds = recall(soft.at(places), batch.inputs, END)
    np.testing.assert_allclose(whole, 0.25 * soft_odds + 0.75 * np.eye(ENTRIES)[targets], atol=1e-6)


def test_the_share_falls_in_a_straight_line_and_not_below_nothing():
    assert soft_share(1.0, 0, 10) == 1.0
    assert soft_share(1.0, 5, 10) == pytest.approx(1 - SOFT_FALL / 2)
    assert soft_share(0.1, 9, 10) == 0.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_are_those_of_the_soft_cross_entropy_and_the_loss_is_the_hard_one(dtype):
    source = torch.Generator().manual_seed(0)
    ids = torch.randint(0, SHAPE.vocab_size, (2, 8), generator=source)
    inputs, targets = ids[:, :-1], ids[:, 1:]
    odds = torch.rand(2, 7, SHAPE.vocab_size, generator=source, dtype=dtype)
    odds /= odds.sum(-1, keepdim=True)
    right = torch.nn.functional.one_hot(targets, SHAPE.vocab_size).to(dtype)
    added = 0.4 * (odds - right)
    model, plain = scattered().to(dtype), scattered().to(dtype)
    loss = LanguageModelLoss(model, precision=torch.float32)(inputs, targets, soft=added)
    loss.backward()
    log_p = plain(inputs).log_softmax(-1)
    (-(right + added) * log_p).sum().backward()
    torch.testing.assert_close(loss, -(right * log_p).sum(), rtol=1e-5, atol=1e-5)
    for (name, mine), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=2e-4, atol=2e-4, msg=name)


TEXT = "".join(f"the {n % 7} cats of {n % 11} towns sat on mat {n % 5}.\n" for n in range(300))
OPTIONS = {
    "training.steps": 4,
    "vocabulary.size": 300,
    "machine.threads": 1,
    "model.hidden_size": 64,
}


def settings_of(model):
    return (model.opened.folder.parents[1] / "settings.toml").read_text()


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    return "text.txt"


def test_a_text_of_ones_own_has_them_and_the_stories_have_none(text):
    own = nextword.train(text, options=OPTIONS)
    recipe = settings_of(own)
    assert "soft_targets = 1.0" in recipe
    stories = {"corpus.stories": 200, "training.steps": 1}
    assert "soft_targets = 0.0" in settings_of(nextword.train(options=stories))
    other = nextword.train(text, options={**OPTIONS, "training.soft_targets": 0.0})
    assert any(
        not torch.equal(one, two)
        for one, two in zip(own.model.parameters(), other.model.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("paths", "options", "words"),
    [
        (["text.txt"], {"objective.name": "masked"}, "a masked model reads both sides"),
        (["text.txt=2", "more.txt=1"], {}, "several texts are mixed"),
    ],
)
def test_where_nothing_can_be_counted_they_are_refused(text, tmp_path, paths, options, words):
    (tmp_path / "more.txt").write_text(TEXT)
    for given in ({}, {"training.soft_targets": 0.5}):
        asked = {**OPTIONS, **options, **given, "training.steps": 1}
        if given:
            with pytest.raises(SettingsError, match=words):
                nextword.train(*paths, options=asked)
        else:
            nextword.train(*paths, options=asked)


def test_a_resumed_run_is_the_whole_run_bit_for_bit(text):
    every = {**OPTIONS, "training.steps": 6, "training.checkpoint_every": 3}
    whole = nextword.train(text, name="whole", options=every)
    nextword.train(text, name="parted", options=every)
    parted = nextword.train(resume="parted@3")
    for one, two in zip(whole.model.parameters(), parted.model.parameters(), strict=True):
        assert torch.equal(one, two)
    steps = [
        [(e["step"], e["loss"]) for e in map(json.loads, lines) if e["event"] == "step"]
        for lines in (
            (model.opened.folder.parents[1] / "metrics.jsonl").read_text().splitlines()
            for model in (whole, parted)
        )
    ]
    assert steps[0] == steps[1]
    assert [step for step, _ in steps[0]] == [1, 2, 3, 4, 5, 6]
