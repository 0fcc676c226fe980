"""Base of the optimizers here: torch's, without importing torch's compiler."""

import inspect
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch

from nextword.machine.parts import part_of, whole_shape


class EagerOptimizer(torch.optim.Optimizer):
    """An optimizer whose first use imports no `torch._dynamo`.

    torch wraps these methods such that the compiler is imported only to be told to leave them
    alone. That takes 1.3 to 3 seconds, longer than it takes to prepare a megabyte of text. Nothing
    here is compiled; who compiles a step of his own has imported it.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)

    LIKE_WEIGHT: ClassVar[tuple[str, ...]] = ()
    """Names of what is kept of each weight in its shape."""
    SINGLE: ClassVar[tuple[str, ...]] = ()
    """Names of single numbers that are kept of each weight."""

    def kept_shapes(self, weight: torch.Tensor) -> dict[str, torch.Size]:
        """Return the shapes of all that is kept of a weight once it was moved, by name."""
        if known := self.state.get(weight):
            return {name: part_of(value, weight).shape for name, value in known.items()}
        single = dict.fromkeys(self.SINGLE, torch.Size())
        return {**dict.fromkeys(self.LIKE_WEIGHT, whole_shape(weight)), **single}

    def own_gradients(self) -> list[torch.Tensor]:
        """Return the gradients that it gathers itself, of what is no weight of the network."""
        return []

    @abstractmethod
    def move(self, group: dict[str, Any]) -> None:
        """Move the weights of a parameter group that have a gradient."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the weights that have a gradient; return what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self.move(group)
        return loss
