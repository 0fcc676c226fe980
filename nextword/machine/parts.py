"""What one process holds of a tensor that is divided among several: some of its rows.

Where processes compute a layer together, each holds some of its rows or of its columns, and of
those, again, some rows: a block of the matrix.

The one place that knows how torch's DTensor lies (`fully_shard` makes weights so); all others work
on a process's own rows as on any tensor, and ask here for what concerns the whole.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Part(NamedTuple):
    """Some rows of a tensor, or some columns of those."""

    rows: Tensor
    shape: torch.Size
    """Of the whole."""
    first: int = 0
    """Row of the whole with which they begin."""
    is_copy: bool = False
    """Whether another process holds the same and speaks for both."""
    left: int = 0
    """Column of the whole with which they begin."""

    @property
    def is_block(self) -> bool:
        """Whether they are not as wide as the whole."""
        return self.rows.ndim == 2 and self.rows.shape[1] != self.shape[1]


@dataclass(frozen=True)
class Slab:
    """What a process has of a weight of a layer that several compute together."""

    dim: int | None
    """Along which it is divided among them; None where each has all of it."""
    rank: int
    size: int
    """How many they are."""
    group: "dist.ProcessGroup"
    """Those."""
    sharers: "dist.ProcessGroup"
    """All among which weights are divided, by this or by `fully_shard`."""

    def whole(self, shape: torch.Size) -> torch.Size:
        """Return the shape of the whole weight, from that of what they have together."""
        if self.dim is None:
            return shape
        return torch.Size(n * (self.size if at == self.dim else 1) for at, n in enumerate(shape))


def mark(weight: Tensor, slab: Slab) -> None:
    """Note that a weight is what a process has of a larger one."""
    setattr(weight, "slab", slab)  # noqa: B010 - `fully_shard` makes the tensor; it knows no better


def slab_of(weight: Tensor) -> Slab | None:
    """Return what was noted; None of a weight that no processes compute together."""
    found: Slab | None = getattr(weight, "slab", None)
    return found


def whole_shape(weight: Tensor) -> torch.Size:
    """Return the shape of a weight as the network has it, however processes divide it."""
    slab = slab_of(weight)
    return weight.shape if slab is None else slab.whole(weight.shape)


def whole_size(model: nn.Module) -> int:
    """Count the numbers of all weights of a network, however processes divide them."""
    return sum(math.prod(whole_shape(weight)) for weight in model.parameters())


def is_divided(model: nn.Module) -> bool:
    """Whether a network's weights are divided: it must be asked by all processes at once then."""
    return hasattr(model, "unshard")


def own_rows(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor, in the same memory; all of it where it is whole.

    Of a tensor that is learned: what is done to the rows is done to it, without a gradient.
    """
    own = getattr(tensor, "to_local", None)
    if own is None:
        return tensor
    with torch.no_grad():
        rows: Tensor = own()
    return rows


def shared_by(tensor: Tensor) -> "dist.ProcessGroup | None":
    """Return the processes that a tensor is divided among; None where this one holds all."""
    slab, mesh = slab_of(tensor), getattr(tensor, "device_mesh", None)
    if slab is not None:
        return slab.sharers
    if mesh is None:
        return None
    group: dist.ProcessGroup = mesh.get_group(mesh.ndim - 1)
    return group  # of two dimensions the first only repeats


def rows_of(shape: torch.Size, rank: int, size: int) -> tuple[int, int]:
    """Return where the rows of one of several processes begin and end, as `fully_shard` divides."""
    each = -(-shape[0] // size)
    return min(each * rank, shape[0]), min(each * (rank + 1), shape[0])


class Block(NamedTuple):
    """Where a process's rows of a matrix lie in the whole."""

    rows: slice
    columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


def block_of(weight: Tensor, rank: int, size: int) -> Block:
    """Return what one of those who share a matrix (`shared_by`) holds of it.

    Args:
        weight: the matrix, as this process holds it.
        rank: which of them.
        size: how many they are.
    """
    slab, (rows, columns) = slab_of(weight), weight.shape
    if slab is None:
        return Block(slice(*rows_of(weight.shape, rank, size)), slice(0, columns))
    # Of those who compute a layer together one comes after the other.
    first, end = rows_of(weight.shape, rank // slab.size, size // slab.size)
    down, right = (rank % slab.size * n * (slab.dim == d) for d, n in enumerate((rows, columns)))
    return Block(slice(down + first, down + end), slice(right, right + columns))


def part_of(tensor: Tensor, like: Tensor | None = None) -> Part:
    """Say which rows of the whole this process holds.

    Args:
        tensor: divided or whole.
        like: it is divided as this one is, though it does not say so itself: an optimizer's state
            of a weight.
    """
    divided = tensor if like is None else like
    mesh: Any = getattr(divided, "device_mesh", None)  # of torch's DTensor
    rows, slab = own_rows(tensor).detach(), slab_of(divided)
    if mesh is None:
        return Part(rows, rows.shape)
    if rows.shape != own_rows(divided).shape:  # a single number, which all hold
        return Part(rows, rows.shape, is_copy=dist.get_rank() > 0)
    group = mesh.get_group(mesh.ndim - 1)
    first, _ = rows_of(divided.shape, dist.get_rank(group), dist.get_world_size(group))
    is_copy = mesh.ndim > 1 and mesh.get_local_rank(0) > 0
    if slab is None:
        return Part(rows, divided.shape, first, is_copy)
    if slab.dim is None:
        return Part(rows, divided.shape, first, is_copy or slab.rank > 0)
    down, right = (slab.rank * divided.shape[slab.dim] * (slab.dim == at) for at in (0, 1))
    return Part(rows, whole_shape(divided), down + first, is_copy, right)


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor; of a divided one every process must ask."""
    gather = getattr(tensor, "full_tensor", None)
    if gather is None:
        return tensor
    gathered: Tensor = gather()
    slab = slab_of(tensor)
    if slab is None or slab.dim is None:
        return gathered
    pieces = [torch.empty_like(gathered) for _ in range(slab.size)]
    dist.all_gather(pieces, gathered.detach().contiguous(), group=slab.group)
    return torch.cat(pieces, dim=slab.dim)


def agreed(tensor: Tensor, model: nn.Module) -> Tensor:
    """Return what the first process has computed, where all ask a divided network together.

    Unlike machines may differ in the last bit, and what follows from it must not.
    """
    if is_divided(model):
        tensor = tensor.clone()
        dist.broadcast(tensor, src=0)
    return tensor


def fill(divided: Tensor, whole: Tensor) -> None:
    """Give a tensor the values of a whole one: this process takes its rows."""
    part = part_of(divided)
    with torch.no_grad():
        part.rows.copy_(rows_like(whole, part))


def fill_all(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a network the values of whole weights; of divided ones this process takes its rows."""
    for name, weight in resting_weights(model):
        fill(weight, weights[name])


def rows_like(whole: Tensor, part: Part) -> Tensor:
    """Return the same rows of a whole tensor, in its memory."""
    if not whole.ndim:
        return whole
    rows = whole[part.first : part.first + len(part.rows)]
    return rows[:, part.left : part.left + part.rows.shape[1]] if part.is_block else rows


def resting_weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield a network's weights as they lie between two steps.

    Who has just asked a divided network still holds some of it whole; that is let go.
    """
    if is_divided(model):
        model.reshard()  # type: ignore[operator]
    yield from model.named_parameters()
