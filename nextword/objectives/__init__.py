"""Training objectives: causal, masked, labels, answers; one file each.

Each offers `OBJECTIVE`, which declares how targets are made, where a position may look, the head,
the loss, what is measured, and in which layouts its model folders are written.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from nextword.base.errors import SettingsError
from nextword.base.options import nearest

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One way of asking a network."""

    name: str
    asks: str
    """The question, in one sentence."""
    supervised: bool
    """Whether a person prepared the answers; else the text itself holds them."""
    attention: Literal["before", "both", "as begun"]
    """Where a position may look: at what stands before it, at both sides, or as in the network
    that training began with."""
    head: Literal["vocabulary", "labels"]
    loss: tuple[str, ...]
    metrics: tuple[str, ...]
    """Names of the figures that an evaluation gives, the loss first."""
    layouts: tuple[str, ...]
    """Names of the network's layout as config.json gives them."""
    make_batch: Callable[..., Any]
    """Makes inputs and targets out of text or examples; each file says of what."""
    documents: "Callable[[Tensor, int], Tensor] | None" = None
    """(ids (B, T), end-of-text) → numbers (B, T), never falling: the document that each position
    belongs to, beyond which it does not look."""
    cannot: Mapping[str, str] = field(default_factory=dict)
    """What can not be asked of such a model: the verb, and why."""


def names() -> list[str]:
    """List the objectives there are."""
    return sorted(entry.name for entry in pkgutil.iter_modules(__path__) if entry.name != "options")


def find_objective(name: str) -> Objective:
    """Find an objective by its name.

    Raises:
        SettingsError: names those there are.
    """
    if name not in names():
        raise SettingsError(
            f"objective.name = {name!r}: choose one of {', '.join(names())}."
            + nearest(name, names())
        )
    found: Objective = importlib.import_module(f"{__name__}.{name}").OBJECTIVE
    return found


def objective_of(layout: str) -> Objective:
    """Return the objective that a layout of model folder is of, where nothing else is known."""
    found = (find_objective(name) for name in names())
    # A causal network may have been trained on answers too; as a folder alone it is causal.
    fitting = [objective for objective in found if layout in objective.layouts]
    fitting = fitting or [find_objective("causal")]
    return next((one for one in fitting if not one.supervised), fitting[0])
