"""Chunked linear cross-entropy: loss and gradients chunk by chunk, logits never held.

For each chunk of rows: logits = x·Wᵀ, the loss, and at once the gradients dX and dW, so that no
product is computed twice: 6·N·D·V operations for loss and gradients, the least there is. The
softmax is never normalized: with e = exp(z − max z) and s = Σe the gradient of −log p is
(e − s·[target])/s, so the one division by s is applied to the D-wide rows instead of the V-wide
ones. What the target adds, at the start of a training most of the gradient, does not go through a
rounded product: its row of W and its x are added in full precision.

Legend of shapes: N tokens, D width, V vocabulary, R rows of a chunk. Losses, dX before it leaves
and dW are added up in float32 (float64 for float64) whatever the precision of the products.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from nextword.kernels.loss_options import RowOptions
from nextword.kernels.loss_rows import (
    Finished,
    Rows,
    Scratch,
    borrowed,
    finish_rows,
    forget_buffers,
)

FEW_ROWS, USUAL_ROWS, MANY_ROWS = 512, 1024, 2048
FEW_ENTRIES, MANY_ENTRIES = 8192, 52 * 1024
"""Of a small vocabulary and of a large one, which decide how many rows a chunk has."""
FEW_TIMES = 2
"""An entry that more rows of a chunk ask for is a common target."""
WEIGHT_TILES = 8
"""Parts of dW, computed one after the other where they are narrower than their sum."""


@dataclass(frozen=True)
class Request:
    """What is asked of one pass."""

    hidden: Tensor
    """(N, D)"""
    weight: Tensor
    """(V, D)"""
    bias: Tensor | None
    """(V,)"""
    targets: Tensor
    """(N,)"""
    token_weights: Tensor | None
    """(N,)"""
    ignore_index: int
    reduction: str
    options: RowOptions
    precision: torch.dtype
    need_hidden: bool
    need_weight: bool
    need_bias: bool
    statistics: bool
    influence: bool
    chunk_rows: int


class Results(NamedTuple):
    """What one pass gives; what was not asked for is empty."""

    loss: Tensor
    """A scalar, or (N,) where nothing is reduced."""
    grad_hidden: Tensor
    grad_weight: Tensor
    grad_bias: Tensor
    nll: Tensor
    log_sum_exp: Tensor
    entropy: Tensor
    top_probability: Tensor
    won: Tensor
    influence: Tensor


def compute(request: Request) -> Results:
    """Compute the loss, and the gradients and statistics that were asked for.

    Raises:
        IndexError: a target lies outside the vocabulary.
    """
    return _Pass(request).run()


class _Pass:
    """One pass over all tokens that ask for something."""

    def __init__(self, request: Request) -> None:
        hidden, weight = request.hidden, request.weight
        self.request, self.device = request, hidden.device
        self.exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        targets = request.targets.long()
        self.asked = targets != request.ignore_index
        self.kept: Tensor | None = None
        if self.device.type == "cpu" and not bool(self.asked.all()):
            # Rows that ask for nothing are left out. On a GPU their number would have to be waited
            # for; there they are computed and count nothing.
            self.kept = self.asked.nonzero()[:, 0]
            targets = targets[self.kept]
        self.targets = _checked(targets, self.asked, len(weight), self.kept is not None)
        self.weights = self._row_weights()
        self.narrow = weight.to(request.precision)
        size = len(self.targets)
        usual = default_rows(len(weight), request.precision, self.device)
        self.rows = max(min(request.chunk_rows or usual, size), 1)
        self.grad_hidden = torch.empty_like(hidden if request.need_hidden else hidden[:0])
        if self.kept is not None:
            self.grad_hidden.zero_()
        # With float32 weights this is where dW is added up; narrower ones get it when it is whole.
        self.grad_weight = torch.empty_like(weight if request.need_weight else weight[:0])
        if not len(targets):
            self.grad_weight.zero_()
        self.grad_bias = self._zeros(weight[:, 0] if request.need_bias else weight[:0, 0])
        self.losses = torch.empty(size, dtype=self.exact, device=self.device)
        self.found = Rows.empty(size if request.statistics else 0, self.exact, self.device)
        self.influence = torch.zeros(
            size if request.statistics else 0, dtype=self.exact, device=self.device
        )

    def _zeros(self, like: Tensor) -> Tensor:
        return torch.zeros(like.shape, dtype=self.exact, device=self.device)

    def _row_weights(self) -> Tensor:
        """Return each row's weight in the loss, the division by their sum included."""
        weights = self.request.token_weights
        if weights is None:
            chosen = self.asked.to(self.exact)
        else:
            chosen = torch.where(self.asked, weights.to(self.exact), 0.0)
        if self.request.reduction == "mean":
            total = chosen.sum()
            chosen = chosen / torch.where(total == 0, torch.ones_like(total), total)
        return chosen if self.kept is None else chosen[self.kept]

    def run(self) -> Results:
        request = self.request
        hidden = request.hidden if self.kept is None else request.hidden[self.kept]
        size = (self.rows, len(request.weight), request.precision, self.exact, self.device)
        with borrowed(*size) as space:
            self.sum_weight = self._place_of_sum(space)
            for start in range(0, len(self.targets), self.rows):
                part = slice(start, min(start + self.rows, len(self.targets)))
                self._chunk(hidden[part], part, space)
            if self.sum_weight is not self.grad_weight:
                self.grad_weight.copy_(self.sum_weight)
        weighted = self.losses * self.weights
        loss = self._among_all(weighted) if request.reduction == "none" else weighted.sum()
        found = self.found
        statistics: tuple[Tensor, ...] = (
            found.nll,
            found.log_sum_exp,
            found.entropy,
            found.top_probability,
            found.won,
            self.influence,
        )
        if request.statistics:
            statistics = tuple(self._among_all(value) for value in statistics)
        return Results(loss, self.grad_hidden, self.grad_weight, self.grad_bias, *statistics)

    def _place_of_sum(self, space: Scratch) -> Tensor:
        """Return where dW is added up, in float32 at least."""
        if self.grad_weight.dtype == self.exact or not len(self.targets):
            return self.grad_weight
        return space.more("sum", *self.grad_weight.shape, kind=self.exact)

    def _among_all(self, values: Tensor) -> Tensor:
        """Put the values of the rows that were computed back among all rows."""
        if self.kept is None:
            return torch.where(self.asked, values, torch.zeros_like(values))
        spread = torch.zeros(len(self.asked), dtype=values.dtype, device=values.device)
        spread[self.kept] = values
        return spread

    def _chunk(self, rows: Tensor, part: slice, space: Scratch) -> None:
        request = self.request
        narrow = rows.to(request.precision)
        gradients = request.need_hidden or request.need_weight or request.need_bias
        product: Tensor | None = None
        if request.statistics:
            done, logits = self._look(narrow, part, space, write=gradients or request.influence)
            self.found.put(part, done.rows)
            if request.influence:
                product = self._pull(logits, part, done)
                pull = torch.linalg.vector_norm(product, dim=1) / done.sums
                self.influence[part] = pull
        if not request.statistics or not request.options.is_plain:
            done, logits = self._work(narrow, part, space, write=gradients)
            product = None
        self.losses[part] = done.losses
        if not gradients:
            return
        factors = self.weights[part] * done.factors
        if request.need_hidden:
            if product is None:
                product = self._pull(logits, part, done)
            self._put_hidden(part, product.mul_(factors[:, None]))
        if request.need_weight or request.need_bias:
            self._add_weights(rows, logits, part, done, factors, space)

    def _add_weights(
        self,
        rows: Tensor,
        logits: Tensor,
        part: slice,
        done: Finished,
        factors: Tensor,
        space: Scratch,
    ) -> None:
        """Add a chunk's part to the gradients of weight and bias."""
        targets, written = self.targets[part], self._write_common(logits, part, done)
        if self.request.need_weight:
            scaled = rows.to(self.exact) * factors[:, None]
            rounded = scaled.to(logits.dtype)
            self._add_product(logits, rounded, part.start == 0, space)
            rest = scaled * done.at_target[:, None]
            if written is not None:
                rest.addcmul_(rounded.to(self.exact), written[:, None], value=-1)
            _add_rows(self.sum_weight, targets, rest)
        if self.request.need_bias:
            rounded = factors.to(logits.dtype)
            self.grad_bias += self._wide_product(logits.T, rounded[:, None])[:, 0]
            rest = factors * done.at_target
            if written is not None:
                rest -= rounded.to(self.exact) * written
            _add_rows(self.grad_bias, targets, rest)

    def _write_common(self, logits: Tensor, part: slice, done: Finished) -> Tensor | None:
        """Write the target's part among the others after all, where its entry is a common target.

        Once a model knows how frequent an entry is, what the rows that ask for it add to its
        gradient is nearly what all others take away. Where products are rounded, that must happen
        inside of them: rounded apart, the small difference of two large sums is off by ten times as
        much. What is rounded of the number written is still added apart.

        Returns:
            (R,): what was written, zero elsewhere; None where products are not rounded.
        """
        targets = self.targets[part]
        if logits.dtype == self.exact or self._gives_float32(logits):
            return None
        times = self._zeros(self.request.weight[:, 0])
        times.index_add_(0, targets, torch.ones_like(done.at_target))
        common = times[targets] > FEW_TIMES
        written = torch.where(common, done.at_target, 0.0).to(logits.dtype)
        # scatter_add_ would take 33 ms for 2,048 numbers in as many rows; this takes 0.03.
        places = torch.arange(len(targets), device=self.device), targets
        logits.index_put_(places, written, accumulate=True)
        return written.to(self.exact)

    def _pull(self, logits: Tensor, part: slice, done: Finished) -> Tensor:
        """Return how each row pulls at its hidden state, but for its factor: (R, D)."""
        product = self._wide_product(logits, self.narrow)
        rows = self.request.weight[self.targets[part]].to(self.exact)
        return product.addcmul_(rows, done.at_target[:, None])

    def _wide_product(self, one: Tensor, two: Tensor) -> Tensor:
        if self._gives_float32(one):
            return torch.mm(one, two, out_dtype=torch.float32)
        return torch.mm(one, two).to(self.exact)

    def _gives_float32(self, narrow: Tensor) -> bool:
        is_narrow = narrow.dtype.itemsize < 4 and self.exact == torch.float32
        return is_narrow and gives_float32(narrow.dtype, narrow.device)

    def _look(
        self, narrow: Tensor, part: slice, space: Scratch, *, write: bool
    ) -> tuple[Finished, Tensor]:
        """Gather what statistics tell, from the plain loss whatever was asked."""
        logits = torch.mm(narrow, self.narrow.T, out=space.logits[: len(narrow)])
        plain = RowOptions(softcap=self.request.options.softcap)
        done = finish_rows(
            logits,
            self.targets[part],
            self.request.bias,
            plain,
            space,
            gradients=write,
            statistics=True,
        )
        return done, logits

    def _work(
        self, narrow: Tensor, part: slice, space: Scratch, *, write: bool
    ) -> tuple[Finished, Tensor]:
        """Compute the losses that were asked for, and write their gradient over the logits."""
        logits = torch.mm(narrow, self.narrow.T, out=space.logits[: len(narrow)])
        done = finish_rows(
            logits,
            self.targets[part],
            self.request.bias,
            self.request.options,
            space,
            gradients=write,
            statistics=False,
        )
        return done, logits

    def _put_hidden(self, part: slice, values: Tensor) -> None:
        if self.kept is None:
            self.grad_hidden[part] = values
        else:
            self.grad_hidden[self.kept[part]] = values.to(self.grad_hidden.dtype)

    def _add_product(self, logits: Tensor, narrow: Tensor, is_first: bool, space: Scratch) -> None:
        """Add Gᵀ·x to dW, a tile of it at a time where it must be widened first."""
        total, beta = self.sum_weight, 0 if is_first else 1
        if logits.dtype == self.exact:
            torch.addmm(total, logits.T, narrow, beta=beta, out=total)
            return
        if self._gives_float32(logits):
            torch.addmm(total, logits.T, narrow, torch.float32, beta=beta, out=total)
            return
        size, width = -(-len(total) // WEIGHT_TILES), total.shape[1]
        product = space.more("product", size, width, kind=logits.dtype)
        wide = space.more("wide", size, width, kind=self.exact)
        for start in range(0, len(total), size):
            part = slice(start, min(start + size, len(total)))
            count = part.stop - start
            torch.mm(logits[:, part].T, narrow, out=product[:count])
            if is_first:
                total[part] = product[:count]
            else:
                # Adding tensors of two types is slow; widening first is not, while it is at hand.
                total[part] += wide[:count].copy_(product[:count])


def forget() -> None:
    """Let go of buffers, and of what was found by trying: a step without numbers leaves neither."""
    forget_buffers()
    gives_float32.cache_clear()


@cache
def gives_float32(kind: torch.dtype, device: torch.device) -> bool:
    """Whether products of narrow numbers can come out unrounded here: CUDA's can, a CPU's not."""
    one = torch.ones(16, 16, dtype=kind, device=device)
    total = torch.ones(16, 16, dtype=torch.float32, device=device)
    try:
        torch.addmm(total, one.T, one, torch.float32, beta=1, out=total)
        return bool((torch.mm(one, one, out_dtype=torch.float32) + 1 == total).all())
    except RuntimeError:
        return False


def _add_rows(total: Tensor, places: Tensor, values: Tensor) -> None:
    """Add values to rows of a sum, in an order that is the same every time."""
    if total.device.type == "cpu":
        total.index_add_(0, places, values)
    else:
        # On a GPU index_add_ adds equal places up as they come.
        total.index_put_((places,), values, accumulate=True)


def default_rows(entries: int, precision: torch.dtype, device: torch.device) -> int:
    """Return how many rows are worked on at once where nothing is said.

    The products of 512 rows take 2 % longer than those of 1,024, so only the largest vocabularies
    in wide numbers have so few; more rows than 2,048 gain nothing. Narrow products are so fast that
    adding up dW counts, once a chunk: never so few.

    Args:
        entries: V.
        precision: of the products.
        device: where.
    """
    if device.type != "cpu" or entries <= FEW_ENTRIES:
        return MANY_ROWS
    return FEW_ROWS if entries > MANY_ENTRIES and precision.itemsize >= 4 else USUAL_ROWS


def _checked(targets: Tensor, asked: Tensor, entries: int, are_kept: bool) -> Tensor:
    """Refuse targets outside the vocabulary; those that are ignored read any entry.

    On a GPU the check does not wait: the error comes with the next operation that does, and names
    no id.
    """
    if not are_kept and targets.device.type != "cpu":
        # Ignored rows count nothing; spread out, for places that are equal are added up in turn.
        spread = torch.arange(len(targets), device=targets.device) % entries
        targets = torch.where(asked, targets, spread)
        inside = ((targets >= 0) & (targets < entries)).all()
        torch._assert_async(inside, f"a target lies outside the vocabulary of {entries} entries")
        return targets.clamp(0, entries - 1)
    if len(targets) and (int(targets.min()) < 0 or int(targets.max()) >= entries):
        bad = targets[(targets < 0) | (targets >= entries)][0]
        raise IndexError(f"target {int(bad)} lies outside the vocabulary of {entries} entries")
    return targets
