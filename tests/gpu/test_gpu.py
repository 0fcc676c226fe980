"""What only a GPU can show: `pytest -m gpu` runs these where there is one, in under three minutes.

`-m xpu` and `-m mps` run those that Intel's and Apple's GPUs can show, too.

docs/gpu.md lists every line of the program that is for a GPU, and what checks it.
"""

import itertools
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import nextword
from nextword import linear_cross_entropy
from nextword.finetune import finetune
from nextword.kernels import loss_chunks
from nextword.objectives import find_objective, names
from nextword.settings import resolve

KINDS = {"cuda": torch.cuda, "xpu": torch.xpu, "mps": torch.backends.mps}
FOUND = [kind for kind, part in KINDS.items() if part.is_available()]
GPU = next(iter(FOUND), "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.xpu,
    pytest.mark.mps,
    pytest.mark.skipif(not FOUND, reason="no accelerator"),
]
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator of CUDA's")

TEXT = "the good cat sat on the warm mat. the bad dog ran to the cold sea.\n"
TINY = {"vocabulary.kind": "byte", "model.context": 64, "machine.device": GPU}


@pytest.fixture(scope="module")
def default_on_gpu(shared):
    """`nextword train` with nothing said, on the GPU."""
    done = shared.nextword("train", "--name", "on-gpu", "--machine.device", GPU, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_default_run_learns_as_on_a_cpu(default_on_gpu, shared):
    journal = (shared.folder / default_on_gpu["run"] / "metrics.jsonl").read_text().splitlines()
    floor = next(line for line in map(json.loads, journal) if line["event"] == "floor")
    assert default_on_gpu["nats_per_token"] < 1.02 * floor["nats_per_token"]


@on_cuda
def test_a_dry_run_asks_the_card_for_its_memory(shared):
    from nextword.machine.memory import free_memory

    options = ["--machine.device", GPU, "--corpus.stories", "400", "--training.steps", "4"]
    done = shared.nextword("train", "--dry-run", "--json", *options)
    assert done.returncode == 0, done.stderr
    found, whole = json.loads(done.stdout), torch.cuda.get_device_properties(0).total_memory
    assert 16 * found["parameters"] < found["memory_bytes"] < whole
    assert 0 < free_memory(torch.device(GPU)) <= whole


def test_evaluation_is_the_cpus(default_on_gpu, shared_environment):
    here, there = (nextword.load("on-gpu", device=device) for device in (GPU, "cpu"))
    assert here.opened.machine.device.type == GPU
    ours, theirs = here.evaluate(), there.evaluate()
    assert ours.tokens == theirs.tokens
    assert ours.nats_per_token == pytest.approx(theirs.nats_per_token, abs=1e-3)
    prompt = "We are all humans born to"
    for one, two in zip(
        here.explain(prompt).positions, there.explain(prompt).positions, strict=True
    ):
        assert one.nats == pytest.approx(two.nats, abs=1e-3)
    assert here.probability(prompt, " make") == pytest.approx(
        there.probability(prompt, " make"), abs=1e-4
    )


def test_generation_is_the_cpus(default_on_gpu, shared_environment):
    said = [
        nextword.load("on-gpu", device=device).generate("Once", max_tokens=60, temperature=0.0)
        for device in (GPU, "cpu")
    ]
    assert said[0] == said[1]
    assert len(said[0]) > 60


def test_a_compressed_file_comes_back(default_on_gpu, shared, tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("Once there was a girl who had a ball. We are all humans.\n" * 20)
    small, back = tmp_path / "a.nw", tmp_path / "b.txt"
    device = ("--device", GPU)
    done = shared.nextword("compress", "on-gpu", str(text), "-o", str(small), *device)
    assert done.returncode == 0, done.stderr
    done = shared.nextword("decompress", "on-gpu", str(small), "-o", str(back), *device)
    assert done.returncode == 0, done.stderr
    assert back.read_bytes() == text.read_bytes()
    assert small.stat().st_size < text.stat().st_size


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_learns_in_either_precision(place, precision):
    (place.folder / "t.txt").write_text(TEXT * 300)
    for device in (GPU, "cpu"):
        options = {**TINY, "training.steps": 30, "machine.precision": precision}
        options["machine.device"] = device
        nextword.train(place.folder / "t.txt", name=device, options=options)
    ours, theirs = (
        nextword.load(run, device="cpu").evaluate(place.folder / "t.txt") for run in (GPU, "cpu")
    )
    near = {"float32": 0.02, "bfloat16": 0.1}[precision]
    assert ours.nats_per_token == pytest.approx(theirs.nats_per_token, abs=near)


@pytest.mark.parametrize("objective", names())
def test_every_objective_trains(place, objective):
    (place.folder / "t.txt").write_text(TEXT * 300)
    options = {**TINY, "training.steps": 30}
    if not find_objective(objective).supervised:
        options["objective.name"] = objective
        nextword.train(place.folder / "t.txt", name=objective, options=options)
    else:
        nextword.train(place.folder / "t.txt", name="begun", options=options)
        rows = {
            "labelled": [{"text": f"the {n} cat", "label": "ab"[n % 2]} for n in range(40)],
            "answer": [{"prompt": f"the {n}", "answer": "cat"} for n in range(40)],
        }[objective]
        file = place.folder / "examples.jsonl"
        file.write_text("\n".join(map(json.dumps, rows)))
        asked = resolve(given={"finetune.steps": 30, "machine.device": GPU})
        finetune("begun", [str(file)], asked, name=objective)
    lines = (place.folder / "runs" / objective / "metrics.jsonl").read_text().splitlines()
    losses = [line["loss"] for line in map(json.loads, lines) if line["event"] == "step"]
    assert len(losses) == 30
    assert losses[-1] < 0.8 * losses[0]
    here, there = (nextword.load(objective, device=device) for device in (GPU, "cpu"))
    if objective == "labelled":
        texts = ["the 3 cat", "the 40 dog sat", ""]
        for one, two in zip(here.classify(*texts), there.classify(*texts), strict=True):
            for name, value in one.as_dict()["probabilities"].items():
                assert value == pytest.approx(two.as_dict()["probabilities"][name], abs=1e-3)
    else:
        path = place.folder / "t.txt"
        ours, theirs = here.evaluate(path), there.evaluate(path)
        assert ours.nats_per_token == pytest.approx(theirs.nats_per_token, abs=1e-3)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_resuming_gives_the_same_run(place, optimizer):
    (place.folder / "t.txt").write_text(TEXT * 2000)
    options = {
        **TINY,
        "training.optimizer": optimizer,
        "training.steps": 20,
        "training.checkpoint_every": 10,
    }
    nextword.train(place.folder / "t.txt", name="whole", options=options)
    nextword.train(place.folder / "t.txt", name="parts", options=options)
    nextword.train(resume="parts@10")
    for part in ("model.safetensors", "training/optimizer.safetensors"):
        one, two = (
            load_file(place.folder / "runs" / run / "checkpoints" / "step-000020" / part)
            for run in ("whole", "parts")
        )
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert value.equal(two[name]), name


@on_cuda
def test_memory_does_not_grow_with_steps(place):
    (place.folder / "t.txt").write_text(TEXT * 2000)
    peaks = []
    for steps in (10, 60):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        options = {**TINY, "training.steps": steps}
        nextword.train(place.folder / "t.txt", name=f"n{steps}", options=options)
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] <= 1.02 * peaks[0]


# The loss.


def _case(tokens, width, entries, kind, *, seed=0):
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, width, generator=source).to(GPU, kind).requires_grad_()
    w = torch.randn(entries, width, generator=source).mul(width**-0.5).to(GPU, kind)
    targets = torch.randint(0, entries, (tokens,), generator=source)
    targets[::7] = 3
    targets[1::9] = -100
    return x, w.requires_grad_(), targets.to(GPU)


def _exact(x, w, targets, bias, smoothing, z_loss, softcap):
    """Loss, and gradients of hidden states and weights, in float64 on the CPU."""
    x, w = (value.detach().cpu().double().requires_grad_() for value in (x, w))
    z = x @ w.T + (0 if bias is None else bias.cpu().double())
    z = z if softcap is None else softcap * torch.tanh(z / softcap)
    targets = targets.cpu()
    loss = F.cross_entropy(z, targets, label_smoothing=smoothing)
    loss = loss + z_loss * z.logsumexp(1)[targets >= 0].square().mean()
    loss.backward()
    return loss.detach(), x.grad, w.grad


def _relative(found, true):
    return float((found.detach().cpu().double() - true).norm() / true.norm())


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("with_bias", "smoothing", "z_loss", "softcap"),
    list(itertools.product((False, True), (0.0, 0.1), (0.0, 1e-2), (None, 3.0))),
)
def test_the_loss_is_that_of_float64(kind, with_bias, smoothing, z_loss, softcap):
    x, w, targets = _case(300, 64, 5003, kind)
    bias = torch.randn(5003, generator=torch.Generator().manual_seed(1)).to(GPU, kind)
    bias = bias if with_bias else None
    loss = linear_cross_entropy(
        x, w, targets, bias=bias, label_smoothing=smoothing, z_loss=z_loss, softcap=softcap,
        chunk_rows=128,
    )  # fmt: skip
    loss.backward()
    true, grad_x, grad_w = _exact(x, w, targets, bias, smoothing, z_loss, softcap)
    of_loss, of_gradient = (1e-6, 2e-6) if kind == torch.float32 else (1e-3, 4e-3)
    assert loss.item() == pytest.approx(float(true), abs=of_loss * max(1.0, float(true)))
    assert _relative(x.grad, grad_x) < of_gradient
    assert _relative(w.grad, grad_w) < of_gradient


@on_cuda
def test_narrow_products_come_out_in_float32():
    assert loss_chunks.gives_float32(torch.bfloat16, torch.device("cuda", 0))


@on_cuda
def test_gradients_are_the_same_every_time():
    found = []
    for _ in range(2):
        x, w, targets = _case(2000, 64, 5003, torch.bfloat16)
        linear_cross_entropy(x, w, targets).backward()
        found.append((x.grad, w.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@on_cuda
def test_the_loss_inside_a_compiled_graph():
    loss = torch.compile(linear_cross_entropy, fullgraph=True, backend="aot_eager")
    found = []
    for call in (loss, linear_cross_entropy):
        x, w, targets = _case(300, 64, 5003, torch.bfloat16)
        call(x, w, targets).backward()
        found.append(x.grad)
    assert torch.equal(*found)


@on_cuda
def test_the_loss_never_holds_all_logits():
    tokens, entries = 16_384, 50_304
    x, w, targets = _case(tokens, 256, entries, torch.bfloat16)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    linear_cross_entropy(x, w, targets).backward()
    used = torch.cuda.max_memory_allocated() - before
    rows = loss_chunks.default_rows(entries, torch.bfloat16, x.device)
    # A chunk's logits, the gradient of the weights in float32 and then in bfloat16, of the hidden
    # states, and a little.
    assert used < 2 * rows * entries + (4 + 2) * w.numel() + 2 * x.numel() + 20e6
    assert used < tokens * entries  # half a byte a logit; in float32 they alone take four


@on_cuda
def test_a_target_outside_the_vocabulary_ends_the_program():
    code = (
        "import torch; from nextword import linear_cross_entropy as loss\n"
        "x, w = torch.ones(4, 8, device='cuda'), torch.ones(9, 8, device='cuda')\n"
        "loss(x, w, torch.tensor([1, 2, 9, 3], device='cuda')).item()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "a target lies outside the vocabulary of 9 entries" in done.stderr


@on_cuda
@pytest.mark.parametrize(("file", "passed"), [("kernel_cases.py", 44), ("symmetric_cases.py", 19)])
def test_a_kernel_does_what_plain_lines_do(file, passed):
    cases = Path(__file__).parents[1] / "kernels" / file
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(cases)],
        env={**os.environ, "TRITON_INTERPRET": "0"},
        cwd=cases.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"{passed} passed" in done.stdout


@on_cuda
def test_the_machine_says_what_it_is():
    from nextword.machine.device import choose_machine
    from nextword.machine.options import MachineSettings

    machine = choose_machine(MachineSettings())
    assert machine.device.type == "cuda"
    assert machine.precision == torch.bfloat16
    assert machine.describe()["name"] == torch.cuda.get_device_name()
    began = torch.cuda.Event(enable_timing=True)
    began.record()
    (torch.ones(4096, 4096, device="cuda") @ torch.ones(4096, 4096, device="cuda")).sum()
    machine.synchronize()
    assert began.query()
    assert math.isfinite(machine.describe()["threads"])


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second accelerator")
@pytest.mark.parametrize(
    "way",
    [
        ("--machine.parallel", "ddp"),
        ("--machine.parallel", "fsdp"),
        ("--machine.tensor", "2"),
        ("--machine.context", "2"),
    ],
)
def test_two_cards_train_as_one(place, way):
    """Processes speak through NCCL; the losses differ by no more than bfloat16 moves them."""
    (place.folder / "t.txt").write_text(TEXT * 2000)
    command = ["train", "t.txt", "--vocabulary.kind", "byte", "--model.context", "64"]
    command += ["--training.steps", "20", "--machine.device", "cuda", "--quiet"]
    command += ["--model.num-attention-heads", "4", "--model.num-key-value-heads", "2", *way]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", port, "-m"]
    for name, before in (("two", launcher), ("one", [])):
        done = subprocess.run(
            [sys.executable, "-m", *before, "nextword", *command, "--name", name],
            cwd=place.folder,
            env=place.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    runs = [place.folder / "runs" / name / "metrics.jsonl" for name in ("one", "two")]
    one, two = (
        [line["loss"] for line in map(json.loads, run.read_text().splitlines()) if "loss" in line]
        for run in runs
    )
    assert len(one) == 20
    assert two == pytest.approx(one, rel=2e-2)
