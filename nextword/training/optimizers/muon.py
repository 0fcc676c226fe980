"""Muon for hidden matrices, AdamW for embeddings and vectors. Source: Jordan et al. 2024."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nextword.machine.device import has_bfloat16
from nextword.training.optimizers import adamw
from nextword.training.options import TrainingSettings


def build(
    groups: dict[str, dict[str, nn.Parameter]], settings: TrainingSettings
) -> list[torch.optim.Optimizer]:
    """Give matrices to Muon, in the precision that is fast where they lie, the rest to AdamW."""
    rest = {kind: weights for kind, weights in groups.items() if kind != "matrices"}
    matrices = list(groups["matrices"].values())
    fast = all(has_bfloat16(device) for device in {weight.device for weight in matrices})
    muon = (torch.optim.Muon if fast else Float32Muon)(
        matrices,
        lr=settings.matrix_rate,
        weight_decay=settings.weight_decay,
    )
    return [muon, *adamw.build(rest, settings)]


class Float32Muon(torch.optim.Muon):
    """`torch.optim.Muon`, whose products are in bfloat16, with products in float32.

    On Zen 3 cores, which have no bfloat16, a product of 384 × 128 matrices takes 16 times as long
    in it, and 0.5 of a step's 0.75 seconds of the default run went into that.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move each matrix against its momentum, made orthogonal."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)
        return loss

    def _move(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"]
        momentum.lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        update = orthogonal(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rows, columns = weight.shape
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(update, alpha=-group["lr"] * math.sqrt(max(1.0, rows / columns)))


def orthogonal(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, epsilon: float
) -> Tensor:
    """Bring all singular values near 1, by Newton–Schulz steps in the matrix's own precision."""
    a, b, c = coefficients
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=epsilon)
    for _ in range(steps):
        square = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(square, square, square, beta=b, alpha=c), wide, beta=a)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide
