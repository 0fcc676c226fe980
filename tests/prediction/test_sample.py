import torch

from nextword.prediction.options import SamplingSettings
from nextword.prediction.sample import adjusted, choose

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
