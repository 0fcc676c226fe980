"""Optimizers, one file each, found by looking into this folder.

Each sees parameter groups, never model classes.

An optimizer's module offers

    build    (groups, settings) → list of torch optimizers;
             groups are {"matrices" | "embeddings" | "vectors": {name: weight}}
"""

import importlib
import pkgutil

import torch
from torch import nn

from nextword.base.errors import SettingsError
from nextword.base.options import nearest
from nextword.training.options import TrainingSettings


def names() -> list[str]:
    """List the optimizers there are."""
    return sorted(entry.name for entry in pkgutil.iter_modules(__path__))


def check_name(settings: TrainingSettings) -> None:
    """Refuse an optimizer that is not there.

    Raises:
        SettingsError: names those there are.
    """
    if settings.optimizer not in names():
        raise SettingsError(
            f"training.optimizer = {settings.optimizer!r}: choose one of {', '.join(names())}."
            + nearest(settings.optimizer, names())
        )


def build_optimizers(
    groups: dict[str, dict[str, nn.Parameter]], settings: TrainingSettings
) -> list[torch.optim.Optimizer]:
    """Build the optimizers that the settings name; every group remembers its peak rate as `peak`.

    Raises:
        SettingsError: there is no such optimizer.
    """
    check_name(settings)
    module = importlib.import_module(f"{__name__}.{settings.optimizer}")
    built: list[torch.optim.Optimizer] = module.build(groups, settings)
    for optimizer in built:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return built
