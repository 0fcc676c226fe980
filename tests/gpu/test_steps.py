"""How a training step is computed on a GPU: `pytest -m gpu`, as test_gpu.py."""

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.utils import counters

from nextword.machine.device import choose_machine
from nextword.machine.options import MachineSettings
from nextword.model.documents import blocks_to_look_at, may_look
from nextword.model.initialize import initialize
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer
from nextword.targets.batch import Batch
from nextword.training import loop
from nextword.training.layers import layer_runner, try_out
from nextword.training.loop import Callback, Plan, Training, run_loop
from nextword.training.optimizers import build_optimizers, groups_of
from nextword.training.options import TrainingSettings
from nextword.training.step import LanguageModelLoss
from tests.gpu.test_gpu import GPU, on_cuda, pytestmark

assert pytestmark


def _batch(step, rows=8, length=256):
    source = torch.Generator().manual_seed(step)
    ids = torch.randint(1, 97, (rows, length + 1), generator=source)
    ids[torch.rand(ids.shape, generator=source) < 0.02] = 0  # ends of documents
    return Batch(ids[:, :-1].numpy(), ids[:, 1:].numpy())


def _training(compiled=False, recompute="none", optimizer="muon", on_spike="log"):
    """Return what the loop works with, of a small network with documents apart."""
    shape = Shape(
        vocab_size=97, hidden_size=512, num_hidden_layers=3, num_attention_heads=8,
        num_key_value_heads=4, head_dim=64, intermediate_size=1024, context=256,
    )  # fmt: skip
    model = Transformer(shape)
    initialize(model, 0)
    device = torch.device(GPU) if GPU == "mps" else torch.device(GPU, 0)
    machine = choose_machine(MachineSettings(device=GPU))
    model.to(device)
    model.set_precision(machine.precision)
    plan = Plan(12, 8, 4, 256, recompute=recompute, compiled=compiled)
    model.model.runner = layer_runner(device, plan, lengths_vary=False)
    settings = TrainingSettings(optimizer=optimizer, on_spike=on_spike)
    return Training(
        LanguageModelLoss(model, precision=machine.precision, end_id=0),
        model,
        build_optimizers(groups_of(model), settings),
        lambda step, rows: Batch(*(part[rows] for part in _batch(step)[:2])),
        plan,
        settings,
        machine,
    )


def _losses(training, *callbacks):
    losses = []
    note = Callback(1, lambda state: losses.append(state.loss), when="later")
    run_loop(training, 0, [note, *callbacks])
    assert len(losses) == 12
    return losses


@on_cuda
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_figures_read_later_are_those_read_at_once(optimizer):
    later, at_once = _training(optimizer=optimizer), _training(optimizer=optimizer)
    at_once.behind = False
    assert later.looks_behind
    assert _losses(later) == pytest.approx(_losses(at_once), rel=1e-6)
    for one, two in zip(later.model.parameters(), at_once.model.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@on_cuda
@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_waits_for_nothing(compiled, monkeypatch):
    """torch itself ends a step in which this machine waits for the card."""
    training, computed = _training(compiled), loop._gradients
    if compiled:
        assert try_out(training.loss, _batch(0), training.machine) is None

    def strict(*given):
        if given[1].batches and len(seen) > 2:
            torch.cuda.set_sync_debug_mode("error")
        seen.append(1)
        return computed(*given)

    def moved(*given):
        try:
            return move(*given)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    seen, move = [], loop.move
    monkeypatch.setattr(loop, "_gradients", strict)
    monkeypatch.setattr(loop, "move", moved)
    try:
        _losses(training)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_cuda
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_compiled_layers_learn_what_plain_ones_learn(recompute):
    """Documents apart by blocks there, by booleans here; bfloat16 rounds otherwise."""
    counters.clear()
    compiled = _training(compiled=True, recompute=recompute)
    assert compiled.model.model.runner.blocks
    assert _losses(compiled) == pytest.approx(_losses(_training()), rel=1e-2)
    assert counters["stats"]["unique_graphs"] == 1


@on_cuda
@pytest.mark.parametrize("causal", [True, False])
def test_blocks_say_what_booleans_say(causal):
    from torch.nn.attention.flex_attention import flex_attention

    documents = (torch.from_numpy(_batch(0, 3, 200).inputs) == 0).cumsum(dim=1).cuda()
    parts = torch.randn(3, 3, 4, 200, 64, device="cuda", requires_grad=True)
    queries, keys, values = parts
    exact = F.scaled_dot_product_attention(
        queries, keys, values, may_look(documents, causal=causal)
    )
    (expected,) = torch.autograd.grad(exact.square().sum(), parts)
    blocks = blocks_to_look_at(documents, causal=causal)
    found = torch.compile(flex_attention)(queries, keys, values, block_mask=blocks)
    torch.testing.assert_close(found, exact, atol=1e-2, rtol=1e-2)
    (gradient,) = torch.autograd.grad(found.square().sum(), parts)
    assert float((gradient - expected).norm() / expected.norm()) < 1e-2


@on_cuda
def test_keeping_less_takes_less_of_the_card():
    peaks = []
    for recompute in ("none", "selective", "full"):
        training = _training(recompute=recompute)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        _losses(training)
        peaks.append(torch.cuda.max_memory_allocated())
        del training
    assert peaks[0] > peaks[1] > peaks[2]


@on_cuda
def test_a_card_that_is_full_in_the_middle_goes_on_with_fewer_rows():
    training, told = _training(), []
    training.halved = lambda step, rows: told.append((step, rows))
    whole, read = training.read, []

    def crowded(step, rows):
        if step == 5 and not read:  # somebody takes all that is left, and gives it back
            read.append(torch.empty(int(torch.cuda.mem_get_info()[0] * 0.99), device="cuda",
                                    dtype=torch.uint8))  # fmt: skip
        return whole(step, rows)

    def let_go(step, rows):
        told.append((step, rows))
        read[0] = None

    training.read, training.halved = crowded, let_go
    assert _losses(training) == pytest.approx(_losses(_training()), rel=1e-3)
    assert told in ([], [(5, 2)])  # what torch had kept may have sufficed
