"""What is hidden, by which rule, and that nothing else is asked."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nextword.base.errors import SettingsError
from nextword.model.documents import may_look
from nextword.objectives.masked import MaskingIds, choose_places, documents_of, hide, with_ends
from nextword.objectives.options import ObjectiveSettings
from nextword.targets.batch import IGNORED
from nextword.training.step import LanguageModelLoss, accumulate
from tests.model.test_layouts import BOTH
from tests.model.test_transformer import scattered

E, MASK = 0, 2
SIGNS = MaskingIds(E, MASK, np.arange(3, 97))


def visible_positions(ids):
    return may_look(documents_of(ids, E), causal=False)


def windows(rows=64, length=200, seed=0, mean=40):
    """Rows of text in which documents end now and then."""
    source = np.random.default_rng(seed)
    text = source.integers(3, 97, (rows, length + 1))
    text[source.random(text.shape) < 1 / mean] = E
    return text


def test_each_document_gets_an_end_of_text_of_its_own_at_the_beginning():
    text = np.array([E, 5, 6, E, 7, E, 8, 9, 9])
    assert with_ends(text, E).tolist() == [E, 5, 6, E, E, 7, E, E]
    assert with_ends(np.array([4, 5, 6, 7]), E).tolist() == [5, 6, 7]  # begins within a document
    assert with_ends(np.array([4, 5, E, 7]), E).tolist() == [5, E, E]


def test_positions_see_their_own_document_on_both_sides_and_no_other():
    row = torch.tensor([[E, 5, 6, E, E, 7, E, E]])
    seen = visible_positions(row)[0, 0]
    document = torch.tensor([1, 1, 1, 1, 2, 2, 2, 3])
    assert torch.equal(seen, document[:, None] == document[None])
    cut = visible_positions(torch.tensor([[5, 6, E, E, 7]]))[0, 0]
    document = torch.tensor([0, 0, 0, 1, 1])
    assert torch.equal(cut, document[:, None] == document[None])


def test_a_document_in_a_row_is_judged_as_it_is_alone():
    """So what is asked later, with nothing beside it, is what was trained."""
    model = scattered(BOTH)
    row = torch.tensor([[E, 5, MASK, E, E, 7, MASK, 9, E]])
    together = model.hidden(row, seen=visible_positions(row))
    alone = torch.cat([model.hidden(row[:, :4]), model.hidden(row[:, 4:])], dim=1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 0.9), st.integers(0, 9), st.integers(1, 60))
def test_the_share_is_kept_exactly_and_no_end_is_hidden(rate, seed, length):
    row = windows(1, length, seed, mean=5)[0]
    places = choose_places(row, E, rate, np.random.default_rng(seed))
    ordinary = int((row != E).sum())
    assert len(places) == min(max(1, round(rate * ordinary)), ordinary)
    assert len(set(places.tolist())) == len(places)
    assert (row[places] != E).all()


def test_hidden_tokens_are_masked_exchanged_or_kept_as_the_rule_says():
    text = windows(rows=400)
    batch = hide(text, range(400), SIGNS, ObjectiveSettings(rate=0.3), seed=7)
    whole = np.stack([with_ends(row, E) for row in text])
    asked = batch.targets != IGNORED
    assert np.array_equal(batch.targets[asked], whole[asked])
    assert np.array_equal(batch.inputs[~asked], whole[~asked])
    share = asked.sum() / (whole != E).sum()
    assert share == pytest.approx(0.3, abs=0.005)
    masked = (batch.inputs == MASK)[asked].mean()
    kept = (batch.inputs == whole)[asked].mean()
    assert masked == pytest.approx(0.8, abs=0.01)
    assert kept == pytest.approx(0.1 + 0.1 / 94, abs=0.01)
    assert set(np.unique(batch.inputs)) <= {E, MASK, *range(3, 97)}


@pytest.mark.parametrize(("mask", "wrong"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_the_shares_of_the_rule_are_options(mask, wrong):
    text = windows()
    rule = ObjectiveSettings(mask_share=mask, random_share=wrong)
    batch = hide(text, range(64), SIGNS, rule, seed=0)
    whole, asked = np.stack([with_ends(row, E) for row in text]), batch.targets != IGNORED
    assert (batch.inputs == MASK)[asked].mean() == mask
    assert (batch.inputs == whole)[asked].mean() == pytest.approx(1 - mask - wrong, abs=0.02)


def test_a_rule_of_more_than_all_is_refused():
    with pytest.raises(SettingsError, match="more than 1"):
        ObjectiveSettings(mask_share=0.8, random_share=0.3)


def test_what_is_hidden_depends_on_the_seed_and_the_windows_number_alone():
    text, rule = windows(8), ObjectiveSettings()
    whole = hide(text, range(8), SIGNS, rule, seed=3)
    halves = [hide(text[part], range(8)[part], SIGNS, rule, 3) for part in (slice(4), slice(4, 8))]
    assert np.array_equal(whole.inputs, np.concatenate([half.inputs for half in halves]))
    assert np.array_equal(whole.targets, np.concatenate([half.targets for half in halves]))
    other = hide(text, range(8), SIGNS, rule, seed=4)
    later = hide(text, range(8, 16), SIGNS, rule, seed=3)
    assert not np.array_equal(whole.targets, other.targets)
    assert not np.array_equal(whole.targets, later.targets)


def test_only_hidden_places_are_in_the_loss():
    """Another target where nothing is asked changes neither the loss nor a gradient."""
    model = scattered(BOTH)
    text = windows(4, 23)
    batch = hide(text, range(4), SIGNS, ObjectiveSettings(), seed=0)
    loss = LanguageModelLoss(model, precision=torch.float32, end_id=E, documents_of=documents_of)
    nats = accumulate(loss, [batch], batch.num_targets, torch.device("cpu"))
    inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
    odds = torch.log_softmax(
        model.hidden(inputs, seen=visible_positions(inputs)) @ model.output_weight.T, dim=-1
    )
    asked = targets != IGNORED
    wanted = -odds[asked].gather(1, targets[asked][:, None]).mean()
    assert nats == pytest.approx(wanted.item(), rel=1e-5)
    gradient = model.output_weight.grad.clone()
    model.zero_grad()
    wanted.backward()
    torch.testing.assert_close(gradient, model.output_weight.grad, atol=1e-5, rtol=1e-4)
