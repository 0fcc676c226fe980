"""AdamW for every parameter. Source: Loshchilov & Hutter 2019."""

import torch
from torch import nn

from nextword.training.options import TrainingSettings


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
    if not parts:
        return []
    return [
        torch.optim.AdamW(
            parts, lr=settings.rate, betas=(settings.beta1, settings.beta2), fused=True
        )
    ]
