"""Cross-entropy over the vocabulary without ever holding all N×V logits.

For each chunk of tokens: logits = x·Wᵀ, loss, and at once the gradients dX and dW, so that no
product is computed
twice: 6·N·D·V operations for loss and gradients, the least there is. The softmax is never
    normalized: with e = exp(z − max z) and s = Σe, the gradient of −log p is (e − s·[target])/s, so
    the one division by s is applied to the D-wide rows instead of the V-wide ones.

Legend of shapes: N tokens, D width, V vocabulary, R rows of a chunk, r rows of a tile that stays in
the cache. Loss and dW are added up in float32 whatever the precision of the products.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 4 * 2**20
MIN_CHUNK_ROWS = 512
TILE_ELEMENTS = 256 * 1024


def chunked_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    precision: torch.dtype | None = None,
    ignore_index: int = -100,
    chunk_rows: int | None = None,
) -> Tensor:
    """Add up −log P(right token) over the tokens asked for; divide by their number for the mean.

    Args:
        hidden: (…, D) last hidden states.
        weight: (V, D), one row an entry of the vocabulary.
        targets: (…), the id that really came, or `ignore_index` where nothing is asked.
        precision: of the matrix products (default: the weight's own).
        ignore_index: marks padding; such rows cost nothing and have zero gradients.
        chunk_rows: R (default: enough for 4 Mi logits, at least 512).

    Returns:
        the sum in nats, a float32 (or float64) scalar, differentiable once.

    Raises:
        IndexError: a target lies outside the vocabulary.
    """
    rows, wanted = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1).long()
    asked = wanted != ignore_index
    if not bool(asked.all()):
        rows, wanted = rows[asked], wanted[asked]
    if len(wanted) and (int(wanted.min()) < 0 or int(wanted.max()) >= len(weight)):
        bad = wanted[(wanted < 0) | (wanted >= len(weight))][0]
        raise IndexError(f"target {int(bad)} lies outside the vocabulary of {len(weight)} entries")
    chunk = chunk_rows or max(MIN_CHUNK_ROWS, CHUNK_ELEMENTS // len(weight))
    total: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        rows, weight, wanted, precision or weight.dtype, chunk
    )
    return total


@dataclass
class _Workspace:
    """Buffers reused from chunk to chunk."""

    logits: Tensor
    """(R, V) in the precision of the products."""
    tile: Tensor
    """(r, V) in float32."""


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The sum of −log P(target), with gradients computed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        precision: torch.dtype,
        chunk_rows: int,
    ) -> Tensor:
        """Return the summed loss and keep both gradients for backward."""
        exact = torch.float64 if weight.dtype == torch.float64 else torch.float32
        narrow = weight.to(precision)
        total = torch.zeros((), dtype=exact, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = (
            torch.zeros(weight.shape, dtype=exact, device=weight.device)
            if ctx.needs_input_grad[1]
            else None
        )
        chunk_rows = max(min(chunk_rows, len(hidden)), 1)
        tile_rows = min(chunk_rows, max(8, TILE_ELEMENTS // len(weight)))
        space = _Workspace(
            torch.empty(chunk_rows, len(weight), dtype=precision, device=weight.device),
            torch.empty(tile_rows, len(weight), dtype=exact, device=weight.device),
        )
        for start in range(0, len(hidden), chunk_rows):
            part = slice(start, start + chunk_rows)
            x, wanted = hidden[part].to(precision), targets[part]
            logits = torch.mm(x, narrow.T, out=space.logits[: len(x)])
            losses, sums = _unnormalized_gradient(
                logits, wanted, space.tile, keep=any(ctx.needs_input_grad)
            )
            total += losses.sum()
            if grad_hidden is not None:
                grad_hidden[part] = torch.mm(logits, narrow).to(exact).div_(sums[:, None])
            if grad_weight is not None:
                scaled = (hidden[part].to(exact) / sums[:, None]).to(precision)
                if precision == exact:
                    grad_weight.addmm_(logits.T, scaled)
                else:
                    grad_weight += torch.mm(logits.T, scaled).to(exact)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the kept gradients by the incoming one."""
        grad_hidden, grad_weight = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * grad_total,
            None if grad_weight is None else (grad_weight * grad_total).to(ctx.weight_dtype),
            None,
            None,
            None,
        )


def _unnormalized_gradient(
    logits: Tensor, targets: Tensor, tile: Tensor, *, keep: bool
) -> tuple[Tensor, Tensor]:
    """Overwrite logits z (R, V) by e − s·[target].

    Return the losses log s − (z_target − max z) and the sums s, (R,).

    With `keep` false the logits are left alone: nobody will ask for gradients.
    """
    losses = torch.empty(len(logits), dtype=tile.dtype, device=tile.device)
    sums = torch.empty_like(losses)
    for start in range(0, len(logits), len(tile)):
        part = slice(start, min(start + len(tile), len(logits)))
        wanted = targets[part, None]
        scratch = tile[: part.stop - start]
        if logits.dtype == tile.dtype:
            scratch = logits[part]
        else:
            scratch.copy_(logits[part])
        scratch.sub_(scratch.amax(dim=1, keepdim=True))
        chosen = scratch.gather(1, wanted)
        torch.exp(scratch, out=scratch)
        total = scratch.sum(dim=1, keepdim=True)
        sums[part] = total[:, 0]
        losses[part] = (total.log() - chosen)[:, 0]
        if keep:
            scratch.scatter_add_(1, wanted, -total)
            if logits.dtype != tile.dtype:
                logits[part] = scratch
    return losses, sums
