"""Optimizers, schedule, clipping, batches and checkpoints in a loop of somebody else's."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import nextword
from nextword.base.errors import CorpusError, DivergedError, RunError, SettingsError


class Foreign(nn.Module):
    """A module that knows nothing of this house."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 6)
        self.inner = nn.Linear(6, 5)
        self.lm_head = nn.Linear(5, 7, bias=False)
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, ids):
        return self.lm_head(torch.tanh(self.inner(self.table(ids))))


def foreign(seed=0):
    torch.manual_seed(seed)
    return Foreign().double()


def gradients(model, step):
    source = torch.Generator().manual_seed(step)
    for weight in model.parameters():
        weight.grad = torch.randn(weight.shape, generator=source, dtype=weight.dtype)


def test_adamw():
    model, rate, betas, eps, decay = foreign(), 0.01, (0.8, 0.95), 1e-8, 0.1
    asked = {"learning_rate": rate, "beta1": betas[0], "beta2": betas[1], "weight_decay": decay}
    optimizers = nextword.optimizers_for(model, optimizer="adamw", **asked)
    expected = {name: weight.detach().numpy().copy() for name, weight in model.named_parameters()}
    moments = {name: (0 * value, 0 * value) for name, value in expected.items()}
    for step in range(1, 5):
        gradients(model, step)
        for name, weight in model.named_parameters():
            gradient, (first, second) = weight.grad.numpy().copy(), moments[name]
            first = betas[0] * first + (1 - betas[0]) * gradient
            second = betas[1] * second + (1 - betas[1]) * gradient**2
            moments[name] = first, second
            if name == "inner.weight":  # the one matrix that is no table
                expected[name] *= 1 - rate * decay
            mean, square = first / (1 - betas[0] ** step), second / (1 - betas[1] ** step)
            expected[name] -= rate * mean / (np.sqrt(square) + eps)
        for optimizer in optimizers:
            optimizer.step()
    for name, weight in model.named_parameters():
        np.testing.assert_allclose(weight.detach().numpy(), expected[name], rtol=1e-9)


def test_muon():
    weight = nn.Parameter(torch.tensor(np.random.default_rng(0).normal(size=(6, 4))))
    expected, momentum = weight.detach().numpy().copy(), np.zeros((6, 4))
    optimizer = nextword.Muon([weight], lr=0.1, weight_decay=0.2)
    for step in range(3):
        gradient = np.random.default_rng(step + 1).normal(size=(6, 4))
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        x = (0.05 * gradient + 0.95 * momentum).T
        x = x / np.linalg.norm(x)
        for _ in range(5):
            square = x @ x.T
            x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
        expected = expected * (1 - 0.1 * 0.2) - 0.1 * math.sqrt(6 / 4) * x.T
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_foreign_loop_learns(optimizer):
    model, ids = foreign(), torch.arange(7)
    optimizers = nextword.optimizers_for(model, optimizer=optimizer)
    losses = []
    for step in range(200):
        for one in optimizers:
            one.zero_grad()
            for group in one.param_groups:
                group["lr"] = group["peak"] * nextword.cosine_rate(
                    step, peak=1.0, floor=0.1, warmup=5, steps=200
                )
        loss = nextword.cross_entropy(model(ids), (ids + 1) % 7)
        loss.backward()
        nextword.clip_gradients(model.parameters(), 1.0)
        for one in optimizers:
            one.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_an_optimizer_that_there_is_not_is_named():
    with pytest.raises(SettingsError, match="choose one of adamw, muon"):
        nextword.optimizers_for(foreign(), optimizer="adamv")


def test_a_schedule():
    asked = {"peak": 1.0, "floor": 0.1, "warmup": 7, "steps": 21}
    for step in range(30):
        x = min(max((step - 7) / 14, 0.0), 1.0)
        fallen = 0.1 + 0.5 * 0.9 * (1 + math.cos(math.pi * x))
        expected = step / 7 if step < 7 else fallen
        assert nextword.cosine_rate(step, **asked) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("most", [0.5, 100.0, 0.0])
def test_clipping(most):
    model = foreign()
    gradients(model, 0)
    next(model.parameters()).grad = None
    before = [w.grad.numpy().copy() for w in model.parameters() if w.grad is not None]
    length = math.sqrt(sum(float((one**2).sum()) for one in before))
    assert nextword.clip_gradients(model.parameters(), most) == pytest.approx(length)
    after = [w.grad.numpy() for w in model.parameters() if w.grad is not None]
    scale = most / (length + 1e-6) if 0 < most < length else 1.0
    for one, two in zip(before, after, strict=True):
        np.testing.assert_allclose(two, one * scale, rtol=1e-12)


def test_a_gradient_that_is_no_number_is_said():
    model = foreign()
    gradients(model, 0)
    model.inner.bias.grad[0] = float("inf")
    with pytest.raises(DivergedError):
        nextword.clip_gradients(model.parameters(), 1.0)


@pytest.mark.parametrize("kind", [np.uint16, np.int64])
def test_batches(tmp_path, kind):
    tokens = np.arange(1000, 1103).astype(kind)
    tokens.tofile(tmp_path / "tokens")
    mapped = np.memmap(tmp_path / "tokens", dtype=kind, mode="r")
    seen = []
    for step in range(5):
        inputs, targets = nextword.batch_of(mapped, 4, 5, step, seed=1)[:2]
        assert inputs.shape == targets.shape == (4, 5)
        assert ((targets - inputs) % 103 == 1).all()
        again = nextword.batch_of(tokens, 4, 5, step, seed=1)
        np.testing.assert_array_equal(again.inputs, inputs)
        seen += targets.flatten().tolist()
    assert len(set(seen)) == 100  # an epoch has no window twice
    other = nextword.batch_of(tokens, 4, 5, 0, seed=2).inputs
    assert not np.array_equal(other, nextword.batch_of(tokens, 4, 5, 0, seed=1).inputs)
    with pytest.raises(CorpusError, match="do not fill one context"):
        nextword.batch_of(tokens[:4], 1, 5, 0)


def steps(model, optimizers, count, first=0):
    for step in range(first, first + count):
        gradients(model, step)
        for optimizer in optimizers:
            optimizer.step()


def made(seed):
    model = foreign(seed)
    momentum = torch.optim.SGD(model.inner.parameters(), lr=0.1, momentum=0.9)
    return model, [*nextword.optimizers_for(model), momentum]


def test_a_checkpoint_goes_on_bit_for_bit(tmp_path):
    model, optimizers = made(0)
    steps(model, optimizers, 3)
    nextword.save_checkpoint(tmp_path / "c", model, optimizers, step=3, note="é")
    steps(model, optimizers, 3, 3)
    other, others = made(1)
    assert nextword.load_checkpoint(tmp_path / "c", other, others) == {"step": 3, "note": "é"}
    steps(other, others, 3, 3)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    alone = foreign(2)
    nextword.load_checkpoint(tmp_path / "c", alone)
    assert not torch.equal(alone.inner.weight, model.inner.weight)
    assert [file.name for file in tmp_path.iterdir()] == ["c"]
    assert b"pickle" not in (tmp_path / "c").read_bytes()


def test_where_the_second_optimizer_does_not_fit_the_first_is_not_touched(tmp_path):
    model = foreign()
    first = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    second = torch.optim.SGD(model.inner.parameters(), lr=0.1, momentum=0.9)
    steps(model, [first, second], 2)
    nextword.save_checkpoint(tmp_path / "c", model, [first, second])
    steps(model, [first, second], 1, 2)
    before = first.state_dict()["state"][0]["momentum_buffer"].clone()
    wrong = torch.optim.SGD(model.table.parameters(), lr=0.1)
    with pytest.raises(RunError, match="optimizer 2 holds groups"):
        nextword.load_checkpoint(tmp_path / "c", model, [first, wrong])
    assert torch.equal(first.state_dict()["state"][0]["momentum_buffer"], before)


@pytest.mark.parametrize("module", [nn.Linear(3, 4, bias=False), nn.LayerNorm(3)])
def test_modules_without_vectors_or_without_matrices_have_optimizers(module):
    for name in ("muon", "adamw"):
        for optimizer in nextword.optimizers_for(module, optimizer=name):
            module.weight.grad = torch.ones_like(module.weight)
            optimizer.step()


def test_one_optimizer_needs_no_list(tmp_path):
    model = foreign()
    optimizer = torch.optim.AdamW(model.parameters())
    steps(model, [optimizer], 1)
    nextword.save_checkpoint(tmp_path / "c", model, optimizer)
    other = torch.optim.AdamW(foreign(1).parameters())
    nextword.load_checkpoint(tmp_path / "c", foreign(1), other)
    assert other.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


def test_what_does_not_fit_is_said_and_changes_nothing(tmp_path):
    model, optimizers = made(0)
    nextword.save_checkpoint(tmp_path / "c", model, optimizers)
    wider = nn.Linear(3, 3)
    before = wider.weight.clone()
    with pytest.raises(RunError, match="bias is missing there and"):
        nextword.load_checkpoint(tmp_path / "c", wider)
    assert torch.equal(wider.weight, before)
    with pytest.raises(RunError, match="holds 3 optimizers, and 1 were given"):
        nextword.load_checkpoint(tmp_path / "c", model, optimizers[0])
    with pytest.raises(RunError, match="no such checkpoint"):
        nextword.load_checkpoint(tmp_path / "none", model)
    for content in (b"", b"\x80\x04K\x01.", (tmp_path / "c").read_bytes()[:300]):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(RunError, match="no checkpoint of"):
            nextword.load_checkpoint(tmp_path / "bad", model)
    with pytest.raises(RunError, match="plain values"):
        nextword.save_checkpoint(tmp_path / "d", model, step={1, 2})
    with pytest.raises(RunError, match="cannot be written"):
        nextword.save_checkpoint(tmp_path / "no" / "d", model)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad", "c"]
