"""Layers: RMSNorm, Linear, SwiGLU feed-forward, rotary position embeddings (RoPE).

Plain PyTorch; where `kernel_for` knows something faster for the tensor at hand, that is called.
Layers work on any leading shape, and in any floating-point type. A norm's result has the type that
promoting input and weight gives, a product's that of its weight, or the one asked for.

Legend of shapes: B rows, T positions, D width, H heads, K head width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nextword.kernels.choose import is_looked_at, kernel_for
from nextword.machine.device import settle_functions


class RMSNorm(nn.Module):
    """Scale each vector to length √D, then by a learned weight. Source: Zhang & Sennrich 2019."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        """Start with weights of one.

        Args:
            width: D, or K for the norm of queries and keys.
            eps: added under the root.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension of (…, D), in float32 at least inside."""
        kind = torch.promote_types(x.dtype, self.weight.dtype)
        exact = torch.promote_types(kind, torch.float32)
        if kernel := kernel_for("rms_norm", x):
            scaled: Tensor = kernel(x.to(exact), self.weight.to(exact), self.eps)
        else:
            weight = self.weight.to(exact)
            scaled = F.rms_norm(x.to(exact), weight.shape, weight, self.eps)
        return scaled.to(kind)


class Linear(nn.Module):
    """A matrix product without bias, computed in `precision`; the weight stays as it is."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Begin as `nn.Linear` does; `initialize` gives a network's weights other values.

        Args:
            inputs: width of what comes in.
            outputs: width of what goes out.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.precision = torch.float32
        """Of the product; float32 stands for the weight's own."""
        self.is_divided = False
        """Whether processes divide the weight, so that a copy of it must not be kept by a compiler
        either, which likes to keep what is small."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, inputs) to (…, outputs)."""
        narrow = precision_of(self.weight, self.precision)
        if self.is_divided and narrow != self.weight.dtype and torch.compiler.is_compiling():
            opaque: Tensor = narrow_product(x.to(narrow), self.weight)
            return opaque
        if is_looked_at(x) or is_looked_at(self.weight):
            return F.linear(x.to(narrow), self.weight.to(narrow))
        if kernel := kernel_for("linear", x):
            product: Tensor = kernel(x, self.weight, self.precision)
            return product
        if narrow == self.weight.dtype:
            return F.linear(x.to(narrow), self.weight)
        kept: Tensor = _NarrowProduct.apply(x.to(narrow), self.weight)  # type: ignore[no-untyped-call]
        return kept


class _NarrowProduct(torch.autograd.Function):
    """A product in the type of what comes in, which keeps the weight and no narrower copy of it.

    Copies of all weights until their gradients are computed would be half as large as the network:
    where weights are divided among processes, larger than all else that is held.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight = ctx.needs_input_grad
        return (
            _gradient_of_input(grad, weight) if wants_x else None,
            _gradient_of_weight(grad, x, weight) if wants_weight else None,
        )


def _gradient_of_input(grad: Tensor, weight: Tensor) -> Tensor:
    return grad @ weight.to(grad.dtype)


def _gradient_of_weight(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return (grad.flatten(0, -2).T @ x.flatten(0, -2)).to(weight.dtype)


@torch.library.custom_op("nextword::narrow_product", mutates_args=())
def narrow_product(x: Tensor, weight: Tensor) -> Tensor:
    """Compute the same as one step, which a compiler does not look into."""
    return F.linear(x, weight.to(x.dtype))


@torch.library.custom_op("nextword::narrow_gradients", mutates_args=())
def narrow_gradients(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Compute its gradients so too: a cast that stood open would be made before, and kept."""
    return _gradient_of_input(grad, weight), _gradient_of_weight(grad, x, weight)


@narrow_product.register_fake
def _shape_of_product(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@narrow_gradients.register_fake
def _shapes_of_gradients(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = narrow_gradients(grad.contiguous(), *ctx.saved_tensors)
    return found


narrow_product.register_autograd(_backward, setup_context=_keep)


class FeedForward(nn.Module):
    """SwiGLU: silu(x·gate) · (x·up), then down. Source: Shazeer 2020."""

    def __init__(self, width: int, inner: int) -> None:
        """Build the three matrices.

        Args:
            width: D.
            inner: width between them.
        """
        super().__init__()
        self.gate_proj = Linear(width, inner)
        self.up_proj = Linear(width, inner)
        self.down_proj = Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, D) to (…, D)."""
        if kernel := kernel_for("swiglu", x):
            weights = (self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight)
            mapped: Tensor = kernel(x, *weights, self.down_proj.precision)
        else:
            mapped = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return mapped


SPAN = 16
"""Positions that do without the same channels."""


def without(added: Tensor, kept: Tensor | None) -> Tensor:
    """Return what is added to the stream, (B, T, D), with some channels left out (dropout).

    Args:
        added: by half of a layer.
        kept: (B, S, D), by what it is multiplied, where each serves SPAN positions; or (B, T, D);
            None leaves nothing out.
    """
    if kept is None:
        return added
    return added * at_positions(kept, added.shape[1]).to(added.dtype)


def at_positions(kept: Tensor, length: int) -> Tensor:
    """Map (…, S, D), where each serves SPAN positions, to (…, T, D); that itself stays."""
    if kept.shape[-2] == length:
        return kept
    return kept.repeat_interleave(SPAN, dim=-2)[..., :length, :]


def precision_of(weight: Tensor, precision: torch.dtype) -> torch.dtype:
    """Return the type in which a weight's product is computed."""
    return weight.dtype if precision == torch.float32 else precision


def rotary_tables(context: int, head_dim: int, theta: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of every position's angles, each (T, K), computed in float64.

    The angles stand in both halves, as pairs (i, i + K/2) turn together; the first half's sine is
    negative.

    Args:
        context: T, positions.
        head_dim: K, even.
        theta: base of the wavelengths.
    """
    settle_functions()
    wavelengths = theta ** (torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.arange(context, dtype=torch.float64)[:, None] / wavelengths
    sine = angles.sin().float()
    return angles.cos().float().repeat(1, 2), torch.cat((-sine, sine), dim=1)


def apply_rotary(x: Tensor, cosine: Tensor, sine: Tensor, *, interleaved: bool = False) -> Tensor:
    """Turn each pair of coordinates by its position's angle (RoPE).

    Source: Su et al. 2021 (RoFormer).

    Args:
        x: (…, K).
        cosine: as `rotary_tables` gives it, of a shape that broadcasts with x: (T, K) for heads
            (…, H, T, K), (T, 1, K) for heads (…, T, H, K).
        sine: the same.
        interleaved: pairs are (2i, 2i + 1), as the paper and Meta's Llama have them, and not
            (i, i + K/2), as Hugging Face's layouts have them.
    """
    if interleaved:
        size = x.shape[:-1]
        apart = x.reshape(*size, -1, 2).transpose(-1, -2).flatten(-2)
        turned = apply_rotary(apart, cosine, sine)
        return turned.reshape(*size, 2, -1).transpose(-1, -2).flatten(-2)
    return x * cosine + x.roll(x.shape[-1] // 2, dims=-1) * sine
