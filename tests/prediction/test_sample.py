import pytest
import torch

from nextword.base.errors import EvaluationError
from nextword.prediction import sample
from nextword.prediction.options import SamplingSettings
from nextword.prediction.sample import HEAD, adjusted, choose, choose_each

LOGITS = torch.log(torch.tensor([0.6, 0.2, 0.1, 0.07, 0.03]))
PLAIN = {"temperature": 1.0, "min_p": 0.0}


def left(**settings):
    return [
        index
        for index, value in enumerate(adjusted(LOGITS, SamplingSettings(**{**PLAIN, **settings})))
        if value > -1e9
    ]


def test_cuts_keep_what_they_should():
    assert left() == [0, 1, 2, 3, 4]
    assert left(top_k=2) == [0, 1]
    assert left(top_p=0.79) == [0, 1]
    assert left(top_p=0.81) == [0, 1, 2]
    assert left(top_p=0.01) == [0]
    assert left(min_p=0.15) == [0, 1, 2]
    assert left(temperature=0.0) == [0]


def test_temperature_divides_the_logits():
    assert torch.allclose(
        adjusted(LOGITS, SamplingSettings(temperature=0.5, min_p=0.0)), LOGITS * 2
    )


def test_the_penalty_makes_earlier_tokens_less_likely():
    settings = SamplingSettings(temperature=1.0, min_p=0.0, repetition_penalty=2.0)
    found = adjusted(LOGITS, settings, torch.tensor([0, 0]))
    assert float(found[0]) < float(LOGITS[0])
    assert torch.equal(found[1:], LOGITS[1:])


def test_drawing_follows_the_probabilities():
    source = torch.Generator().manual_seed(0)
    drawn = [choose(LOGITS, SamplingSettings(**PLAIN), source) for _ in range(4000)]
    share = torch.bincount(torch.tensor(drawn), minlength=5) / 4000
    assert torch.allclose(share, LOGITS.exp(), atol=0.03)


def test_many_texts_choose_each_for_itself():
    logits = torch.randn(6, 300, generator=torch.Generator().manual_seed(2))
    settings = [
        SamplingSettings(temperature=0.0),
        SamplingSettings(temperature=1.0, min_p=0.0),
        SamplingSettings(temperature=0.5, min_p=0.0, top_k=5),
        SamplingSettings(temperature=2.0, min_p=0.0, top_p=0.3),
        SamplingSettings(temperature=1.5, min_p=0.4),
        SamplingSettings(temperature=1.0, min_p=0.0, top_p=1e-300),
    ]
    draws = [0.1, 0.5, 0.999999999, 0.0, 0.7, 0.9]
    together = choose_each(logits, settings, draws)
    alone = [
        choose_each(logits[row : row + 1], settings[row : row + 1], draws[row : row + 1])[0]
        for row in range(6)
    ]
    assert together == alone
    for row in (0, 5):
        assert together[row] == int(logits[row].argmax())
    for row in range(1, 6):
        kept = adjusted(logits[row], settings[row])
        assert kept[together[row]] > -torch.inf


def test_draws_find_every_token_as_often_as_it_is_likely():
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]])
    settings = [SamplingSettings(temperature=1.0, min_p=0.0)]
    count = 4000
    found = [choose_each(logits, settings, [(n + 0.5) / count])[0] for n in range(count)]
    shares = torch.bincount(torch.tensor(found)) / count
    assert torch.allclose(shares, logits[0].softmax(0), atol=1e-3)


def test_the_least_share_keeps_the_likeliest():
    logits = torch.tensor([0.0, 3.0, 1.0])
    kept = adjusted(logits, SamplingSettings(temperature=1.0, min_p=0.0, top_p=1e-300))
    assert kept.tolist() == [-torch.inf, 3.0, -torch.inf]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_scores_that_are_no_numbers_are_named(bad, temperature):
    logits = LOGITS.clone()
    logits[3] = bad
    source = torch.Generator().manual_seed(0)
    with pytest.raises(EvaluationError, match="no numbers"):
        choose(logits, SamplingSettings(temperature=temperature), source)


def test_of_many_entries_one_number_is_drawn_and_says_the_same(monkeypatch):
    """By adding up, as often as by a number for each; what may not be chosen never is."""
    logits = torch.full((5000,), -torch.inf)
    where, odds = [3, 1700, 4999], torch.tensor([0.5, 0.3, 0.2])
    logits[where] = odds.log() + 7
    settings = SamplingSettings(temperature=1.0, min_p=0.0)
    for many in (4096, 10_000):
        monkeypatch.setattr(sample, "MANY", many)
        monkeypatch.setattr(sample.math, "isfinite", lambda number: True)
        source = torch.Generator().manual_seed(0)
        drawn = [choose(logits, settings, source) for _ in range(2000)]
        assert set(drawn) == set(where)
        for id_, share in zip(where, odds.tolist(), strict=True):
            assert drawn.count(id_) / 2000 == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize("penalty", [1.0, 2.0])
def test_the_likeliest_is_found_without_a_draw(penalty):
    source, logits = torch.Generator().manual_seed(0), torch.tensor([1.0, 3.0, 2.5])
    settings = SamplingSettings(temperature=0.0, repetition_penalty=penalty)
    state = source.get_state()
    assert choose(logits, settings, source, torch.tensor([1])) == (1 if penalty == 1.0 else 2)
    assert source.get_state().equal(state)
    assert logits.tolist() == [1.0, 3.0, 2.5]


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_no_numbers_are_refused(wrong):
    for place in (0, 4, 9):
        logits = torch.zeros(10)
        logits[place] = wrong
        with pytest.raises(EvaluationError, match="no numbers"):
            choose(logits, SamplingSettings(), torch.Generator())


@pytest.mark.parametrize("entries", [1, 5, HEAD, HEAD + 1, 5000])
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_the_nucleus_is_that_of_sorting_everything(entries, spread):
    source = torch.Generator().manual_seed(entries)
    logits = torch.randn(entries, generator=source) * spread
    for share in (0.001, 0.5, 0.9, 0.999):
        settings = SamplingSettings(temperature=1.0, min_p=0.0, top_p=share)
        found = adjusted(logits, settings).isfinite()
        values, ids = logits.softmax(0).sort(descending=True)
        # An entry stays while those that are likelier make less than the share.
        stays = (torch.cumsum(values, 0) - values < share).tolist()
        expected = {int(id_) for id_, is_in in zip(ids, stays, strict=True) if is_in}
        assert set(found.nonzero()[:, 0].tolist()) == expected | {int(ids[0])}
