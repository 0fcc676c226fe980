"""Layers that are compiled, or that keep less for the gradient, learn what plain ones learn.

The compiler is the real one, for this machine's processor; on a GPU the same lines are compiled for
it (`pytest -m gpu`).
"""

import json
import re

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from nextword.kernels.choose import plain_only
from nextword.machine.device import Machine
from nextword.machine.options import MachineSettings
from nextword.model.documents import BLOCK, blocks_to_look_at, may_look
from nextword.model.runner import LayerRunner, as_it_stands, compiled, keeping_less
from nextword.model.shape import Shape
from nextword.training import layers
from nextword.training.layers import compiles, even_rows, expected_seconds, layer_runner, try_out
from nextword.training.loop import Plan
from nextword.training.room import make_it_fit, needs_of_row
from nextword.training.step import LanguageModelLoss, add_gradients, kept_bytes
from tests.model.test_transformer import SHAPE, scattered
from tests.training.test_behind import OPTIONS
from tests.training.test_resume import assert_same, metrics

pytestmark = [  # torch's own, within its compiler
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated"),
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile"),
]

CPU = torch.device("cpu")
EXACT = ["--machine.device", "cpu", "--machine.precision", "float32"]


def ids(rows, length, seed=0):
    return np.random.default_rng(seed).integers(1, 97, (rows, length))


def gradients(model, runner, rows=4, length=24, end_id=None):
    """Return the loss and the gradients of a batch."""
    model.model.runner = runner
    model.zero_grad(set_to_none=True)
    loss = LanguageModelLoss(model, precision=torch.float32, end_id=end_id)
    found = ids(rows, length), ids(rows, length, 1)
    (nats,) = add_gradients(loss, [found], found[0].size, CPU)
    return float(nats), {name: weight.grad for name, weight in model.named_parameters()}


def assert_equal(one, two, tolerance=1e-5):
    assert one[0] == pytest.approx(two[0], rel=1e-6)
    for name, gradient in one[1].items():
        assert float((two[1][name] - gradient).norm() / gradient.norm()) < tolerance, name


@pytest.fixture(scope="module")
def runner():
    """One compiled layer for all tests of this file, over rows and lengths that vary."""
    return LayerRunner(compiled(as_it_stands, lengths_vary=True))


@pytest.mark.parametrize("end_id", [None, 5])
def test_a_compiled_layer_is_the_plain_one(runner, end_id):
    model = scattered()
    with plain_only():
        plain = gradients(model, None, end_id=end_id)
    assert_equal(plain, gradients(model, runner, end_id=end_id))


def test_it_is_compiled_once_for_all_layers_and_lengths(runner):
    gradients(scattered(), runner, 3, 17)
    counters.clear()
    for rows, length in ((4, 24), (2, 9), (5, 23), (7, 12)):
        gradients(scattered(), runner, rows, length)
    assert not counters["stats"]["unique_graphs"]
    assert not counters["graph_break"]
    fresh = LayerRunner(compiled(as_it_stands, lengths_vary=True))
    counters.clear()
    gradients(scattered(), fresh)
    assert counters["stats"]["unique_graphs"] == 1
    assert SHAPE.num_hidden_layers > 1


@pytest.mark.parametrize("how", ["selective", "full"])
def test_what_is_computed_a_second_time_is_the_same(how):
    model = scattered()
    whole = gradients(model, None)
    again = gradients(model, LayerRunner(keeping_less(as_it_stands, how)))
    assert again[0] == whole[0]
    for name, gradient in whole[1].items():
        assert again[1][name].equal(gradient), name


@pytest.mark.parametrize("how", ["selective", "full"])
def test_compiled_too(how):
    model = scattered()
    with plain_only():
        plain = gradients(model, None)
    step = compiled(keeping_less(as_it_stands, how), lengths_vary=True)
    assert_equal(plain, gradients(model, LayerRunner(step)))


def held(how, layers=4):
    """Return the bytes that tensors hold between a forward pass and its backward pass."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.weak import WeakTensorKeyDictionary

    class Made(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            results = function(*arguments, **(options or {}))
            for one in tree_leaves(results):
                if isinstance(one, torch.Tensor):
                    made[one] = one.untyped_storage()
            return results

    made = WeakTensorKeyDictionary()
    shape = Shape(
        vocab_size=97, hidden_size=64, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=2, head_dim=32, intermediate_size=192, context=128,
    )  # fmt: skip
    from nextword.model.transformer import Transformer

    model = Transformer(shape)
    if how != "none":
        model.model.runner = LayerRunner(keeping_less(as_it_stands, how))
    loss = LanguageModelLoss(model, precision=torch.float32)
    with plain_only(), Made():
        total = loss(torch.from_numpy(ids(4, 128)), torch.from_numpy(ids(4, 128, 1)))
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    there = {one.data_ptr(): one.nbytes() for one in made.values()}
    with plain_only():
        total.backward()
    return sum(size for place, size in there.items() if place not in weights), shape, loss


def test_keeping_less_keeps_less():
    none, selective, full = (held(how)[0] for how in ("none", "selective", "full"))
    assert full < 0.35 * none
    assert full < selective < 0.85 * none


def test_what_a_row_would_keep_is_foreseen():
    """Beside what is held at once while one layer is computed a second time."""
    _, shape, loss = held("none")
    batch = ids(1, 128), ids(1, 128, 1)
    model = loss.model
    with plain_only():
        model.model.runner = None
        kept = kept_bytes(loss, batch, CPU)
        model.model.runner = LayerRunner(keeping_less(as_it_stands, "full"))
        beside = kept_bytes(loss, batch, CPU)
    assert beside < 0.1 * kept
    needs = needs_of_row(kept, beside, shape, 128, 4)
    assert list(needs) == ["none", "selective", "full"]
    layer = (kept - beside) / 4
    for how in ("selective", "full"):
        between = held(how)[0] / 4
        assert between < needs[how] < 1.5 * between + layer, how
        assert needs[how] < needs["none"]


PLAN = Plan(steps=100, rows=64, micro_rows=16, context=256)
NEEDS = {"none": 100.0, "selective": 40.0, "full": 10.0}


@pytest.mark.parametrize(
    ("free", "rows_are_free", "rows", "how"),
    [
        (2000, True, 16, "none"),
        (700, True, 7, "none"),
        (100, True, 1, "none"),
        (99, True, 2, "selective"),
        (39, True, 3, "full"),
        (9, True, None, None),
        (700, False, 16, "selective"),
        (160, False, 16, "full"),
        (159, False, None, None),
    ],
)
def test_a_step_is_made_to_fit(free, rows_are_free, rows, how):
    found = make_it_fit(PLAN, NEEDS, free, rows_are_free=rows_are_free)
    if rows is None:
        assert found is None
    else:
        assert (found.micro_rows, found.recompute, found.rows) == (rows, how, 64)


def test_a_run_takes_what_fits_and_says_so(place, monkeypatch):
    from nextword.training import dividing

    own = [
        "--corpus.stories", "60", "--vocabulary.kind", "byte", "--model.depth", "2",
        "--training.steps", "3", "--training.batch-tokens", "8192", *EXACT,
    ]  # fmt: skip
    done = place.nextword("train", "--name", "whole", *own)
    assert done.returncode == 0, done.stderr
    runs = place.folder / "runs"

    def losses(name):
        return [one["loss"] for one in metrics(runs / name) if one["event"] == "step"]

    for free, words, plan in (
        (60_000_000, r"holds (\d) of its 32 rows at once;", {"recompute": "none"}),
        (12_300_000, r"holds (\d) of its 32 rows at once, and computes each", {"micro_rows": 1}),
    ):
        monkeypatch.setattr(dividing, "free_memory", lambda device, free=free: free)
        name = f"of-{free}"
        done = place.nextword("train", "--name", name, *own)
        assert done.returncode == 0, done.stderr
        rows = int(re.search(words, done.stderr)[1])
        said = json.loads((runs / name / "run.json").read_text())["plan"]
        assert said["micro_rows"] == rows < 16
        assert said.items() >= plan.items()
        assert losses(name) == pytest.approx(losses("whole"), rel=1e-5)


def compiled_run(place, name, *more):
    done = place.nextword("train", "--name", name, *OPTIONS, *EXACT, *more)
    assert done.returncode == 0, done.stderr
    return place.folder / "runs" / name


def test_a_compiled_run_learns_the_same_and_resumes_bit_for_bit(place, trained):
    on = ("--machine.compile", "on")
    trained.copy_to(place, "train", "--name", "plain", *OPTIONS, *EXACT)
    counters.clear()
    whole = compiled_run(place, "whole", *on)
    assert counters["stats"]["unique_graphs"] == 1  # rows are the same in all parts of all steps
    assert json.loads((whole / "run.json").read_text())["plan"]["compiled"] is True
    plain = {
        one["step"]: one["loss"]
        for one in metrics(place.folder / "runs" / "plain")
        if one["event"] == "step"
    }
    found = {one["step"]: one["loss"] for one in metrics(whole) if one["event"] == "step"}
    assert found == pytest.approx(plain, rel=2e-3)
    assert found[1] == pytest.approx(plain[1], rel=1e-6)
    assert found != plain
    parts = compiled_run(place, "parts", *on)
    done = place.nextword("train", "--resume", "parts@5")
    assert done.returncode == 0, done.stderr
    assert "compiling the layers" in done.stderr
    assert_same(whole, parts)


@pytest.mark.parametrize(
    ("rows", "at_once", "ranks", "even"),
    [(48, 32, 1, 24), (32, 32, 1, 32), (7, 4, 1, 1), (48, 32, 2, 24)],
)
def test_parts_of_a_compiled_step_are_alike(rows, at_once, ranks, even):
    plan = Plan(steps=1, rows=rows, micro_rows=at_once, context=8)
    assert even_rows(plan, ranks) == even


def test_what_cannot_be_compiled_is_computed_as_it_stands(place, monkeypatch):
    """Or refused, where compiling was asked for."""

    def broken(step, *, lengths_vary):
        def fails(*given):
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nmore")

        return fails

    monkeypatch.setattr(layers, "compiled", broken)
    done = place.nextword("train", "--name", "it", *OPTIONS, *EXACT, "--machine.compile", "on")
    assert done.returncode == 2
    assert "cannot be compiled here (RuntimeError: InvalidCxxCompiler" in done.stderr
    assert "--machine.compile off" in done.stderr
    assert not (place.folder / "runs" / "it").exists()
    monkeypatch.setattr(layers, "COMPILES", ("cpu",))
    monkeypatch.setattr(layers, "WORTH_SECONDS", 0.0)
    run = compiled_run(place, "it")
    assert json.loads((run / "run.json").read_text())["plan"]["compiled"] is False


def test_want_of_memory_is_not_the_compilers():
    loss = LanguageModelLoss(scattered(), precision=torch.float32)
    machine = Machine(CPU, torch.float32)

    def full(*given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    loss.model.model.runner = LayerRunner(full)
    assert try_out(loss, (ids(1, 8), ids(1, 8)), machine) is None

    def broken(*given):
        raise RuntimeError("no compiler")

    loss.model.model.runner = LayerRunner(broken)
    assert "no compiler" in str(try_out(loss, (ids(1, 8), ids(1, 8)), machine))
    assert all(weight.grad is None for weight in loss.parameters())


GPT2 = Shape(
    vocab_size=50304, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
    num_key_value_heads=12, head_dim=64, intermediate_size=2048, context=1024,
)  # fmt: skip


def test_a_run_is_compiled_where_that_pays():
    cuda = torch.device("cuda")
    long = Plan(steps=20_000, rows=512, micro_rows=32, context=1024)
    short = Plan(steps=5, rows=32, micro_rows=32, context=1024)
    auto, on, off = (MachineSettings(compile=how) for how in ("auto", "on", "off"))
    assert compiles(auto, cuda, GPT2, long)
    assert not compiles(auto, cuda, GPT2, short)
    assert not compiles(auto, CPU, GPT2, long)
    assert compiles(on, CPU, GPT2, short)
    assert not compiles(off, cuda, GPT2, long)
    # By the figure that it rests on: 184,300 tokens a second at this shape on an H200.
    assert expected_seconds(GPT2, short) == pytest.approx(5 * 32 * 1024 / 184_300, rel=0.3)
    chosen = layer_runner(cuda, Plan(5, 1, 1, 8, compiled=True), lengths_vary=False)
    assert chosen.blocks
    assert layer_runner(cuda, PLAN, lengths_vary=False) is None


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [BLOCK, 3 * BLOCK, 2 * BLOCK + 37, 50])
def test_blocks_say_what_booleans_say(causal, length):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    source = torch.Generator().manual_seed(length)
    begins = torch.rand(3, length, generator=source) < torch.tensor([[0.0], [0.01], [0.1]])
    documents = begins.cumsum(dim=1)
    documents[0] += 7
    looks = may_look(documents, causal=causal)
    blocks = blocks_to_look_at(documents, causal=causal)
    queries, keys, values = torch.randn(3, 3, 2, length, 16, generator=source)
    exact = torch.nn.functional.scaled_dot_product_attention(queries, keys, values, looks)
    with torch.no_grad():
        found = flex_attention(queries, keys, values, block_mask=blocks)
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-5)

    def mask(row, head, who, what):
        return looks[row, 0, who, what]

    theirs = create_block_mask(mask, 3, None, length, length, device="cpu", BLOCK_SIZE=BLOCK)
    assert (blocks.to_dense() >= theirs.to_dense()).all()
    whole = length // BLOCK  # what is filled up makes the last block one that is looked at in part
    for ours, other in ((blocks.kv_num_blocks, theirs.kv_num_blocks),
                        (blocks.full_kv_num_blocks, theirs.full_kv_num_blocks)):  # fmt: skip
        assert ours[:, :, :whole].equal(other[:, :, :whole])


def test_new_blocks_each_step_compile_nothing_again():
    model = scattered().eval()
    runner = LayerRunner(compiled(as_it_stands, lengths_vary=False), blocks=True)
    for step in range(4):
        rows = torch.from_numpy(ids(2, 24, step))
        documents = (rows == 5 + step).cumsum(dim=1)
        if step == 1:
            counters.clear()
        plain = model.hidden(rows, seen=may_look(documents, causal=True))
        x = model.model.embed_tokens(rows)
        cosine, sine = model.model.cosine[:24], model.model.sine[:24]
        with torch.no_grad():
            for layer in model.model.layers:
                blocks = blocks_to_look_at(documents, causal=True)
                x = runner(layer, x, cosine, sine, blocks)
        torch.testing.assert_close(model.model.norm(x), plain, atol=1e-4, rtol=1e-4)
    assert not counters["stats"]["unique_graphs"]
