"""Counting writes rows like the text, and says what it expects at each of their places."""

import json

import numpy as np
import pytest

import nextword
from nextword.base.errors import SettingsError
from nextword.prediction.ngram import KneserNey
from nextword.prediction.recent import recall, recall_last
from nextword.prediction.soft_targets import ORDER
from nextword.prediction.writer import TOGETHER, Writer
from nextword.targets.batch import Batch, joined
from nextword.training.plan import WRITTEN, default_written
from nextword.watch.reading import batch_at
from tests.prediction.test_soft_targets import (
    END,
    ENTRIES,
    OPTIONS,
    Stream,
    documents,
    settings_of,
    text,
)

__all__ = ["text"]

CONTEXT = 24


def writer(seed=0, **said):
    return Writer(Stream(documents()), ENTRIES, CONTEXT, seed, **said)


def test_a_row_is_a_function_of_its_number_and_the_seed():
    border = TOGETHER - 3
    whole = writer().rows(border, TOGETHER + 4)
    parted = writer()
    later = parted.rows(TOGETHER + 1, TOGETHER + 4)
    parted.rows(5 * TOGETHER, 5 * TOGETHER + 1)  # far away, so that those near are forgotten
    earlier = parted.rows(border, TOGETHER + 1)
    for one, two, three in zip(whole, earlier, later, strict=True):
        if one is not None:
            np.testing.assert_array_equal(one, np.concatenate((two, three)))
    other = writer(seed=1).rows(border, TOGETHER + 4)
    assert (other.inputs != whole.inputs).any()
    assert len(np.unique(whole.inputs, axis=0)) == len(whole.inputs)


@pytest.mark.parametrize("apart", [True, False])
def test_what_is_expected_is_what_the_counts_and_the_row_say(apart):
    batch = writer(apart=apart).rows(0, 40)
    assert batch.inputs.shape == (40, CONTEXT)
    np.testing.assert_array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert (batch.targets == END).any()
    model = KneserNey(ORDER, ENTRIES, END).learn(documents())
    expected = np.empty((40, CONTEXT, ENTRIES), dtype=np.float32)
    for row, read in enumerate(batch.inputs.tolist()):
        for place in range(CONTEXT):
            ends = [at for at in range(place + 1) if read[at] == END]
            expected[row, place] = model.distribution(read[ends[-1] if ends else 0 : place + 1])
    recall(expected, batch.inputs, END if apart else None)
    np.testing.assert_allclose(batch.soft.sum(-1), 0, atol=1e-5)
    np.testing.assert_allclose(
        batch.soft + np.eye(ENTRIES)[batch.targets], expected, rtol=1e-4, atol=1e-6
    )


def test_it_is_written_as_it_is_expected():
    """The tokens that come are no likelier and no less likely than was said."""
    batch = writer().rows(0, 1_000)
    odds = batch.soft + np.eye(ENTRIES)[batch.targets]
    drawn = odds[:, 5:]  # the first are the text's own
    came = np.bincount(batch.targets[:, 5:].reshape(-1), minlength=ENTRIES)
    np.testing.assert_allclose(came / came.sum(), drawn.mean(axis=(0, 1)), atol=0.01)
    said = np.take_along_axis(drawn, batch.targets[:, 5:, None], axis=2)
    surprise, entropy = -np.log(said).mean(), -(drawn * np.log(drawn)).sum(-1).mean()
    assert surprise == pytest.approx(entropy, rel=0.02)


@pytest.mark.parametrize("end_id", [END, None])
def test_at_a_rows_end_the_same_is_expected_as_in_its_middle(end_id):
    source = np.random.default_rng(0)
    read = source.integers(0, 6, (50, 30))
    odds = source.dirichlet(np.ones(6), (50, 30)).astype(np.float32)
    for size in (1, 2, 7, 30):
        last = recall_last(odds[:, size - 1].copy(), read[:, :size], end_id)
        whole = recall(odds.copy(), read, end_id)[:, size - 1]
        np.testing.assert_allclose(last, whole, rtol=1e-6)


def test_rows_are_joined_and_what_is_not_soft_stays_hard():
    ids = np.arange(6).reshape(2, 3)
    hard, soft = Batch(ids, ids + 1), Batch(ids, ids, soft=np.ones((2, 3, 7), dtype=np.float32))
    both = joined(hard, soft)
    assert both.inputs.shape == both.targets.shape == (4, 3)
    assert not both.soft[:2].any()
    assert both.soft[2:].all()
    assert joined(hard, hard).soft is None


def test_a_text_too_short_for_the_beginning_and_one_that_ends_everywhere():
    for tokens in ([[1, 2, END]], [[END]] * 8):
        batch = Writer(Stream([np.array(part) for part in tokens]), ENTRIES, 9, 0).rows(0, 3)
        assert batch.inputs.shape == (3, 9)
        assert np.isfinite(batch.soft).all()


def test_small_texts_are_read_among_written_rows(text, tmp_path):
    """Of the text as many tokens are read as before, and a page shows the text's rows alone."""
    most = WRITTEN[-1][0]
    assert default_written(100) == WRITTEN[0][1] > 0.5
    assert default_written(most) > 0 == default_written(most + 1)
    model = nextword.train(text, name="a", options=OPTIONS)
    run = tmp_path / "runs" / "a"
    assert f"written = {default_written(100)}" in settings_of(model)
    told = batch_at(run, 2, None)
    plan = json.loads((run / "run.json").read_text())["plan"]
    assert told["rows"] == plan["rows"] - plan["written"] > 0 < plan["written"]
    mine = (tmp_path / text).read_text()
    assert all(row.strip("…")[:40] in mine for row in told["texts"])
    alone = nextword.train(text, name="b", options={**OPTIONS, "training.written": 0.0})
    assert alone.opened.model.shape == model.opened.model.shape
    assert not alone.model.output_weight.equal(model.model.output_weight)


def test_it_is_refused_where_nothing_can_be_counted(text):
    asked = {**OPTIONS, "objective.name": "masked", "training.written": 0.5}
    with pytest.raises(SettingsError, match=r"training.written = 0.5: a masked model"):
        nextword.train(text, options=asked)
