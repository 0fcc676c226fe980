"""The mean is over tokens, whatever the accumulation or the number of processes."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from nextword.base.errors import DivergedError
from nextword.targets.batch import Batch
from nextword.training.gradients import update
from nextword.training.optimizers.adamw import AdamW
from nextword.training.step import LanguageModelLoss, accumulate
from tests.model.test_transformer import scattered

ROWS, LENGTH = 32, 12


def batch():
    source = np.random.default_rng(0)
    inputs, targets = source.integers(1, 97, (ROWS, LENGTH)), source.integers(1, 97, (ROWS, LENGTH))
    targets[:, 9:] = np.where(source.random((ROWS, 3)) < 0.5, -100, targets[:, 9:])
    return Batch(inputs, targets)


def gradients(parts, dtype):
    whole = batch()
    model = scattered().to(dtype)
    total = int((whole.targets >= 0).sum())
    pieces = [Batch(inputs, targets) for inputs, targets in zip(
        np.split(whole.inputs, parts), np.split(whole.targets, parts), strict=True)]  # fmt: skip
    loss = accumulate(LanguageModelLoss(model, precision=dtype), pieces, total, torch.device("cpu"))
    return loss, {name: weight.grad for name, weight in model.named_parameters()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("parts", [2, 4, 32])
def test_one_batch_of_32_is_4_times_8(dtype, tolerance, parts):
    loss, whole = gradients(1, dtype)
    same, split = gradients(parts, dtype)
    assert same == pytest.approx(loss, rel=tolerance)
    for name, gradient in whole.items():
        assert float((split[name] - gradient).norm() / gradient.norm()) < tolerance, name


PROCESS = """
import os, sys
import numpy as np, torch, torch.distributed as dist
from safetensors.torch import save_file
from nextword.targets.batch import Batch
from nextword.training.optimizers.adamw import AdamW
from nextword.training.step import LanguageModelLoss, accumulate
from nextword.machine.parts import whole as weights_of
from nextword.machine.ranks import join_ranks
from tests.model.test_transformer import scattered
from tests.training.test_step import batch
ranks = join_ranks(torch.device("cpu"))
whole = batch()
share = slice(16 * ranks.rank, 16 * ranks.rank + 16)
total = int((whole.targets >= 0).sum())
for name in sys.argv[2:]:
    dtype = getattr(torch, name)
    model = scattered().to(dtype)
    loss = torch.nn.parallel.DistributedDataParallel(LanguageModelLoss(model, precision=dtype))
    inputs, targets = whole.inputs[share], whole.targets[share]
    parts = [Batch(inputs[:8], targets[:8]), Batch(inputs[8:], targets[8:])]
    nats = accumulate(loss, parts, total, torch.device("cpu"), ranks.size)
    nats = ranks.sum(torch.tensor(nats, dtype=torch.float64))
    if ranks.is_first:
        gradients = {name: weight.grad for name, weight in model.named_parameters()}
        save_file({"loss": nats, **gradients}, f"{sys.argv[1]}/{name}")
from torch.distributed.fsdp import fully_shard
model = scattered().double()
sharded = LanguageModelLoss(model, precision=torch.float64)
for block in model.model.layers:
    fully_shard(block)
fully_shard(sharded)
nats = sharded(torch.from_numpy(inputs), torch.from_numpy(targets))
(nats * ranks.size / total).backward()
nats = ranks.sum(nats.detach() / total)
gradients = {name: weights_of(weight.grad) for name, weight in model.named_parameters()}
weights = {f"of {name}": weights_of(weight.detach()) for name, weight in model.named_parameters()}
if ranks.is_first:
    save_file({"loss": nats, **gradients, **weights}, f"{sys.argv[1]}/sharded")
from nextword.training.optimizers import muon
from nextword.training.options import TrainingSettings
moved, calls = {}, []
for kind in (muon.Muon, muon.DistributedMuon):
    source = torch.Generator().manual_seed(0)
    sizes = [(6, 4), (4, 6), (200, 150), (6, 4), (140, 300), (5, 5)]
    matrices = [torch.nn.Parameter(torch.randn(*size, generator=source).double()) for size in sizes]
    optimizer = kind(matrices, 0.1)
    if kind is muon.DistributedMuon:
        plain = muon.orthogonal
        muon.orthogonal = lambda *given: (calls.append(1), plain(*given))[1]
    for step in range(3):
        for matrix in matrices:
            matrix.grad = torch.randn(matrix.shape, generator=source).double()
        optimizer.step()
    moved[kind.__name__] = matrices
groups = {"matrices": dict(enumerate(matrices)), "embeddings": {}, "vectors": {}}
assert type(muon.build(groups, TrainingSettings())[0]) is muon.DistributedMuon
parts = {f"{name}/{n}": one.detach() for name, many in moved.items() for n, one in enumerate(many)}
counted = torch.tensor([len(calls)])
save_file({**parts, "calls": counted}, f"{sys.argv[1]}/muon-{ranks.rank}")
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # gloo's threads may still be ending, which aborts an orderly exit now and then
"""


def test_two_processes_are_one(tmp_path):
    from safetensors.torch import load_file

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    base = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    tolerances = {"float32": 1e-6, "float64": 1e-12}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROCESS, str(tmp_path), *tolerances],
            env={**base, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    sharded = load_file(tmp_path / "sharded")  # as FSDP divides the plain network
    before = dict(scattered().double().named_parameters())
    assert all(torch.equal(sharded.pop(f"of {name}"), weight) for name, weight in before.items())
    found = {dtype: load_file(tmp_path / dtype) for dtype in tolerances} | {"sharded": sharded}
    for name, saved in found.items():
        dtype = name if name in tolerances else "float64"
        tolerance = tolerances[dtype]
        loss, whole = gradients(1, getattr(torch, dtype))
        assert float(saved.pop("loss")) == pytest.approx(loss, rel=tolerance)
        for name, gradient in whole.items():
            assert float((saved[name] - gradient).norm() / gradient.norm()) < tolerance, name
    first, second = (load_file(tmp_path / f"muon-{rank}") for rank in range(2))
    for number in range(6):
        shared_out = first[f"DistributedMuon/{number}"]
        assert torch.equal(shared_out, second[f"DistributedMuon/{number}"])
        torch.testing.assert_close(shared_out, first[f"Muon/{number}"], rtol=1e-11, atol=1e-12)
    # Of the two large matrices each process had one, at each of three steps.
    assert (int(first["calls"]), int(second["calls"])) == (3, 3)


def test_a_gradient_that_is_not_a_number_touches_no_weight():
    model = scattered()
    before = [weight.detach().clone() for weight in model.parameters()]
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, float("nan"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for group in optimizer.param_groups:
        group["peak"] = 0.1
    with pytest.raises(DivergedError):
        update(model, [optimizer], 1.0, 1.0)
    assert all(torch.equal(one, two) for one, two in zip(before, model.parameters(), strict=True))


def test_adamw_is_torchs_to_the_last_bit():
    generator = torch.Generator().manual_seed(0)
    mine = [torch.randn(size, generator=generator).requires_grad_() for size in ((5, 7), (9,))]
    theirs = [weight.detach().clone().requires_grad_() for weight in mine]
    asked = {"lr": 0.02, "betas": (0.8, 0.95), "weight_decay": 0.1}
    ours, torchs = AdamW(mine, **asked), torch.optim.AdamW(theirs, **asked, fused=True)
    for number in range(5):
        for one, other in zip(mine, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        if number == 2:
            mine[1].grad = theirs[1].grad = None
        ours.step()
        torchs.step()
    for one, other in zip(mine, theirs, strict=True):
        assert torch.equal(one, other)
        for key, value in torchs.state[other].items():
            assert torch.equal(ours.state[one][key], value), key
    ours.zero_grad()
    assert mine[0].grad is None


def test_training_imports_no_compiler(place):
    code = (
        "import sys, nextword\n"
        "nextword.train('a.txt', options={'training.steps': 2})\n"
        "assert 'torch' in sys.modules and 'torch._dynamo' not in sys.modules"
    )
    (place.folder / "a.txt").write_text("one two three four\n" * 500)
    words = [sys.executable, "-c", code]
    done = subprocess.run(
        words, cwd=place.folder, env=place.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
