"""Triton GPU kernel of softmax cross-entropy: two readings of the logits, one writing.

A program takes one row. It first finds the maximum and, beside it, the sum of the others' powers;
then it writes the gradient over the logits, block by block. `loss_rows.py` says what is computed
and does the same on a CPU; a test compares the two through Triton's interpreter, and another
compiles the kernel for each generation of GPUs, for the interpreter takes what the compiler
refuses: a kernel's arguments, for one, are annotated with nothing but `tl.constexpr`.
"""

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

from nextword.kernels.loss_options import RowOptions

BLOCK = 4096


@triton.jit  # type: ignore[untyped-decorator]
def _capped(z, softcap, HAS_CAP: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    if HAS_CAP:
        # tanh by what Triton has everywhere.
        power = tl.exp(-2.0 * tl.abs(z / softcap))
        size = (1.0 - power) / (1.0 + power)
        z = softcap * tl.where(z < 0, -size, size)
    return z


@triton.jit  # type: ignore[untyped-decorator]
def _row(  # type: ignore[no-untyped-def]
    logits,
    stride,
    targets,
    bias,
    greatest,
    chosen,
    others,
    mean,
    expected,
    width,
    softcap,
    smoothing,
    z_loss,
    HAS_BIAS: tl.constexpr,  # noqa: N803
    HAS_CAP: tl.constexpr,  # noqa: N803
    WRITE: tl.constexpr,  # noqa: N803
    SIZE: tl.constexpr,  # noqa: N803
):
    row = tl.program_id(0).to(tl.int64)
    place = logits + row * stride
    target = tl.load(targets + row)
    lanes = tl.arange(0, SIZE)
    # Lower than any logit; not −inf, for a first block of −inf alone would make −inf − −inf.
    most = -3.0e38
    rest = 0.0
    added = 0.0
    for start in range(0, width, SIZE):
        column = start + lanes
        inside = column < width
        z = tl.load(place + column, mask=inside, other=-float("inf")).to(tl.float32)
        if HAS_BIAS:
            z += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
        z = tl.where(inside, _capped(z, softcap, HAS_CAP), -float("inf"))
        higher = tl.maximum(most, tl.max(z, 0))
        power = tl.where(column == target, 0.0, tl.exp(z - higher))
        rest = rest * tl.exp(most - higher) + tl.sum(power, 0)
        added += tl.sum(tl.where(inside, z, 0.0), 0)
        most = higher
    right = tl.load(place + target).to(tl.float32)
    if HAS_BIAS:
        right += tl.load(bias + target).to(tl.float32)
    right = _capped(right, softcap, HAS_CAP) - most
    power_right = tl.exp(right)
    total = rest + power_right
    size = total / (1.0 + 2.0 * z_loss * (most + tl.log(total)))
    spread = smoothing / width * size
    sum_expected = 0.0
    for start in range(0, width, SIZE):
        column = start + lanes
        inside = column < width
        z = tl.load(place + column, mask=inside, other=0.0).to(tl.float32)
        if HAS_BIAS:
            z += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
        z = _capped(z, softcap, HAS_CAP)
        power = tl.exp(z - most)
        # Not below a finite bound: an entry that is forbidden adds nothing, not 0·−inf.
        sum_expected += tl.sum(tl.where(inside, power * tl.maximum(z - most, -1.0e30), 0.0), 0)
        if WRITE:
            gradient = tl.where(column == target, 0.0, power) - spread
            if HAS_CAP:
                gradient *= 1.0 - (z / softcap) * (z / softcap)
            tl.store(place + column, gradient.to(logits.dtype.element_ty), mask=inside)
    tl.store(greatest + row, most)
    tl.store(chosen + row, right)
    tl.store(others + row, rest)
    tl.store(mean + row, added / width - most)
    tl.store(expected + row, sum_expected)


def launch(
    logits: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    options: RowOptions,
    values: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    *,
    write: bool,
) -> None:
    """Run the kernel on a chunk.

    Args:
        logits: (R, V), written over where `write` is true.
        targets: (R,)
        bias: (V,)
        options: what changes logits and loss.
        values: filled with greatest logit, target's logit less it, sum of the others' powers, mean
            logit less the greatest, and Σ e·(z − max z); each (R, 1) in float32.
        write: whether the gradient is wanted.
    """
    size = min(BLOCK, triton.next_power_of_2(logits.shape[1]))
    # Triton launches on the current device, wherever the tensors are.
    with torch.cuda.device(logits.device) if logits.is_cuda else contextlib.nullcontext():
        _row[(len(logits),)](
            logits,
            logits.stride(0),
            targets,
            logits if bias is None else bias.contiguous(),
            *values,
            logits.shape[1],
            float(options.softcap or 1.0),  # a whole number would be compiled as one
            float(options.label_smoothing),
            float(options.z_loss),
            HAS_BIAS=bias is not None,
            HAS_CAP=bool(options.softcap),
            WRITE=write,
            SIZE=size,
            num_warps=8,
            # cap·t − max in one rounding is not 0 for the favorite, whose cap·t was rounded first.
            enable_fp_fusion=False,
        )
