"""Muon in bfloat16 is torch's to the last bit; in float32 it is that but for the rounding."""

from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from nextword.training import optimizers
from nextword.training.optimizers import muon
from nextword.training.optimizers.adamw import AdamW
from nextword.training.optimizers.muon import (
    COEFFICIENTS,
    TOGETHER_IN_BFLOAT16_UPTO,
    TOGETHER_UPTO,
    BatchedMuon,
    Muon,
    orthogonal,
    precision_for,
    share_out,
)
from nextword.training.options import TrainingSettings


def trained(kind, shape, steps=5, **options):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(shape))
    optimizer = kind([weight], lr=0.1, weight_decay=0.2, **options)
    for step in range(steps):
        weight.grad = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        optimizer.step()
    return weight.detach(), optimizer


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (16, 16)])
def test_it_moves_as_torchs_does(shape, nesterov):
    asked = {"nesterov": nesterov, "momentum": 0.9}
    theirs, other = trained(torch.optim.Muon, shape, **asked)
    narrow, mine = trained(partial(Muon, precision=torch.bfloat16), shape, **asked)
    assert torch.equal(narrow, theirs)
    ours, _ = trained(partial(Muon, precision=torch.float32), shape, **asked)
    begun, _ = trained(Muon, shape, steps=0)
    # bfloat16 keeps 8 bits; five steps of it move the weights by about 2.
    assert float((ours - theirs).norm()) < 0.02 * float((theirs - begun).norm())
    buffers = [next(iter(one.state.values()))["momentum_buffer"] for one in (mine, other)]
    torch.testing.assert_close(*buffers, rtol=0, atol=0)


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
    assert Muon([weight]).step(lambda: 7) == 7
    assert torch.equal(weight, torch.ones(2, 3))


def test_what_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3,\): give it to AdamW"):
        Muon([torch.nn.Parameter(torch.ones(3))])


@pytest.mark.parametrize(("fast", "kind"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_precision_is_the_one_that_is_fast_here(monkeypatch, fast, kind):
    monkeypatch.setattr(optimizers.muon, "has_bfloat16", lambda device: fast)
    assert precision_for(torch.ones(2, 3), None) == kind
    assert precision_for(torch.ones(2, 3).double(), None) == torch.float64
    assert precision_for(torch.ones(2, 3), torch.float16) == torch.float16
    groups = {"matrices": {"w": torch.nn.Parameter(torch.ones(2, 3))}}
    groups["embeddings"] = {"e": torch.nn.Parameter(torch.ones(2, 3))}
    built = optimizers.muon.build(groups, TrainingSettings(matrix_learning_rate=0.1))
    assert [type(one) for one in built] == [BatchedMuon, AdamW]


@pytest.mark.parametrize(
    ("precision", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.03)]
)
def test_several_at_once_move_as_one_by_one(precision, close):
    some, large = TOGETHER_UPTO + 8, TOGETHER_IN_BFLOAT16_UPTO + 8
    sizes = [(24, 16), (16, 24), (some, some), (24, 16), (large, large), (16, 24), (1, 5)]
    weights = {}
    for kind in (Muon, BatchedMuon):
        source = torch.Generator().manual_seed(0)
        weights[kind] = [
            torch.nn.Parameter(torch.randn(size, generator=source, dtype=torch.float64))
            for size in sizes
        ]
        groups = [{"params": weights[kind][:5]}, {"params": weights[kind][5:], "lr": 0.3}]
        optimizer = kind(groups, lr=0.1, weight_decay=0.2, precision=precision)
        for step in range(4):
            for weight in weights[kind]:
                weight.grad = torch.randn(weight.shape, generator=source, dtype=torch.float64)
            weights[kind][3].grad = None if step == 1 else weights[kind][3].grad
            optimizer.step()
    for one, two in zip(*weights.values(), strict=True):
        assert float((one - two).detach().norm() / one.detach().norm()) < close


def test_matrices_of_zeros_stay_where_they_are():
    weights = [torch.nn.Parameter(torch.ones(3, 4)) for _ in range(2)]
    for weight in weights:
        weight.grad = torch.zeros(3, 4)
    BatchedMuon(weights, lr=0.1).step()
    assert all(torch.equal(weight, torch.ones(3, 4)) for weight in weights)


def test_work_is_shared_out_evenly():
    assert share_out([5, 1, 4, 2, 2], 2) == [0, 1, 1, 1, 0]  # seven each
    assert share_out([3, 3, 3], 1) == [0, 0, 0]
    assert share_out([], 4) == []


def learned(monkeypatch, kernel, precision, steps, device="cpu"):
    """Return weights that Muon has moved towards some, with products as a kernel computes them."""
    source = torch.Generator().manual_seed(0)
    shapes = [(48, 32), (32, 48), (32, 48), (32, 32)]
    wanted = [torch.randn(*shape, generator=source).to(device) for shape in shapes]
    monkeypatch.setattr(muon, "kernel_for_products", lambda matrices: kernel)
    weights = [torch.nn.Parameter(torch.zeros(shape, device=device)) for shape in shapes]
    mover = muon.BatchedMuon(weights, lr=0.02, precision=precision)
    for _ in range(steps):
        for weight, goal in zip(weights, wanted, strict=True):
            weight.grad = (weight.detach() - goal) * torch.tanh(goal)
        mover.step()
    return torch.cat([weight.detach().flatten() for weight in weights])


def test_products_that_are_rounded_once_change_no_more_than_rounding(monkeypatch):
    """A hundred steps of what the kernel for symmetric products does, in plain lines."""

    def rounded_once(x, added, beta, alpha):
        exact = alpha * x.float() @ x.float().mT
        return (exact if added is None else exact + beta * added.float()).to(x.dtype)

    exact = learned(monkeypatch, None, torch.float32, 100)
    plain = learned(monkeypatch, None, torch.bfloat16, 100)
    once = learned(monkeypatch, rounded_once, torch.bfloat16, 100)
    rounding = float((plain - exact).norm() / exact.norm())
    assert 0 < float((once - exact).norm() / exact.norm()) < 1.5 * rounding < 0.05


@pytest.mark.parametrize("most", [1, 2 * 32 * 48, 1 << 27])
def test_matrices_of_one_shape_are_treated_together_in_parts(monkeypatch, most):
    """As on a GPU, where no size is left to itself; in parts, where they are many or large."""
    shapes, sizes = [(48, 32), (32, 48), (32, 48), (32, 32)], []
    stack = muon.orthogonal_stack

    def noted(matrices, *how):
        sizes.append(tuple(matrices.shape))
        return stack(matrices, *how)

    alone = learned(monkeypatch, None, torch.float32, 1)
    monkeypatch.setattr(muon, "orthogonal_stack", noted)
    monkeypatch.setattr(muon, "MOST_TOGETHER", most)
    together = learned(monkeypatch, None, torch.float32, 1)
    assert together.equal(alone)
    assert sum(size[0] for size in sizes) == len(shapes)
    assert [size[0] for size in sizes] == {
        1: [1, 1, 1, 1], 2 * 32 * 48: [2, 1, 1], 1 << 27: [3, 1]
    }[most]  # fmt: skip


@pytest.fixture
def alone():
    """A group of this process alone, which a matrix can be divided among."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_in_rounds_it_makes_the_same_of_each_matrix(alone, monkeypatch):
    """An owner must not hold all of its matrices at once; which ones it does changes nothing."""
    shapes = [(24, 40), (40, 24), (24, 40), (8, 8), (64, 16)]
    found, calls = [], []
    exchange = muon._exchange
    monkeypatch.setattr(muon, "_exchange", lambda *of: calls.append(1) or exchange(*of))
    for most in (1 << 27, 2_000, 1):
        torch.manual_seed(0)
        weights = [
            torch.nn.Parameter(distribute_tensor(torch.randn(shape), alone, [Shard(0)]))
            for shape in shapes
        ]
        for weight in weights:
            weight.grad = distribute_tensor(torch.randn(weight.shape), alone, [Shard(0)])
        monkeypatch.setattr(muon, "MOST_TOGETHER", most)
        muon.DividedMuon(weights, precision=torch.float64).step()
        found.append([weight.to_local().detach().clone() for weight in weights])
    assert len(calls) == 2 * (1 + 3 + 5)
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, same, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([3, 3, 3], [(0, 2), (2, 3)]),
        ([9, 1, 1, 9], [(0, 1), (1, 3), (3, 4)]),
        ([1], [(0, 1)]),
    ],
)
def test_rounds_hold_at_most_so_much_or_one(sizes, expected):
    assert [(one.start, one.stop) for one in muon._rounds(sizes, 6)] == expected
