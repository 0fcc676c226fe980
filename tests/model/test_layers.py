"""A plain product in narrow numbers is what torch says, and keeps nothing that it need not."""

import torch
import torch.nn.functional as F

from nextword.kernels.choose import plain_only
from nextword.model.layers import Linear

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
