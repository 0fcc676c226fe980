"""A step without numbers holds what a step with numbers holds, byte for byte."""

from dataclasses import replace

import pytest
import torch

from nextword.base.errors import SettingsError
from nextword.kernels import loss_rows
from nextword.loss.linear import linear_cross_entropy
from nextword.model.shape import ModelSettings, resolve_shape
from nextword.training import rehearsal
from nextword.training.options import TrainingSettings
from nextword.training.rehearsal import Case, pretended, rehearse
from tests.rehearsed import peak_of, pretended_as, take_steps

SHAPE = resolve_shape(ModelSettings(depth=4, hidden_size=128), 1_000, 64)
CASES = [
    ("ddp", 1, 1, "adamw", "full"),
    ("fsdp", 2, 2, "muon", "selective"),
    ("hsdp", 4, 2, "muon", "none"),
    ("tensor", 2, 2, "muon", "selective"),
    ("both", 4, 4, "adamw", "none"),
]


@pytest.mark.parametrize(("way", "size", "here", "optimizer", "recompute"), CASES)
def test_it_holds_what_the_allocator_gives(one_thread, way, size, here, optimizer, recompute):
    """The others only pretend to be there, so nothing of gloo's own is counted."""
    told = {"precision": torch.float32, "plain": False}
    shape = replace(SHAPE, num_attention_heads=4, num_key_value_heads=4, head_dim=32)
    with pretended_as(way, size, here) as ranks:
        cases = [Case(8, recompute)]
        (held,) = rehearse(shape, TrainingSettings(optimizer=optimizer), ranks, cases, **told)
        loss_rows.forget_buffers()
        real = peak_of(take_steps, shape, 8, ranks, optimizer, recompute)
    assert held.peak == pytest.approx(real, rel=0.005)


def test_small_networks_speak_for_deep_ones():
    deep = replace(SHAPE, num_hidden_layers=8)
    with pretended(4, 4, "fsdp") as ranks:
        of = (deep, TrainingSettings(), ranks, [Case(8, "full")])
        (told,) = rehearse(*of)
        (whole,) = rehearsal._count(*of, torch.bfloat16, plain=True)
    assert told.peak == pytest.approx(whole.peak, rel=0.01)
    assert (told.weights, told.gradients) == (whole.weights, whole.gradients)
    assert told.state == pytest.approx(whole.state, rel=0.001)


@pytest.mark.parametrize(("way", "size"), [("ddp", 1), ("both", 4)])
def test_a_case_is_the_same_whatever_was_rehearsed_before_it(way, size):
    cases = [Case(2), Case(8, "selective"), Case(2, "full")]
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 32}
    shape = replace(SHAPE, num_hidden_layers=2, **heads)
    with pretended_as(way, size, size) as ranks:
        of = (shape, TrainingSettings(), ranks)
        together = rehearse(*of, cases)
        assert together == [one for case in cases for one in rehearse(*of, [case])]
    assert len({held.peaks for held in together}) == len(cases)


def test_what_is_divided_is_divided():
    with pretended(1, 1, "ddp") as ranks:
        (alone,) = rehearse(SHAPE, TrainingSettings(optimizer="adamw"), ranks, [Case(4)])
    with pretended(4, 4, "fsdp") as ranks:
        (divided,) = rehearse(SHAPE, TrainingSettings(optimizer="adamw"), ranks, [Case(4)])
    weights = 4 * SHAPE.parameters()
    assert alone.weights == pytest.approx(weights, rel=0.1)  # and the angles of rotation
    assert divided.gradients == pytest.approx(weights / 4, rel=0.01)
    assert divided.state == pytest.approx(2 * weights / 4, rel=0.01)
    with pretended(2, 2, "ddp") as ranks:  # whose buckets hold the gradients once more
        (buckets,) = rehearse(SHAPE, TrainingSettings(optimizer="adamw"), ranks, [Case(4)])
    assert buckets.peak == alone.peak + weights
    assert buckets.gradients == 2 * weights


def test_nothing_of_it_stays():
    """Buffers without numbers would be lent to the next step that has some."""
    with pretended(2, 2, "fsdp") as ranks:
        rehearse(SHAPE, TrainingSettings(), ranks, [Case(4)])
    assert not loss_rows._kept
    # What products can do was tried without numbers, where all seems possible.
    hidden, weight = (torch.randn(size, requires_grad=True) for size in ((4, 8), (20, 8)))
    targets = torch.arange(4)
    linear_cross_entropy(hidden, weight, targets, precision=torch.bfloat16).backward()
    assert weight.grad.isfinite().all()
    assert not torch.distributed.is_initialized()
    assert torch.UntypedStorage.resize_.__name__ == "resize_"


def test_one_of_several_processes_is_refused():
    with (
        pretended(2, 2, "fsdp"),
        pytest.raises(SettingsError, match="one of several processes already"),
        pretended(2, 2, "fsdp"),
    ):
        pass
