"""CPU kernel of softmax cross-entropy over tiles of logits that stay in the cache.

Logits z are written over by e = exp(z − max z): s = Σe times the gradient of −log p, to be divided
by s where rows are narrow. At the target stands 0, for what it adds is one number a row, large
beside the others: it is kept apart, and spared the rounding of the logits' type. (What smoothing
takes from all entries is taken off everywhere.) All of it in float32, or float64 for float64,
whatever the type in which logits are kept.

Legend of shapes: R rows of a chunk, r rows of a tile, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nextword.kernels.loss_options import RowOptions
from nextword.machine.device import processor_name

TILE_ELEMENTS = 512 * 1024
"""Of a tile: 2 MiB in float32, what the second caches of two cores hold at least."""
LOG2_E = 1.4426950408889634
LOWEST = -1e30
"""Of a logit beside the greatest: e to its power is 0, and 0 times it is 0."""


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
    at_target: Tensor
    """(R,): what is missing at each row's target in the written-over logits."""
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
        self.exact = exact
        self.logits = _room((rows, width), kind, device)
        self.tile_rows = rows if device.type != "cpu" else min(rows, max(4, TILE_ELEMENTS // width))
        self._more: dict[str, Tensor] = {}

    def tile(self, name: str) -> Tensor:
        """Return a buffer for a few rows by name, in the type that they are worked on in."""
        return self.more(name, self.tile_rows, self.logits.shape[1], kind=self.exact)

    def more(self, name: str, *size: int, kind: torch.dtype) -> Tensor:
        """Return a buffer by name; made when it is first asked for."""
        found = self._more.get(name)
        if found is None or found.shape != size or found.dtype != kind:
            found = _room(size, kind, self.logits.device)
            self._more[name] = found
        return found


def _room(size: tuple[int, ...], kind: torch.dtype, device: torch.device) -> Tensor:
    """Return memory that is kept: what inference mode makes, training could not write to later."""
    with torch.inference_mode(False):
        return torch.empty(size, dtype=kind, device=device)


@contextmanager
def borrowed(
    rows: int, width: int, kind: torch.dtype, exact: torch.dtype, device: torch.device
) -> Iterator[Scratch]:
    """Lend the buffers of the pass before, where they fit: a training step needs them each time.

    One set is kept; a pass that needs more rows or another width, or beside this one, makes its
    own. On a GPU none is: torch keeps freed memory there itself, for whoever asks next.
    """
    key = (width, kind, exact, device)
    space = _kept.pop(key, None)
    if space is None or len(space.logits) < rows:
        space = Scratch(rows, *key)
    try:
        yield space
    finally:
        _kept.clear()
        if device.type == "cpu":
            _kept[key] = space


_kept: dict[tuple[Any, ...], Scratch] = {}


def forget_buffers() -> None:
    """Let go of what is kept for the next pass."""
    _kept.clear()


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
    size, exact = len(logits), space.exact
    greatest, chosen, others, mean, expected = (
        logits.new_zeros(size, 1, dtype=exact) for _ in range(5)
    )
    values = (greatest, chosen, others, mean, expected)
    if logits.is_cuda and exact == torch.float32 and _has_triton():
        from nextword.kernels.loss_rows_triton import launch

        launch(logits, targets, bias, options, values, write=gradients)
        return _finish(values, options)
    if isinstance(logits, torch._subclasses.FakeTensor):
        return _finish(values, options)  # no number is there to work on; all that is made is made
    for start in range(0, size, space.tile_rows):
        part = slice(start, min(start + space.tile_rows, size))
        wanted = targets[part, None]
        z, slope = _true_logits(logits[part], bias, options.softcap, space)
        torch.amax(z, dim=1, keepdim=True, out=greatest[part])
        torch.gather(z.sub_(greatest[part]), 1, wanted, out=chosen[part])
        if options.label_smoothing:
            torch.mean(z, dim=1, keepdim=True, out=mean[part])
        if statistics:
            # An entry that is forbidden, by a bias of −inf say, adds nothing: not 0·−inf.
            z.clamp_(min=LOWEST)
            powers = _exponentials(z, space.tile("powers")[: len(z)])
            torch.sum(z.mul_(powers), dim=1, keepdim=True, out=expected[part])
        else:
            powers = _exponentials(z, z)
        # The target is left out of the sum: where it is nearly certain, what is left is the loss
        # and the gradient, and would be lost in a sum of about 1.
        torch.sum(powers.scatter_(1, wanted, 0.0), dim=1, keepdim=True, out=others[part])
        if gradients:
            if options.label_smoothing:
                total = others[part] + chosen[part].exp()
                share = total / _lift(greatest[part] + total.log(), options)
                powers.sub_(options.label_smoothing / powers.shape[1] * share)
            if slope is not None:
                powers.mul_(slope)
            if powers.data_ptr() != logits[part].data_ptr():
                logits[part] = powers
    return _finish(values, options)


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def _exponentials(z: Tensor, out: Tensor) -> Tensor:
    """Write e^z over `out`, which may be z.

    torch's exp is oneMKL's on x86, made for Intel's processors; on Zen 4 it takes 0.45 ns a number
    where exp2, which is torch's own, takes 0.16. The rounding of z·log₂ e is as large as that of
    z = logit − max, and both are lost beside the products': no error of benchmarks/loss.py changed.
    """
    if out.dtype == torch.float64 or _exp_is_fast():
        return torch.exp(z, out=out)
    return torch.mul(z, LOG2_E, out=out).exp2_()


@cache
def _exp_is_fast() -> bool:
    """Whether exp is not oneMKL's, or is on a processor that oneMKL was made for."""
    has_mkl = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return not has_mkl or "Intel" in processor_name()


def _finish(values: tuple[Tensor, ...], options: RowOptions) -> Finished:
    """Put a chunk's losses and values together from what was found in its rows, each (R, 1)."""
    greatest, chosen, others, mean, expected = values
    right = chosen.exp()
    total = others + right
    log_total = total.log()
    nll = torch.where(chosen > -0.5, torch.log1p(others / right), log_total - chosen)
    loss, lift = _losses(nll, log_total, greatest, mean, options)
    # right − total is −others, which must not be found by taking one from the other.
    at_target = -others
    if not options.is_plain:
        at_target = right - (1 - options.label_smoothing) * (total / lift)
    if options.softcap:
        at_target = at_target * (1 - ((chosen + greatest) / options.softcap).square())
    rows = Rows(
        nll=nll[:, 0],
        log_sum_exp=(greatest + log_total)[:, 0],
        entropy=(log_total - expected / total)[:, 0],
        top_probability=(1 / total)[:, 0],
        won=(chosen == 0)[:, 0],
    )
    return Finished(loss[:, 0], (lift / total)[:, 0], at_target[:, 0], total[:, 0], rows)


def _true_logits(
    logits: Tensor, bias: Tensor | None, softcap: float, space: Scratch
) -> tuple[Tensor, Tensor | None]:
    """Return the logits after bias and cap, and what the cap lets through of a change."""
    z = logits
    if logits.dtype != space.exact:
        z = space.tile("logits")[: len(logits)].copy_(logits)
    if bias is not None:
        z.add_(bias)
    if not softcap:
        return z, None
    z.div_(softcap).tanh_()
    slope = torch.square(z).neg_().add_(1.0)
    return z.mul_(softcap), slope


def _losses(
    nll: Tensor, log_total: Tensor, greatest: Tensor, mean: Tensor, options: RowOptions
) -> tuple[Tensor, Tensor]:
    """Return each row's loss, and a in the gradient a·p − …: 1 + 2·z_loss·log-sum-exp."""
    loss, smoothing = nll, options.label_smoothing
    if smoothing:
        loss = (1 - smoothing) * nll + smoothing * (log_total - mean)
    log_sum_exp = greatest + log_total
    lift = _lift(log_sum_exp, options)
    return (loss + options.z_loss * log_sum_exp.square() if options.z_loss else loss), lift


def _lift(log_sum_exp: Tensor, options: RowOptions) -> Tensor:
    """Return a in the gradient a·p − …, which only z-loss changes from 1."""
    if not options.z_loss:
        return torch.ones_like(log_sum_exp)
    return 1 + 2 * options.z_loss * log_sum_exp
