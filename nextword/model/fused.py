"""Norm, rotation and joint projections with gradients written out: fewer passes over memory.

On a CPU the time of a small network goes into many short operations. Autograd's backward of a norm
takes some fifteen of them; written out it takes seven.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
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
        grad_weight = product.sum(dim=tuple(range(x.ndim - weight.ndim)))
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


class _PlaceHeads(torch.autograd.Function):
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
        exact = joint.float() if joint.dtype == torch.bfloat16 else joint
        parts = exact.view(*exact.shape[:-1], -1, cosine.shape[-1])
        queries, keys = heads
        placed = parts[:, :, : queries + keys]
        unit = scale = None
        if weight is not None:
            length = torch.linalg.vector_norm(placed, dim=-1, keepdim=True)
            scale = torch.rsqrt(length.square_().div_(placed.shape[-1]).add_(eps))
            unit = placed * scale
            placed = unit * weight
        turned = turn(placed, cosine, sine, 1.0)
        ctx.save_for_backward(unit, scale, weight, cosine, sine)
        ctx.heads, ctx.narrow = heads, joint.dtype
        return (
            turned[:, :, :queries].transpose(1, 2),
            turned[:, :, queries:].transpose(1, 2),
            parts[:, :, queries + keys :].transpose(1, 2),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        unit, scale, weight, cosine, sine = ctx.saved_tensors
        by_position = [grad.transpose(1, 2) for grad in grads]
        grad = turn(torch.cat(by_position[:2], dim=2), cosine, sine, -1.0)
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


def place_heads(
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
    placed: tuple[Tensor, Tensor, Tensor] = _PlaceHeads.apply(  # type: ignore[no-untyped-call]
        joint, weight, cosine, sine, heads, eps
    )
    return placed


def turn(x: Tensor, cosine: Tensor, sine: Tensor, direction: float) -> Tensor:
    """Turn each pair (i, i + K/2) of x (B, T, H, K) by its position's angle, or back with −1.

    Source: Su et al. 2021 (RoFormer).
    """
    return (x * cosine).addcmul_(x.roll(x.shape[-1] // 2, dims=-1), sine, value=direction)


class _GatedUnit(torch.autograd.Function):
    """silu(gate) · up, of gate and up side by side."""

    @staticmethod
    def forward(ctx: Any, joint: Tensor) -> Tensor:
        gate, up = joint.chunk(2, dim=-1)
        opened = F.silu(gate)
        ctx.save_for_backward(joint, opened)
        return opened * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        joint, opened = ctx.saved_tensors
        gate, up = joint.chunk(2, dim=-1)
        found = torch.empty_like(joint)
        grad_gate, grad_up = found.chunk(2, dim=-1)
        torch.mul(grad, opened, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=grad_gate)
        return found


def gated_unit(joint: Tensor) -> Tensor:
    """Return silu(gate) · up for joint (…, 2·I) → (…, I). Source: Shazeer 2020 (SwiGLU)."""
    gated: Tensor = _GatedUnit.apply(joint)  # type: ignore[no-untyped-call]
    return gated


def project(x: Tensor, weights: Sequence[Tensor], precision: torch.dtype) -> Tensor:
    """Multiply by several matrices at once: one product where gradients flow, else one each.

    Joining the matrices costs a copy, which is small beside the product over a training batch and
    large beside that over a single token.

    Args:
        x: (…, inputs).
        weights: matrices (outputs, inputs).
        precision: of the products; float32 stands for the weights' own.

    Returns:
        all outputs side by side, (…, sum of outputs), in that precision.
    """
    narrow = precision if precision != torch.float32 else weights[0].dtype
    x = x.to(narrow)
    if not torch.is_grad_enabled():
        return torch.cat([F.linear(x, weight.to(narrow)) for weight in weights], dim=-1)
    return F.linear(x, torch.cat([weight.to(narrow) for weight in weights]))
