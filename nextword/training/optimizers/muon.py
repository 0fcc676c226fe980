"""Muon for hidden matrices, AdamW for embeddings and vectors. Source: Jordan et al. 2024."""

import torch
from torch import nn

from nextword.training.optimizers import adamw
from nextword.training.options import TrainingSettings


def build(
    groups: dict[str, dict[str, nn.Parameter]], settings: TrainingSettings
) -> list[torch.optim.Optimizer]:
    """Give matrices to `torch.optim.Muon` and the rest to AdamW."""
    rest = {kind: weights for kind, weights in groups.items() if kind != "matrices"}
    muon = torch.optim.Muon(
        groups["matrices"].values(),
        lr=settings.matrix_rate,
        weight_decay=settings.weight_decay,
    )
    return [muon, *adamw.build(rest, settings)]
