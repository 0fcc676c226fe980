"""The CPU's kernels against the plain layers: values, gradients, every type, gradcheck."""

import pytest
import torch

from nextword.kernels import choose, layers_cpu
from nextword.kernels.choose import kernel_for, plain_only
from nextword.model.attention import Attention
from nextword.model.layers import FeedForward, Linear, RMSNorm, rotary_tables
from nextword.model.transformer import Transformer
from tests.model.test_transformer import SHAPE, ids, scattered

WIDTH, HEADS, KEYS, HEAD, LENGTH = 16, 4, 2, 6, 7
LAYERS = {
    "rms_norm": lambda: RMSNorm(WIDTH),
    "linear": lambda: Linear(WIDTH, 10),
    "swiglu": lambda: FeedForward(WIDTH, 24),
    "attention": lambda: Attended(qk_norm=True),
    "attention without norm": lambda: Attended(qk_norm=False),
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2e-2}


class Attended(torch.nn.Module):
    """Attention with its tables, so that it takes x alone, as the others do."""

    def __init__(self, *, qk_norm):
        super().__init__()
        self.attention = Attention(WIDTH, HEADS, KEYS, HEAD, qk_norm=qk_norm)
        cosine, sine = rotary_tables(LENGTH, HEAD)
        self.register_buffer("cosine", cosine[:, None])
        self.register_buffer("sine", sine[:, None])

    def forward(self, x):
        return self.attention(x, self.cosine, self.sine)


def made(name, kind):
    torch.manual_seed(0)
    layer = LAYERS[name]().to(kind)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(torch.randn(weight.shape) * 0.4 + (weight.ndim == 1))
    return layer, torch.randn(2, LENGTH, WIDTH).to(kind)


OF_ANY_ROW = set(choose.CPU) - {"attention_of_pieces"}
"""The kernels that serve rows of one document; `tests/model/test_documents.py` has several."""


def both_ways(layer, x):
    """Return output, gradient of the input, and gradients of the weights."""
    layer.zero_grad()
    x = x.clone().requires_grad_()
    y = layer(x)
    toward = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    (y * toward).sum().backward()
    return [y.detach(), x.grad, *(weight.grad for weight in layer.parameters())]


def off(found, expected):
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("leading", ["usual", "one vector", "many"])
@pytest.mark.parametrize("kind", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_are_those_of_the_plain_layer(name, kind, leading):
    layer, x = made(name, kind)
    if leading != "usual" and "attention" not in name:
        x = x[0, 0] if leading == "one vector" else x[:, None, None]
    found = both_ways(layer, x)
    with plain_only():
        expected = both_ways(layer, x)
    for one, two in zip(found, expected, strict=True):
        assert one.shape == two.shape
        assert off(one, two) < TOLERANCE[kind]
    with torch.no_grad():
        assert off(layer(x), expected[0]) < TOLERANCE[kind]


@pytest.mark.parametrize("name", ["linear", "swiglu", "attention"])
def test_narrow_products_of_wide_weights(name):
    """Weights in float32, products in bfloat16, as training computes them."""
    layer, x = made(name, torch.float32)
    with plain_only():
        expected = both_ways(layer, x)
    for module in layer.modules():
        if isinstance(module, Linear):
            module.precision = torch.bfloat16
    found = both_ways(layer, x)
    with plain_only():
        plainly = both_ways(layer, x)
    for one, two, three in zip(found, plainly, expected, strict=True):
        assert one.dtype == two.dtype
        # No farther from the truth than what plain PyTorch makes of bfloat16.
        assert off(one, three) < max(1.5 * off(two, three), 1e-2)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_small_differences(name):
    layer, x = made(name, torch.float64)
    names = [key for key, _ in layer.named_parameters()]

    def of_all(x, *weights):
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,))

    given = (x[:1, :3] if "attention" not in name else x[:1], *layer.parameters())
    assert torch.autograd.gradcheck(
        of_all, tuple(one.detach().requires_grad_() for one in given), fast_mode=True
    )


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_the_network_is_the_plain_network(precision):
    model = scattered()
    model.set_precision(precision)
    logits = model(ids())
    logits.square().mean().backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    with plain_only():
        plainly = model(ids())
        plainly.square().mean().backward()
    close = 1e-4 if precision == torch.float32 else 5e-2
    assert off(logits.detach(), plainly.detach()) < close
    for name, weight in model.named_parameters():
        assert off(found[name], weight.grad) < close, name


@pytest.fixture
def asked(monkeypatch):
    """Names of the kernels that were called."""
    names = set()
    for name, kernel in choose.CPU.items():

        def noted(*given, name=name, kernel=kernel):
            names.add(name)
            return kernel(*given)

        monkeypatch.setitem(choose.CPU, name, noted)
    return names


def test_a_compiler_sees_the_plain_network(asked):
    """One graph, no breaks, and no kernel of ours in it."""
    model = scattered()
    explained = torch._dynamo.explain(model.model)(ids())
    assert explained.graph_break_count == 0
    exported = torch.export.export(model.model, (ids(),))
    names = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert any("scaled_dot_product_attention" in name for name in names)
    assert asked == set()
    again = exported.module()(ids())
    torch.testing.assert_close(again, model.model(ids()), atol=1e-5, rtol=1e-5)
    assert asked == OF_ANY_ROW


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_autocast_and_transforms_see_the_plain_network(asked):
    model, text = scattered(), ids()
    with torch.autocast("cpu", torch.bfloat16):
        model.model(text).float().square().mean().backward()
    weights = dict(model.model.named_parameters())

    def loss(weights, row):
        return torch.func.functional_call(model.model, weights, (row[None],)).square().mean()

    of_each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, text)
    assert asked == set()
    model.zero_grad()
    (model.model(text[:1]).square().mean()).backward()
    for name, weight in weights.items():
        assert off(of_each[name][0].detach(), weight.grad) < 1e-4, name


def test_a_weight_that_lies_otherwise_in_memory_is_read_as_it_is():
    layer = Linear(5, 7)
    layer.weight = torch.nn.Parameter(torch.randn(5, 7).T)
    x = torch.randn(3, 5)
    found = both_ways(layer, x)
    with plain_only():
        for one, two in zip(found, both_ways(layer, x), strict=True):
            torch.testing.assert_close(one, two)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_norm_of_other_types_than_its_weight(kind):
    layer, x = RMSNorm(WIDTH).to(kind), torch.randn(3, WIDTH)
    for given in (x, x.to(kind)):
        layer.zero_grad()
        found = both_ways(layer, given)
        exact = RMSNorm(WIDTH)(given.float())
        assert found[0].dtype == torch.promote_types(given.dtype, kind)
        assert off(found[0], exact.detach()) < (1e-6 if found[0].dtype == torch.float32 else 3e-3)


def test_on_another_device_nothing_is_served():
    elsewhere = torch.empty(2, 3, device="meta")
    assert all(kernel_for(name, elsewhere) is None for name in choose.CPU)
    assert all(kernel_for(name, torch.empty(2, 3)) for name in choose.CPU)
    assert kernel_for("linear", torch.empty(2, 3, dtype=torch.float16)) is None
    with plain_only():
        assert kernel_for("linear", torch.empty(2, 3)) is None


def test_training_on_a_cpu_takes_the_kernels(asked):
    scattered()(ids())
    assert asked == OF_ANY_ROW


def test_half_precision_is_computed_plainly():
    model = Transformer(SHAPE).half()
    assert model.model(ids()).dtype == torch.float16


def test_packed_weights_are_one_matrix_without_a_copy():
    weights = [torch.nn.Parameter(torch.randn(size, 5)) for size in (3, 4)]
    assert layers_cpu.packed_view(weights) is None
    before = torch.cat([weight.detach().clone() for weight in weights])
    layers_cpu.pack_weights(weights)
    joint = layers_cpu.packed_view(weights)
    assert torch.equal(joint, before)
    assert joint.data_ptr() == weights[0].data_ptr()
