"""AdamW for every parameter. Source: Loshchilov & Hutter 2019."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nextword.machine.parts import own_rows
from nextword.training.eager_optimizer import EagerOptimizer
from nextword.training.options import TrainingSettings

EPS = 1e-8


def build(
    groups: dict[str, dict[str, nn.Parameter]], settings: TrainingSettings
) -> list[torch.optim.Optimizer]:
    """Decay matrices only; embeddings and vectors keep their size."""
    parts = [
        {
            "params": list(weights.values()),
            "weight_decay": settings.weight_decay if kind == "matrices" else 0.0,
        }
        for kind, weights in groups.items()
        if weights
    ]
    return [AdamW(parts, settings.rate, (settings.beta1, settings.beta2))] if parts else []


class AdamW(EagerOptimizer):
    """Move each weight by the mean of its gradient, divided by the root of the mean square.

    What `torch.optim.AdamW(fused=True)` does, to the last bit, with its kernel and its state.
    """

    LIKE_WEIGHT = ("exp_avg", "exp_avg_sq")
    SINGLE = ("step",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = EPS,
        weight_decay: float = 0.0,
    ) -> None:
        """Take the weights.

        Args:
            params: weights, or groups of them.
            lr: of the step; a weight moves by about so much.
            betas: of the running means of gradient and square.
            eps: added under the division.
            weight_decay: decoupled: each step takes `lr · weight_decay` of the weights off.
        """
        told = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**told, "fused": True})

    def move(self, group: dict[str, Any]) -> None:
        """Move a group's weights, those of one device and type together."""
        alike: dict[Any, list[Tensor]] = defaultdict(list)
        for weight in group["params"]:
            if weight.grad is not None:
                alike[weight.device, weight.dtype].append(weight)
        for weights in alike.values():
            self._move(weights, group)

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Move weights of one device and type."""
        states = [self.state[weight] for weight in weights]
        for weight, state in zip(weights, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=weight.device)
                state["exp_avg"] = torch.zeros_like(own_rows(weight))
                state["exp_avg_sq"] = torch.zeros_like(own_rows(weight))
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        beta1, beta2 = group["betas"]
        torch._fused_adamw_(
            [own_rows(weight) for weight in weights],
            [own_rows(weight.grad) for weight in weights if weight.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )
