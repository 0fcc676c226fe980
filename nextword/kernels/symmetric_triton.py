"""Triton GPU kernel of x·xᵀ: a program computes a block below the diagonal and writes it twice.

Products are added up in float32 and rounded once, as cuBLAS does; a block and its mirror image are
the same numbers, so the result is symmetric to the last bit.

Legend of shapes: N matrices, R rows, C columns.
"""

import contextlib
import os

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Triton's interpreter multiplies the bits of bfloat16 as if they were whole numbers."""
BLOCK, DEPTH = 128, 32
"""Rows and columns of a block; columns of x that are read at once."""


@triton.jit  # type: ignore[untyped-decorator]
def _half(  # type: ignore[no-untyped-def]
    x,
    added,
    out,
    rows,
    columns,
    beta,
    alpha,
    HAS_ADDED: tl.constexpr,  # noqa: N803
    WIDE: tl.constexpr,  # noqa: N803
    SIDE: tl.constexpr,  # noqa: N803
    STEP: tl.constexpr,  # noqa: N803
):
    down = tl.program_id(0)
    across = tl.program_id(1)
    matrix = tl.program_id(2).to(tl.int64)
    if across > down:
        return
    x += matrix * rows * columns
    out += matrix * rows * rows
    row = down * SIDE + tl.arange(0, SIDE)
    column = across * SIDE + tl.arange(0, SIDE)
    depth = tl.arange(0, STEP)
    total = tl.zeros((SIDE, SIDE), dtype=tl.float32)
    for start in range(0, columns, STEP):
        inside = start + depth < columns
        left = tl.load(
            x + row[:, None] * columns + (start + depth)[None, :],
            mask=(row < rows)[:, None] & inside[None, :],
            other=0.0,
        )
        right = tl.load(
            x + column[:, None] * columns + (start + depth)[None, :],
            mask=(column < rows)[:, None] & inside[None, :],
            other=0.0,
        )
        if WIDE:
            left = left.to(tl.float32)
            right = right.to(tl.float32)
        total = tl.dot(left, tl.trans(right), total, input_precision="ieee")
    total *= alpha
    place = row[:, None] * rows + column[None, :]
    there = (row < rows)[:, None] & (column < rows)[None, :]
    if HAS_ADDED:
        added += matrix * rows * rows
        total += beta * tl.load(added + place, mask=there, other=0.0).to(tl.float32)
    found = total.to(out.dtype.element_ty)
    tl.store(out + place, found, mask=there)
    if down > across:
        mirrored = column[:, None] * rows + row[None, :]
        tl.store(out + mirrored, tl.trans(found), mask=tl.trans(there))


def product(x: Tensor, added: Tensor | None, beta: float, alpha: float) -> Tensor:
    """Return beta·added + alpha·x·xᵀ.

    Args:
        x: (N, R, C).
        added: (N, R, R), symmetric; None for nothing.
        beta: by which it is multiplied.
        alpha: by which the product is.
    """
    x = x.contiguous()
    count, rows, columns = x.shape
    out = torch.empty(count, rows, rows, dtype=x.dtype, device=x.device)
    blocks = triton.cdiv(rows, BLOCK)
    # Triton launches on the current device, wherever the tensors are.
    with torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext():
        _half[(blocks, blocks, count)](
            x,
            x if added is None else added.contiguous(),
            out,
            rows,
            columns,
            float(beta),
            float(alpha),
            HAS_ADDED=added is not None,
            WIDE=INTERPRETED,
            SIDE=BLOCK,
            STEP=DEPTH,
            num_warps=8,
            num_stages=3,
        )
    return out
