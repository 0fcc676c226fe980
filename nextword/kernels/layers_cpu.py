"""CPU kernels with hand-written backward: RMSNorm, QKV projection with QK-norm and RoPE, SwiGLU.

On a CPU the time of a small network goes into many short operations. Autograd's backward of a norm
takes some fifteen of them; written out it takes seven.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _RMSNorm(torch.autograd.Function):
    """y = x / √(mean x² + eps) · w, over the last dimension."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = torch.rsqrt(length.square_().div_(x.shape[-1]).add_(eps))
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        direction = x * scale
        product = grad * direction
        grad_weight = product.sum(dim=tuple(range(x.ndim - 1))) if x.ndim > 1 else product
        along = (product @ weight).unsqueeze(-1)
        across = grad * weight
        across.addcmul_(direction, along.div_(-x.shape[-1])).mul_(scale)
        return across, grad_weight, None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale each vector to length √D, then by the weight. Source: Zhang & Sennrich 2019.

    Args:
        x: (…, D).
        weight: (D,).
        eps: added under the root.
    """
    if not torch.is_grad_enabled():
        return F.rms_norm(x, weight.shape, weight, eps)
    y: Tensor = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return y


class _QKVNormRoPE(torch.autograd.Function):
    """Joint projections → queries and keys, normalized and turned, and values."""

    @staticmethod
    def forward(
        ctx: Any,
        joint: Tensor,
        weight: Tensor | None,
        cosine: Tensor,
        sine: Tensor,
        heads: tuple[int, int],
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        kind = torch.float32 if joint.dtype == torch.bfloat16 else joint.dtype
        parts = joint.view(*joint.shape[:-1], -1, cosine.shape[-1])
        queries, last = heads[0], sum(heads)
        # Contiguous copies: the passes below run twice as fast on them as on parts of `joint`.
        placed = parts[:, :, :last].to(kind, memory_format=torch.contiguous_format, copy=True)
        values = parts[:, :, last:].to(kind, memory_format=torch.contiguous_format, copy=True)
        unit = scale = None
        if weight is None:
            turned = apply_rotary(placed, cosine, sine, 1.0)
        else:
            length = torch.linalg.vector_norm(placed, dim=-1, keepdim=True)
            scale = torch.rsqrt(length.square_().div_(placed.shape[-1]).add_(eps))
            unit = placed.mul_(scale)
            # The norm's weight and the rotation in one: (w·x)·cos + swap(w·x)·sin.
            swapped = weight.roll(weight.shape[-1] // 2, dims=-1)
            turned = apply_rotary(unit, cosine * weight, sine * swapped, 1.0)
        ctx.save_for_backward(unit, scale, weight, cosine, sine)
        ctx.heads, ctx.narrow = heads, joint.dtype
        return (
            turned[:, :, :queries].transpose(1, 2),
            turned[:, :, queries:].transpose(1, 2),
            values.transpose(1, 2),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        unit, scale, weight, cosine, sine = ctx.saved_tensors
        by_position = [grad.transpose(1, 2) for grad in grads]
        grad = apply_rotary(torch.cat(by_position[:2], dim=2), cosine, sine, -1.0)
        grad_weight = None
        if weight is not None:
            product = grad * unit
            grad_weight = product.sum(dim=(0, 1))
            along = product.mul_(weight).sum(dim=-1, keepdim=True).div_(-unit.shape[-1])
            grad.mul_(weight).addcmul_(unit, along).mul_(scale)
        size = (*grad.shape[:2], sum(ctx.heads) + ctx.heads[1], grad.shape[-1])
        joint = torch.empty(size, dtype=ctx.narrow, device=grad.device)
        joint[:, :, : sum(ctx.heads)] = grad
        joint[:, :, sum(ctx.heads) :] = by_position[2]
        return joint.flatten(2), grad_weight, None, None, None, None


def qkv_norm_rope(
    joint: Tensor,
    weight: Tensor | None,
    cosine: Tensor,
    sine: Tensor,
    heads: tuple[int, int],
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut joint projections into heads; normalize and turn queries and keys.

    Args:
        joint: queries, keys and values side by side, (B, T, (Hq + 2·Hk)·K).
        weight: of the norms, (Hq + Hk, K); None where there are none.
        cosine: (T, 1, K), each half the cosines of the position's angles.
        sine: (T, 1, K), the sines; negative in the first half.
        heads: Hq and Hk.
        eps: of the norms.

    Returns:
        queries (B, Hq, T, K), keys and values (B, Hk, T, K), in float32 at least: the CPU's
        attention takes six times as long backward in bfloat16.
    """
    if not torch.is_grad_enabled():
        return _qkv_norm_rope_once(joint, weight, cosine, sine, heads, eps)
    placed: tuple[Tensor, Tensor, Tensor] = _QKVNormRoPE.apply(  # type: ignore[no-untyped-call]
        joint, weight, cosine, sine, heads, eps
    )
    return placed


def _qkv_norm_rope_once(
    joint: Tensor,
    weight: Tensor | None,
    cosine: Tensor,
    sine: Tensor,
    heads: tuple[int, int],
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Do the same where no gradient is wanted."""
    exact = joint.float() if joint.dtype == torch.bfloat16 else joint
    parts = exact.view(*exact.shape[:-1], -1, cosine.shape[-1])
    last = sum(heads)
    placed = parts[:, :, :last]
    if weight is not None:
        placed = F.rms_norm(placed, placed.shape[-1:], None, eps).mul_(weight)
    turned = apply_rotary(placed, cosine, sine, 1.0).transpose(1, 2)
    return turned[:, : heads[0]], turned[:, heads[0] :], parts[:, :, last:].transpose(1, 2)


def apply_rotary(x: Tensor, cosine: Tensor, sine: Tensor, direction: float) -> Tensor:
    """Turn each pair (i, i + K/2) of x (B, T, H, K) by its position's angle, or back with −1.

    Source: Su et al. 2021 (RoFormer).
    """
    return (x * cosine).addcmul_(x.roll(x.shape[-1] // 2, dims=-1), sine, value=direction)


class _SwiGLU(torch.autograd.Function):
    """(silu(x·Gᵀ) · (x·Uᵀ))·Dᵀ. Gate and up stay apart.

    Elementwise passes over halves of rows take three times as long as over whole ones.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, precision: torch.dtype, gate: Tensor, up: Tensor, down: Tensor
    ) -> Tensor:
        matrices = [matrix.to(precision) for matrix in (gate, up, down)]
        narrow = x.to(precision).reshape(-1, x.shape[-1])
        gates, ups = torch.mm(narrow, matrices[0].T), torch.mm(narrow, matrices[1].T)
        opened = F.silu(gates)
        inner = opened * ups
        ctx.save_for_backward(narrow, gates, ups, opened, inner, *matrices)
        ctx.kept = (x.shape, x.dtype, gate.dtype)
        return torch.mm(inner, matrices[2].T).view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        narrow, gates, ups, opened, inner, gate, up, down = ctx.saved_tensors
        shape, kind, kept = ctx.kept
        flat = grad.reshape(-1, grad.shape[-1])
        grad_inner = torch.mm(flat, down)
        grad_ups = grad_inner * opened
        grad_gates = torch.ops.aten.silu_backward(grad_inner.mul_(ups), gates)
        grad_x = torch.mm(grad_gates, gate).addmm_(grad_ups, up).view(shape).to(kind)
        return (
            grad_x,
            None,
            torch.mm(grad_gates.T, narrow).to(kept),
            torch.mm(grad_ups.T, narrow).to(kept),
            torch.mm(flat.T, inner).to(kept),
        )


def swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, precision: torch.dtype) -> Tensor:
    """Open each inner unit by its gate: (silu(x·Gᵀ) · (x·Uᵀ))·Dᵀ. Source: Shazeer 2020 (SwiGLU).

    Args:
        x: (…, D).
        gate: G, (I, D).
        up: U, (I, D).
        down: D, (D, I).
        precision: of the products; float32 stands for the weights' own.

    Returns:
        (…, D), in that precision.
    """
    narrow = precision if precision != torch.float32 else gate.dtype
    if torch.is_grad_enabled():
        mapped: Tensor = _SwiGLU.apply(  # type: ignore[no-untyped-call]
            x, narrow, gate, up, down
        )
        return mapped
    x = x.to(narrow)
    inner = F.silu(F.linear(x, gate.to(narrow))).mul_(F.linear(x, up.to(narrow)))
    return F.linear(inner, down.to(narrow))


class _PackedLinear(torch.autograd.Function):
    """x · Wᵀ for several matrices W at once, in a narrower precision than they are kept in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, precision: torch.dtype, *weights: Tensor) -> Tensor:
        joint = packed_view(weights)
        joint = (torch.cat(weights) if joint is None else joint).to(precision)
        narrow = x.to(precision)
        ctx.save_for_backward(narrow, joint)
        ctx.kept, ctx.rows = (x.dtype, weights[0].dtype), [len(weight) for weight in weights]
        return F.linear(narrow, joint)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        narrow, joint = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        grad_x = torch.mm(flat, joint).view_as(narrow).to(ctx.kept[0])
        grad_joint = torch.mm(flat.T, narrow.reshape(-1, narrow.shape[-1])).to(ctx.kept[1])
        return grad_x, None, *torch.split(grad_joint, ctx.rows)


def linear(x: Tensor, weight: Tensor, precision: torch.dtype) -> Tensor:
    """Multiply by one matrix.

    Args:
        x: (…, inputs).
        weight: (outputs, inputs).
        precision: of the product; float32 stands for the weight's own.
    """
    return packed_linear(x, (weight,), precision)


def qkv_projection(
    x: Tensor,
    weights: Sequence[Tensor],
    norms: Tensor | None,
    cosine: Tensor,
    sine: Tensor,
    heads: tuple[int, int],
    eps: float,
    precision: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Project to queries, keys and values in one product; QK-norm and RoPE.

    Args:
        x: (B, T, D).
        weights: of queries, keys and values, (Hq·K, D), (Hk·K, D), (Hk·K, D).
        norms: weights of the norms, (Hq + Hk, K); None where there are none.
        cosine: as `qkv_norm_rope` takes it.
        sine: the same.
        heads: Hq and Hk.
        eps: of the norms.
        precision: of the product.

    Returns:
        queries (B, Hq, T, K), keys and values (B, Hk, T, K), in float32 at least.
    """
    return qkv_norm_rope(packed_linear(x, weights, precision), norms, cosine, sine, heads, eps)


def packed_linear(x: Tensor, weights: Sequence[Tensor], precision: torch.dtype) -> Tensor:
    """Multiply by several matrices at once.

    Args:
        x: (…, inputs).
        weights: matrices (outputs, inputs).
        precision: of the products; float32 stands for the weights' own.

    Returns:
        all outputs side by side, (…, sum of outputs), in that precision.
    """
    narrow = precision if precision != torch.float32 else weights[0].dtype
    if torch.is_grad_enabled():
        product: Tensor = _PackedLinear.apply(x, narrow, *weights)  # type: ignore[no-untyped-call]
        return product
    x = x.to(narrow)
    joint = weights[0] if len(weights) == 1 else packed_view(weights)
    if joint is not None:
        return F.linear(x, joint.to(narrow))
    return torch.cat([F.linear(x, weight.to(narrow)) for weight in weights], dim=-1)


def packed_view(weights: Sequence[Tensor]) -> Tensor | None:
    """Return matrices as one, without a copy, where they lie one after the other in memory."""
    first = weights[0]
    if not all(weight.is_contiguous() for weight in weights):
        return None
    storage, place = first.untyped_storage().data_ptr(), first.data_ptr()
    for weight in weights:
        if weight.data_ptr() != place or weight.untyped_storage().data_ptr() != storage:
            return None
        place += weight.nbytes
    rows = sum(len(weight) for weight in weights)
    return first.detach().as_strided((rows, first.shape[1]), (first.shape[1], 1))


@torch.no_grad()
def pack_weights(weights: Sequence[nn.Parameter]) -> None:
    """Move matrices that are used together one after the other in memory, for `packed_view`."""
    together = torch.cat([weight.detach() for weight in weights])
    for weight, part in zip(weights, torch.split(together, [len(w) for w in weights]), strict=True):
        weight.data = part
