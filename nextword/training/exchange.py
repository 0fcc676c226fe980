"""What processes send each other in the middle of a layer, with the gradients of that.

Under a compiler each becomes operations of its graph.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as messages
from torch import Tensor


class _Gathered(torch.autograd.Function):
    """All positions of rows of which each process has some; backward, its own of their sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _all(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _own_of_sum(grad, ctx.group), None


class _HandedOut(torch.autograd.Function):
    """A process's own positions of what all have added up; backward, those of all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _own_of_sum(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _all(grad, ctx.group), None


class _Swapped(torch.autograd.Function):
    """What each process has for this one, of equal pieces; backward the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _swap(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _swap(grad, ctx.group), None


def gathered(x: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
    """Return all positions, of which each process has some: (B, T / n, …) to (B, T, …)."""
    done: Tensor = _Gathered.apply(x, group)  # type: ignore[no-untyped-call]
    return done


def handed_out(x: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
    """Add up what all have, and return this process's positions: (B, T, …) to (B, T / n, …)."""
    done: Tensor = _HandedOut.apply(x, group)  # type: ignore[no-untyped-call]
    return done


def swapped(x: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
    """Send each process its piece of equal ones, and return what came from each, of its shape."""
    done: Tensor = _Swapped.apply(x, group)  # type: ignore[no-untyped-call]
    return done


def added_up(x: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
    """Add up what all have; without a gradient."""
    assert group is not None
    return _arrived(messages.all_reduce(x.contiguous(), "sum", group))


def _all(x: Tensor, group: Any) -> Tensor:
    return _arrived(messages.all_gather_tensor(x.contiguous(), 1, group))


def _own_of_sum(x: Tensor, group: Any) -> Tensor:
    return _arrived(messages.reduce_scatter_tensor(x.contiguous(), "sum", 1, group))


def _swap(x: Tensor, group: Any) -> Tensor:
    return _arrived(messages.all_to_all_single(x.contiguous(), None, None, group))


def _arrived(x: Tensor) -> Tensor:
    """Wait for a message, where nobody else does: a compiler sees to it by itself."""
    done: Tensor = x.wait() if isinstance(x, messages.AsyncCollectiveTensor) else x
    return done
