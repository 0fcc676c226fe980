"""A plain product in narrow numbers is what torch says, and keeps nothing that it need not."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from nextword.kernels.choose import plain_only
from nextword.model.layers import Linear
from nextword.model.runner import as_written, compile_within, keeping_less, within
from nextword.model.shape import ModelSettings, resolve_shape
from nextword.model.transformer import Transformer

NARROW = torch.bfloat16


def product(x, weight):
    """Return a narrow product as torch computes it, with all its copies."""
    return F.linear(x.to(NARROW), weight.to(NARROW))


def test_a_narrow_product_and_its_gradients_are_torchs():
    torch.manual_seed(0)
    layer = Linear(24, 40)
    layer.precision = NARROW
    x = torch.randn(3, 5, 24, requires_grad=True)
    with plain_only():
        y = layer(x)
    other, weight = (one.detach().clone().requires_grad_() for one in (x, layer.weight))
    expected = product(other, weight)
    assert torch.equal(y, expected)
    slope = torch.randn_like(y)
    y.backward(slope)
    expected.backward(slope)
    assert torch.equal(layer.weight.grad, weight.grad)
    assert torch.equal(x.grad, other.grad)
    assert layer.weight.grad.dtype == torch.float32


def test_it_keeps_the_weight_and_no_copy_of_it():
    layer = Linear(24, 40)
    layer.precision = NARROW
    kept = []

    def note(tensor):
        kept.append((tensor.data_ptr() == layer.weight.data_ptr(), tuple(tensor.shape)))
        return tensor

    x = torch.randn(3, 24, requires_grad=True)
    with plain_only(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer(x)
    assert sorted(kept) == [(False, (3, 24)), (True, (40, 24))]


def test_transforms_still_see_it():
    layer = Linear(24, 40)
    layer.precision = NARROW
    x = torch.randn(3, 24)

    def total(weight):
        return torch.func.functional_call(layer, {"weight": weight}, (x,)).float().sum()

    found = torch.func.grad(total)(layer.weight.detach())
    assert torch.equal(found, torch.autograd.grad(total(layer.weight), layer.weight)[0])


# torch's own, within its compiler
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
@pytest.mark.parametrize("how", ["none", "selective"])
def test_compiled_inside_no_narrow_copy_of_a_weight_is_kept(how):
    """By the compiler's own choice of what to keep: it likes a cast, which is half as large."""
    shape = resolve_shape(ModelSettings(depth=2, hidden_size=96, num_key_value_heads=1), 50, 32)
    model = Transformer(shape)
    model.set_precision(torch.bfloat16)
    step = within if how == "none" else keeping_less(within, how)
    with pytest.MonkeyPatch.context() as patch:
        chosen = partial(torch.compile, backend="aot_eager_decomp_partition")
        patch.setattr(torch, "compile", chosen)
        compile_within(model.model.layers, step, lengths_vary=False)
    weights = {tuple(weight.shape) for weight in model.model.layers.parameters() if weight.ndim > 1}
    weights |= {size[::-1] for size in weights}
    kept = []

    def note(tensor):
        kept.append((tensor.dtype, tuple(tensor.shape)))
        return tensor

    ids = torch.randint(50, (3, 32))
    with plain_only(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        states = model.hidden(ids)
    assert kept
    assert not [size for kind, size in kept if kind == torch.bfloat16 and size in weights]
    states.sum().backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    as_written(model.model.layers)
    model.zero_grad()
    with plain_only():
        model.hidden(ids).sum().backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, rtol=0.02, atol=0.02)
