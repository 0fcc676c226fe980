"""What is done to the logits of a few rows while they lie in the cache.

Logits z are written over by e − s·[target] (e = exp(z − max z), s = Σe): s times the gradient of
−log p, to be divided by s where rows are narrow. All of it in float32, or float64 for float64,
whatever the type in which the logits are kept.

Legend of shapes: R rows of a chunk, r rows of a tile, V vocabulary.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

TILE_ELEMENTS = 512 * 1024
"""Of a tile: 2 MiB in float32, what the second caches of two cores hold at least."""


@dataclass(frozen=True)
class RowOptions:
    """What changes logits and loss of a row."""

    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float = 0.0
    """0 for none."""

    @property
    def is_plain(self) -> bool:
        """Whether the loss is −log P(target) and nothing else."""
        return self.label_smoothing == 0 and self.z_loss == 0


class Rows(NamedTuple):
    """What is known of each row, (R,)."""

    nll: Tensor
    log_sum_exp: Tensor
    entropy: Tensor
    top_probability: Tensor
    won: Tensor

    @classmethod
    def empty(cls, size: int, kind: torch.dtype, device: torch.device) -> "Rows":
        """Make room for some rows."""
        one, two, three, four = (torch.empty(size, dtype=kind, device=device) for _ in range(4))
        return cls(one, two, three, four, torch.empty(size, dtype=torch.bool, device=device))

    def put(self, part: slice, rows: "Rows") -> None:
        """Put a chunk's rows in their place."""
        for mine, found in zip(self, rows, strict=True):
            mine[part] = found


class Finished(NamedTuple):
    """A chunk's rows, done."""

    losses: Tensor
    """(R,)"""
    factors: Tensor
    """(R,): what rows of the written-over logits are still to be multiplied by."""
    sums: Tensor
    """(R,): s."""
    rows: Rows


class Scratch:
    """Buffers used again from chunk to chunk: fresh memory has to be cleared by the system."""

    def __init__(
        self, rows: int, width: int, kind: torch.dtype, exact: torch.dtype, device: torch.device
    ) -> None:
        """Make room.

        Args:
            rows: R.
            width: V.
            kind: of the logits.
            exact: of what is done to them.
            device: where.
        """
        self.logits = torch.empty(rows, width, dtype=kind, device=device)
        tile = rows if device.type != "cpu" else min(rows, max(4, TILE_ELEMENTS // width))
        self.shifted = torch.empty(tile, width, dtype=exact, device=device)
        self._second: Tensor | None = None

    @property
    def powers(self) -> Tensor:
        """A second tile, for what needs z and e at once."""
        if self._second is None:
            self._second = torch.empty_like(self.shifted)
        return self._second


def finish_rows(
    logits: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    options: RowOptions,
    space: Scratch,
    *,
    gradients: bool,
    statistics: bool,
) -> Finished:
    """Work on a chunk of logits, tile by tile.

    Args:
        logits: x·Wᵀ, (R, V); written over where gradients are wanted.
        targets: (R,)
        bias: (V,), added to the logits.
        options: what changes logits and loss.
        space: buffers.
        gradients: write over the logits.
        statistics: fill all of the rows' values; else only what the loss takes.
    """
    size, exact = len(logits), space.shifted.dtype
    size, exact = len(logits), space.shifted.dtype
    losses, factors, sums = (logits.new_empty(size, dtype=exact) for _ in range(3))
    rows = Rows.empty(size if statistics else 0, exact, logits.device)
    step = len(space.shifted)
    for start in range(0, size, step):
        part = slice(start, min(start + step, size))
        wanted = targets[part, None]
        z, slope = _true_logits(logits[part], bias, options.softcap, space)
        greatest = z.amax(dim=1, keepdim=True)
        chosen = z.sub_(greatest).gather(1, wanted)
        mean = z.mean(dim=1, keepdim=True) if options.label_smoothing else None
        if statistics:
            powers = torch.exp(z, out=space.powers[: len(z)])
            expected = z.mul_(powers).sum(dim=1, keepdim=True)
        else:
            powers, expected = z.exp_(), None
        # The target is left out of the sum: where it is nearly certain, what is left is the loss
        # and the gradient, and would be lost in a sum of about 1.
        right = powers.gather(1, wanted)
        others = powers.scatter_(1, wanted, 0.0).sum(dim=1, keepdim=True)
        total = others + right
        log_total = total.log()
        nll = torch.where(chosen > -0.5, torch.log1p(others / right), log_total - chosen)
        loss, lift = _losses(nll, log_total, greatest, mean, options)
        losses[part], sums[part] = loss[:, 0], total[:, 0]
        factors[part] = (lift / total)[:, 0]
        if expected is not None:
            rows.put(part, _values(nll, chosen, total, log_total, greatest, expected))
        if gradients:
            smoothing = options.label_smoothing
            at_target = others.neg()
            if not options.is_plain:
                size = total / lift
                at_target = right - (1 - smoothing) * size
            powers.scatter_(1, wanted, at_target)
            if smoothing:
                powers.sub_(smoothing / powers.shape[1] * size)
            if slope is not None:
                powers.mul_(slope)
            if powers.data_ptr() != logits[part].data_ptr():
                logits[part] = powers
    return Finished(losses, factors, sums, rows)


def _true_logits(
    logits: Tensor, bias: Tensor | None, softcap: float, space: Scratch
) -> tuple[Tensor, Tensor | None]:
    """Return the logits after bias and cap, and what the cap lets through of a change."""
    z = space.shifted[: len(logits)]
    if logits.dtype == z.dtype:
        z = logits
    else:
        z.copy_(logits)
    if bias is not None:
        z.add_(bias)
    if not softcap:
        return z, None
    z.div_(softcap).tanh_()
    slope = torch.square(z).neg_().add_(1.0)
    return z.mul_(softcap), slope


def _losses(
    nll: Tensor, log_total: Tensor, greatest: Tensor, mean: Tensor | None, options: RowOptions
) -> tuple[Tensor, Tensor]:
    """Return each row's loss, and a in the gradient a·p − …: 1 + 2·z_loss·log-sum-exp."""
    loss, smoothing = nll, options.label_smoothing
    if mean is not None:
        loss = (1 - smoothing) * nll + smoothing * (log_total - mean)
    if not options.z_loss:
        return loss, torch.ones_like(loss)
    log_sum_exp = greatest + log_total
    return (
        loss + options.z_loss * log_sum_exp.square(),
        1 + 2 * options.z_loss * log_sum_exp,
    )


def _values(
    nll: Tensor,
    chosen: Tensor,
    total: Tensor,
    log_total: Tensor,
    greatest: Tensor,
    expected: Tensor,
) -> Rows:
    """Return what statistics tell: with q = e/s, the entropy is log s − Σ q·(z − max z)."""
    return Rows(
        nll=nll[:, 0],
        log_sum_exp=(greatest + log_total)[:, 0],
        entropy=(log_total - expected / total)[:, 0],
        top_probability=(1 / total)[:, 0],
        won=(chosen == 0)[:, 0],
    )
