"""Attention of rows that hold several texts, on a CPU: each text by itself.

A mask would have every position asked about every other, and thrown away what is of another text
or comes later: of a row of 2,048 positions with texts of 300 six sevenths. PyTorch's kernel passes
over what comes later in blocks of 512 where it is told so, and here it is, for there is no mask.

Legend of shapes: B rows, H heads, T positions, K head width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Place = tuple[int, int, int]
"""A row, and where in it a text begins and ends."""


class _OfPieces(torch.autograd.Function):
    """softmax(Q·Kᵀ/√K)·V, of each text apart."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        places: Sequence[Place],
        causal: bool,
    ) -> Tensor:
        mixed, kind = _empty_like(queries), queries.dtype
        exact = torch.float32 if kind is torch.bfloat16 else kind
        rows, heads, length, _ = queries.shape
        logs = torch.empty(rows, length, heads, dtype=exact).transpose(1, 2)
        for row, start, end in places:
            at = slice(row, row + 1), slice(None), slice(start, end)
            mixed[at], logs[at] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                queries[at], keys[at], values[at], 0.0, causal
            )
        ctx.save_for_backward(queries, keys, values, mixed, logs)
        ctx.places, ctx.causal = places, causal
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, mixed, logs = ctx.saved_tensors
        grad = grad if grad.stride(-1) == 1 else grad.contiguous()
        wholes = [_empty_like(one) for one in (queries, keys, values)]
        for row, start, end in ctx.places:
            at = slice(row, row + 1), slice(None), slice(start, end)
            read = (one[at] for one in (grad, queries, keys, values, mixed, logs))
            parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                *read, 0.0, ctx.causal
            )
            for whole, part in zip(wholes, parts, strict=True):
                whole[at] = part
        return (*wholes, None, None)


def _empty_like(heads: Tensor) -> Tensor:
    """Lay out (B, H, T, K) as products of positions want it: heads of a position side by side."""
    rows, count, length, width = heads.shape
    return heads.new_empty(rows, length, count, width).transpose(1, 2)


def attention_of_pieces(
    queries: Tensor, keys: Tensor, values: Tensor, places: Sequence[Place], causal: bool
) -> Tensor:
    """Mix values within each text.

    Args:
        queries: (B, Hq, T, K).
        keys: (B, Hk, T, K); each serves Hq / Hk heads of queries.
        values: (B, Hk, T, K).
        places: of all texts, which fill all rows.
        causal: look only at positions up to one's own.

    Returns:
        (B, Hq, T, K).
    """
    if (times := queries.shape[1] // keys.shape[1]) > 1:
        keys, values = (one.repeat_interleave(times, dim=1) for one in (keys, values))
    mixed: Tensor = _OfPieces.apply(  # type: ignore[no-untyped-call]
        queries, keys, values, places, causal
    )
    return mixed
