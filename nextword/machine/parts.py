"""What one process holds of a tensor that is divided among several: some of its rows.

The one place that knows how torch's DTensor lies (`fully_shard` makes weights so); all others work
on a process's own rows as on any tensor, and ask here for what concerns the whole.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Part(NamedTuple):
    """Some rows of a tensor."""

    rows: Tensor
    shape: torch.Size
    """Of the whole."""
    first: int = 0
    """Row of the whole with which they begin."""
    is_copy: bool = False
    """Whether another process holds the same and speaks for both."""


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
    mesh = getattr(tensor, "device_mesh", None)
    if mesh is None:
        return None
    group: dist.ProcessGroup = mesh.get_group(mesh.ndim - 1)
    return group  # of two dimensions the first only repeats


def rows_of(shape: torch.Size, rank: int, size: int) -> tuple[int, int]:
    """Return where the rows of one of several processes begin and end, as `fully_shard` divides."""
    each = -(-shape[0] // size)
    return min(each * rank, shape[0]), min(each * (rank + 1), shape[0])


def part_of(tensor: Tensor, like: Tensor | None = None) -> Part:
    """Say which rows of the whole this process holds.

    Args:
        tensor: divided or whole.
        like: it is divided as this one is, though it does not say so itself: an optimizer's state
            of a weight.
    """
    divided = tensor if like is None else like
    group, rows = shared_by(divided), own_rows(tensor).detach()
    if group is None:
        return Part(rows, rows.shape)
    if rows.shape != own_rows(divided).shape:  # a single number, which all hold
        return Part(rows, rows.shape, is_copy=dist.get_rank() > 0)
    first, _ = rows_of(divided.shape, dist.get_rank(group), dist.get_world_size(group))
    mesh: Any = getattr(divided, "device_mesh")  # noqa: B009 - of torch's DTensor
    is_copy = mesh.ndim > 1 and mesh.get_local_rank(0) > 0
    return Part(rows, divided.shape, first, is_copy)


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor; of a divided one every process must ask."""
    gather = getattr(tensor, "full_tensor", None)
    if gather is None:
        return tensor
    gathered: Tensor = gather()
    return gathered


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
    return whole[part.first : part.first + len(part.rows)] if whole.ndim else whole


def resting_weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield a network's weights as they lie between two steps.

    Who has just asked a divided network still holds some of it whole; that is let go.
    """
    if is_divided(model):
        model.reshard()  # type: ignore[operator]
    yield from model.named_parameters()
