"""Muon with products in float32 is torch's, but for bfloat16's rounding."""

import pytest
import torch

from nextword.training import optimizers
from nextword.training.optimizers.muon import Float32Muon, orthogonal
from nextword.training.options import TrainingSettings

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def trained(kind, shape, steps=5):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(shape))
    optimizer = kind([weight], lr=0.1, weight_decay=0.2)
    for step in range(steps):
        weight.grad = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        optimizer.step()
    return weight.detach(), optimizer


@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (16, 16)])
def test_it_moves_as_torchs_does(shape):
    (ours, mine), (theirs, other) = (
        trained(kind, shape) for kind in (Float32Muon, torch.optim.Muon)
    )
    begun, _ = trained(Float32Muon, shape, steps=0)
    # bfloat16 keeps 8 bits; five steps of it move the weights by about 2.
    assert float((ours - theirs).norm()) < 0.02 * float((theirs - begun).norm())
    buffers = [next(iter(one.state.values()))["momentum_buffer"] for one in (mine, other)]
    torch.testing.assert_close(*buffers)
    assert mine.state_dict()["param_groups"] == other.state_dict()["param_groups"]


@pytest.mark.parametrize("shape", [(40, 10), (10, 40)])
def test_singular_values_come_near_1_and_directions_stay(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before = matrix.clone()
    found = orthogonal(matrix, COEFFICIENTS, 5, 1e-7)
    assert torch.equal(matrix, before)
    values = torch.linalg.svdvals(found)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    across = u.T @ found @ v.T
    torch.testing.assert_close(across, torch.diag(across.diagonal()), atol=1e-9, rtol=0)


def test_a_closure_is_asked_and_a_weight_without_gradient_stays():
    weight = torch.nn.Parameter(torch.ones(2, 3))
    assert Float32Muon([weight]).step(lambda: 7) == 7
    assert torch.equal(weight, torch.ones(2, 3))


@pytest.mark.parametrize(("fast", "kind"), [(True, torch.optim.Muon), (False, Float32Muon)])
def test_the_precision_is_the_one_that_is_fast_here(monkeypatch, fast, kind):
    monkeypatch.setattr(optimizers.muon, "has_bfloat16", lambda device: fast)
    groups = {"matrices": {"w": torch.nn.Parameter(torch.ones(2, 3))}}
    groups["embeddings"] = {"e": torch.nn.Parameter(torch.ones(2, 3))}
    built = optimizers.muon.build(groups, TrainingSettings(matrix_learning_rate=0.1))
    assert type(built[0]) is kind
