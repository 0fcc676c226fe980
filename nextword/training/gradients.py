"""A step's gradient: its length, clipping, and the move of the weights against it.

Where looking at a number makes this machine wait for a device, nobody need look: lengths stay where
the gradient lies, and clipping is decided there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nextword.base.errors import DivergedError
from nextword.machine.parts import own_rows, shared_by, slab_of
from nextword.training.eager_optimizer import EagerOptimizer


@dataclass(frozen=True)
class Gradient:
    """A step's gradient and its lengths (L2 norms), which lie where it does: nobody has waited."""

    tensors: list[Tensor]
    """Of weights that are divided among processes this one's rows."""
    names: list[str]
    """Of the first of them: the weights'. What an optimizer gathered itself has none."""
    norms: list[Tensor]
    """() each."""
    norm: Tensor
    """(): of all together."""

    @classmethod
    def of(cls, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer] = ()) -> "Gradient":
        """Measure what has been added up."""
        learned = {n: weight for n, weight in model.named_parameters() if weight.grad is not None}
        there = {name: weight.grad for name, weight in learned.items() if weight.grad is not None}
        if group := next(map(shared_by, learned.values()), None):
            slabs = map(slab_of, learned.values())
            # What several have whole counts once.
            once = [slab is None or slab.dim is not None or slab.rank == 0 for slab in slabs]
            rows = [own_rows(one) for one in there.values()]
            return cls.measured(rows, list(there), group, once)
        own = [
            gradient
            for optimizer in optimizers
            if isinstance(optimizer, EagerOptimizer)
            for gradient in optimizer.own_gradients()
        ]
        return cls.measured([*there.values(), *own], list(there))

    @classmethod
    @torch.no_grad()
    def measured(
        cls,
        tensors: list[Tensor],
        names: list[str],
        group: "dist.ProcessGroup | None" = None,
        counts: Sequence[bool] = (),
    ) -> "Gradient":
        """Measure gradients, or this process's rows of those that a group has divided.

        Args:
            tensors: the gradients, or the rows.
            names: of the first of them.
            group: has divided them.
            counts: which of this process's count there; default: all.
        """
        norms = list(torch._foreach_norm(tensors)) if tensors else []
        if group is not None:
            squares = torch.stack(norms).double().square()
            if not all(counts):
                squares *= squares.new_tensor(counts)
            dist.all_reduce(squares, group=group)
            norms = list(squares.sqrt().to(norms[0].dtype))
        whole = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())
        return cls(tensors, names, norms, whole)

    @torch.no_grad()
    def shorten(self, max_norm: float, norm: float | None) -> None:
        """Shorten all of it together so that its length is at most `max_norm`; 0 for any.

        Args:
            max_norm: longest gradient let through.
            norm: its length; None where nobody has looked, and the device is to decide.
        """
        if max_norm <= 0 or (norm is not None and norm <= max_norm):
            return
        if norm is not None:
            torch._foreach_mul_(self.tensors, max_norm / (norm + 1e-6))
        else:
            share = (max_norm / (self.norm.double() + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(self.tensors, share.to(self.norm.dtype))


def checked(norm: float) -> float:
    """Return a gradient's length.

    Raises:
        DivergedError: it is no number.
    """
    if norm != norm or norm == float("inf"):
        raise DivergedError(f"the gradient's length is {norm}")
    return norm


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Shorten all gradients together so that their length is at most `max_norm`.

    Args:
        parameters: those without a gradient are passed over.
        max_norm: longest gradient let through; 0 for any.

    Returns:
        the length (L2 norm) of all gradients before.

    Raises:
        DivergedError: it is not a number; no gradient has been touched.
    """
    found = [weight.grad for weight in parameters if weight.grad is not None]
    gradient = Gradient.measured(found, [])
    norm = checked(float(gradient.norm))
    gradient.shorten(max_norm, norm)
    return norm


def lengths_by_part(model: nn.Module) -> dict[str, float]:
    """Return the lengths of the gradients of embedding, each layer, last norm and head."""
    gradient = Gradient.of(model)
    return add_up_parts(gradient.names, [float(norm) for norm in gradient.norms])


def add_up_parts(names: Sequence[str], norms: Sequence[float]) -> dict[str, float]:
    """Return the lengths of the parts of a gradient, from those of its weights, by name."""
    squares: dict[str, float] = {}
    for name, norm in zip(names, norms, strict=True):
        part = _part(name)
        squares[part] = squares.get(part, 0.0) + norm * norm
    return {part: square**0.5 for part, square in squares.items()}


def _part(name: str) -> str:
    words = name.split(".")
    if "layers" in words:
        return f"layer {int(words[words.index('layers') + 1]) + 1}"
    return {"embed_tokens": "embedding", "norm": "last norm"}.get(words[-2], "head")


def update(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    factor: float,
    clip_norm: float,
    longest: float | None = None,
) -> float:
    """Move the weights against the gradient, and forget it.

    Args:
        model: whose gradients are ready.
        optimizers: each takes its own parameters.
        factor: of the peak learning rate.
        clip_norm: longest gradient let through; 0 for any.
        longest: with a gradient longer than this no weight is moved, and it is forgotten.

    Returns:
        the length of the gradient before clipping.

    Raises:
        DivergedError: the gradient is not a number; no weight has been touched.
    """
    gradient = Gradient.of(model, optimizers)
    norm = checked(float(gradient.norm))
    if longest is not None and norm > longest:
        forget_gradients(model, optimizers)
    else:
        move(optimizers, gradient, factor, clip_norm, norm)
    return norm


def move(
    optimizers: Sequence[torch.optim.Optimizer],
    gradient: Gradient,
    factor: float,
    clip_norm: float,
    norm: float | None,
) -> None:
    """Move the weights against a gradient, and forget it.

    Args:
        optimizers: each takes its own parameters.
        gradient: of all of them.
        factor: of the peak learning rate.
        clip_norm: longest gradient let through; 0 for any.
        norm: its length; None where nobody has looked.
    """
    gradient.shorten(clip_norm, norm)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def forget_gradients(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Let go what a step has gathered."""
    model.zero_grad(set_to_none=True)
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
