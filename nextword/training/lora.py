"""LoRA: each matrix moves by the product of two thin ones, W + α/r · B·A. Source: Hu et al. 2021.

What is kept for a step is so small that a network can be taught whose full training would not fit:
no optimizer state but that of A and B, and of each matrix's gradient only what it says of them.
The network itself does not change: its weights are the sum at every moment, so a checkpoint is a
model folder like any other, and nothing has to be merged.

Legend of shapes: O outputs, I inputs of a matrix, r rank.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nextword.training.eager_optimizer import EagerOptimizer
from nextword.training.optimizers.adamw import EPS
from nextword.training.options import TrainingSettings

A, B, SCALE = "lora_A", "lora_B", "lora_scale"
"""Of a matrix's state in a checkpoint: (r, I), (O, r), and α/r."""


class LoRA(EagerOptimizer):
    """AdamW for the A and B of each matrix."""

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        settings: TrainingSettings,
        rank: int,
        alpha: float,
    ) -> None:
        """Begin with a product of zero: A drawn as `nn.Linear` draws its weights, B zeros.

        Args:
            matrices: (O, I) each; their gradients are taken as they come, and forgotten.
            settings: rate, weight decay, running means and the seed of A.
            rank: r.
            alpha: α, by which the product is multiplied, over r.
        """
        told = {
            "lr": settings.rate,
            "betas": (settings.beta1, settings.beta2),
            "eps": EPS,
            "weight_decay": settings.weight_decay,
        }
        super().__init__(matrices, {**told, "fused": True})
        for group in self.param_groups:
            group["peak"] = group["lr"]
        self._gathered: dict[nn.Parameter, dict[str, Tensor]] = {}
        draw = torch.Generator().manual_seed(settings.seed)
        for weight in self._matrices():
            outputs, inputs = weight.shape
            first = torch.rand(rank, inputs, generator=draw).mul_(2).sub_(1).div_(math.sqrt(inputs))
            pair = {
                A: first.to(weight.device, weight.dtype),
                B: weight.detach().new_zeros(outputs, rank),
            }
            means = {
                f"{name}/{mean}": torch.zeros_like(part)
                for name, part in pair.items()
                for mean in ("exp_avg", "exp_avg_sq")
            }
            scale = torch.tensor(alpha / rank, device=weight.device)
            step = torch.zeros((), device=weight.device)
            self.state[weight] = {**pair, **means, SCALE: scale, "step": step}
            weight.register_post_accumulate_grad_hook(self._take)  # type: ignore[no-untyped-call]

    def _matrices(self) -> list[nn.Parameter]:
        return [weight for group in self.param_groups for weight in group["params"]]

    @torch.no_grad()
    def _take(self, weight: nn.Parameter) -> None:
        """Turn a matrix's gradient G into those of A and B, and let it go.

        dA = α/r · Bᵀ·G and dB = α/r · G·Aᵀ; of the parts of a step they add up as G does.
        """
        gradient, state = weight.grad, self.state[weight]
        if gradient is None:
            return
        scale = float(state[SCALE])
        found = {A: scale * (state[B].T @ gradient), B: scale * (gradient @ state[A].T)}
        gathered = self._gathered.setdefault(weight, {})
        for name, part in found.items():
            gathered[name] = gathered[name] + part if name in gathered else part
        weight.grad = None

    def own_gradients(self) -> list[Tensor]:
        """Return the gradients of all A and B, which stand at no weight."""
        return [part for gathered in self._gathered.values() for part in gathered.values()]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        super().zero_grad(set_to_none)
        self._gathered.clear()

    def move(self, group: dict[str, Any]) -> None:
        """Move A and B, and each matrix by what their product has changed."""
        for weight in group["params"]:
            gathered, state = self._gathered.get(weight), self.state[weight]
            if gathered is None:
                continue
            before = {name: state[name].clone() for name in (A, B)}
            state["step"] += 1
            beta1, beta2 = group["betas"]
            torch._fused_adamw_(
                [state[name] for name in (A, B)],
                [gathered[name] for name in (A, B)],
                [state[f"{name}/exp_avg"] for name in (A, B)],
                [state[f"{name}/exp_avg_sq"] for name in (A, B)],
                [],
                [state["step"], state["step"]],
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )
            # B'·A' − B·A in two small parts: each is exact where their difference would not be.
            scale = float(state[SCALE])
            weight.addmm_(state[B] - before[B], state[A], alpha=scale)
            weight.addmm_(before[B], state[A] - before[A], alpha=scale)


def adapt(
    groups: Mapping[str, Mapping[str, nn.Parameter]],
    settings: TrainingSettings,
    rank: int,
    alpha: float,
) -> LoRA:
    """Let the matrices move by LoRA, and nothing else of the groups at all.

    Args:
        groups: as `groups_of` gives them.
        settings: how.
        rank: r.
        alpha: α.
    """
    for kind, weights in groups.items():
        for weight in weights.values():
            weight.requires_grad_(kind == "matrices")
    return LoRA(groups["matrices"].values(), settings, rank, alpha)


def bytes_of(groups: Mapping[str, Mapping[str, nn.Parameter]], rank: int) -> int:
    """Bound what training keeps beside the weights: A and B six times, and the largest gradient."""
    matrices = [weight.shape for weight in groups["matrices"].values()]
    thin = sum(rank * (outputs + inputs) for outputs, inputs in matrices)
    largest = max((outputs * inputs for outputs, inputs in matrices), default=0)
    return 4 * (6 * thin + 2 * largest)
