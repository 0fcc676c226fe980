import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from nextword.base.errors import EvaluationError
from nextword.loss.bits import bits, bits_per_byte, perplexity
from nextword.loss.cross_entropy import cross_entropy, log_softmax


def case(n=37, d=16, v=101, dtype=torch.float64, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) * scale
    w = torch.randn(v, d, generator=generator, dtype=torch.float64) * scale
    targets = torch.randint(0, v, (n,), generator=generator)
    return x.to(dtype).requires_grad_(), w.to(dtype).requires_grad_(), targets


def test_the_worked_example():
    logits = torch.log(torch.tensor([[0.6, 0.2, 0.1, 0.1]], dtype=torch.float64))
    assert float(cross_entropy(logits, torch.tensor([0]))) == pytest.approx(0.5108, abs=1e-4)
    assert bits(0.5108) == pytest.approx(0.737, abs=1e-3)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20))
def test_probabilities_lie_in_0_1_sum_to_1_and_keep_the_order(values):
    logits = torch.tensor(values, dtype=torch.float64)
    probabilities = log_softmax(logits).exp()
    assert float(probabilities.sum()) == pytest.approx(1.0)
    assert (probabilities > 0).all()
    assert torch.equal(
        probabilities.sort(stable=True).values, probabilities[logits.sort(stable=True).indices]
    )


def test_the_plain_reference_equals_torchs():
    x, w, targets = case()
    targets[3] = -100
    logits = (x @ w.T).detach().requires_grad_()
    ours = cross_entropy(logits, targets)
    ours.backward()
    theirs = F.cross_entropy(logits.detach(), targets)
    torch.testing.assert_close(ours, theirs)
    assert float(cross_entropy(logits, torch.full((37,), -100))) == 0.0


def test_units():
    assert bits(math.log(2)) == pytest.approx(1.0)
    assert perplexity(math.log(8)) == pytest.approx(8.0)
    assert perplexity(1e6) == math.inf
    assert bits_per_byte(8 * math.log(2), 4) == pytest.approx(2.0)
    with pytest.raises(EvaluationError):
        bits_per_byte(1.0, 0)


def test_scores_that_no_float_could_be_raised_to_are_no_trouble():
    for high in (1000.0, 1e30):
        found = log_softmax(torch.tensor([[high, 0.0], [-high, -high]], dtype=torch.float64))
        assert found[0].tolist() == [0.0, -high]
        assert found[1].tolist() == pytest.approx([-math.log(2)] * 2)


def test_the_limits_of_units():
    assert perplexity(708.0) == math.exp(708.0)
    assert perplexity(709.9) == math.inf
    assert bits_per_byte(math.log(2), 1) == pytest.approx(1.0)
    with pytest.raises(EvaluationError, match="no byte of text was scored"):
        bits_per_byte(1.0, -1)
