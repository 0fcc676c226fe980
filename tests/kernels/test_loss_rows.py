"""What is done to a few rows of logits on a CPU."""

import pytest
import torch

from nextword.kernels import loss_rows
from nextword.kernels.loss_options import RowOptions
from nextword.kernels.loss_rows import Scratch, borrowed, finish_rows

CPU = torch.device("cpu")


@pytest.mark.parametrize("exp_is_fast", [True, False])
@pytest.mark.parametrize(
    ("kind", "most"), [(torch.bfloat16, 4e-7), (torch.float32, 4e-7), (torch.float64, 1e-15)]
)
def test_sums_of_exponentials_are_exact_whichever_way_they_are_taken(
    monkeypatch, kind, most, exp_is_fast
):
    """Also where e^z is taken as 2^(z·log₂ e)."""
    monkeypatch.setattr(loss_rows, "_exp_is_fast", lambda: exp_is_fast)
    source = torch.Generator().manual_seed(0)
    logits = (6 * torch.randn(40, 3001, generator=source) - 30).to(kind)
    targets = torch.randint(0, 3001, (40,), generator=source)
    exact = torch.float64 if kind == torch.float64 else torch.float32
    true = logits.double().clone()
    space = Scratch(40, 3001, kind, exact, CPU)
    done = finish_rows(logits, targets, None, RowOptions(), space, gradients=True, statistics=False)
    nll = -true.log_softmax(1).gather(1, targets[:, None])[:, 0]
    assert float(((done.losses.double() - nll) / nll).abs().max()) < most
    powers = (true - true.amax(1, keepdim=True)).exp()
    sums = powers.sum(1)
    assert float(((done.sums.double() - sums) / sums).abs().max()) < 2 * most
    # Of the rounding of their own type the gradients have about a third.
    gradients = powers.scatter(1, targets[:, None], 0.0)
    others = gradients.sum(1)
    assert float(((done.at_target.double() + others) / others).abs().max()) < 2 * most
    error = float((logits.double() - gradients).norm() / gradients.norm())
    assert error < torch.finfo(kind).eps


def test_buffers_are_lent_to_a_pass_of_as_many_rows_or_fewer():
    with borrowed(8, 100, torch.float32, torch.float32, CPU) as first:
        pass
    with borrowed(5, 100, torch.float32, torch.float32, CPU) as fewer:
        assert fewer is first
        with borrowed(5, 100, torch.float32, torch.float32, CPU) as beside:
            assert beside is not first
    with borrowed(9, 100, torch.float32, torch.float32, CPU) as more:
        assert more is not first
        assert len(more.logits) == 9
