"""What processes send each other in the middle of a layer, with the gradients of that.

Under a compiler each becomes operations of its graph.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

_messages: Any = torch.ops._c10d_functional


class Group(NamedTuple):
    """Processes that send each other something, and this one among them."""

    name: str
    size: int
    rank: int

    @classmethod
    def of(cls, group: "dist.ProcessGroup | None") -> "Group":
        """Return a group; of this process alone where there is none."""
        if group is None:
            return cls("", 1, 0)
        return cls(group.group_name, dist.get_world_size(group), dist.get_rank(group))


Message: TypeAlias = Callable[[Tensor, Group], Tensor]


def gathered(x: Tensor, group: Group) -> Tensor:
    """Return all positions, of which each process has some: (B, T / n, …) to (B, T, …)."""
    return _sent(x, group, _all, _own_of_sum)


def handed_out(x: Tensor, group: Group) -> Tensor:
    """Add up what all have, and return this process's positions: (B, T, …) to (B, T / n, …)."""
    return _sent(x, group, _own_of_sum, _all)


def swapped(x: Tensor, group: Group) -> Tensor:
    """Send each process its piece of equal ones, and return what came from each, of its shape."""
    return _sent(x, group, _swap, _swap)


def added_up(x: Tensor, group: Group) -> Tensor:
    """Add up what all have; without a gradient."""
    return _arrived(_messages.all_reduce(x.contiguous(), "sum", group.name))


def _sent(x: Tensor, group: Group, there: Message, back: Message) -> Tensor:
    """Send something there, and its gradient back."""
    came: Tensor = _Sent.apply(x, group, there, back)  # type: ignore[no-untyped-call]
    return came


class _Sent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, there: Message, back: Message) -> Tensor:
        ctx.group, ctx.back = group, back
        return there(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.back(grad, ctx.group), None, None, None


def _all(x: Tensor, group: Group) -> Tensor:
    name, size, _ = group
    came = _arrived(_messages.all_gather_into_tensor(x.contiguous(), size, name))
    return torch.unflatten(came, 0, (size, -1)).movedim(0, 1).flatten(1, 2)


def _own_of_sum(x: Tensor, group: Group) -> Tensor:
    name, size, _ = group
    sent = torch.unflatten(x, 1, (size, -1)).movedim(1, 0).flatten(0, 1)
    return _arrived(_messages.reduce_scatter_tensor(sent.contiguous(), "sum", size, name))


def _swap(x: Tensor, group: Group) -> Tensor:
    name, size, _ = group
    each = [len(x) // size] * size
    return _arrived(_messages.all_to_all_single(x.contiguous(), each, each, name))


def _arrived(x: Tensor) -> Tensor:
    done: Tensor = _messages.wait_tensor(x)
    return done
