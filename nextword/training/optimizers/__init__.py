"""Optimizers, one file each, found by looking into this folder.

Each sees parameter groups, never model classes.

An optimizer's module offers

    build    (groups, settings) → list of torch optimizers;
             groups are {"matrices" | "embeddings" | "vectors": {name: weight}}
"""

import importlib
import pkgutil
from typing import Any

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


HEADS = frozenset(("lm_head", "score", "classifier"))


def groups_of(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    """Sort any module's parameters by what an optimizer needs to know of them.

    Returns:
        "embeddings": the tables of `nn.Embedding`s, and heads by their usual names (lm_head, score,
        classifier); "matrices": all others with two dimensions; "vectors": the rest. A shared
        parameter stands once.
    """
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    groups: dict[str, dict[str, nn.Parameter]] = {"matrices": {}, "embeddings": {}, "vectors": {}}
    for name, weight in model.named_parameters():
        is_table = id(weight) in tables or not HEADS.isdisjoint(name.split("."))
        kind = "embeddings" if is_table else "matrices" if weight.ndim == 2 else "vectors"
        groups[kind][name] = weight
    return groups


def optimizers_for(model: nn.Module, **settings: Any) -> list[torch.optim.Optimizer]:
    """Build optimizers for a loop of one's own: each has `step`, `zero_grad` and `param_groups`.

    Args:
        model: any module.
        **settings: as of `--training`: optimizer ("muon" or "adamw"), learning_rate,
            matrix_learning_rate, weight_decay, beta1, beta2.

    Raises:
        SettingsError: there is no such optimizer.
    """
    return build_optimizers(groups_of(model), TrainingSettings(**settings))
