"""What every tracker is told of a run, and how one is opened."""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nextword.base.errors import SettingsError

PACKAGES = {
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "trackio": ("trackio",),
}
"""What each needs to be installed."""
PROJECT = "nextword"
"""Under which runs stand, where the tracker's own variables do not say another."""
Value = str | int | float | bool | None


@dataclass(frozen=True)
class Known:
    """A run, as a tracker is told of it."""

    folder: Path
    name: str
    began: float
    """Seconds since 1970."""
    settings: Mapping[str, Value]
    """All of its settings, and what was derived from them, by dotted names."""


class Tracker(Protocol):
    """One tool's side of a run; steps never go back."""

    id: str
    """By which the tool knows the run, so that it is the same one when it goes on."""
    where: str
    """How its page is opened."""

    def numbers(self, step: int, when: float, values: Mapping[str, float]) -> None:
        """Take figures of one step; when: seconds since 1970."""

    def words(self, step: int, when: float, name: str, text: str) -> None:
        """Take a text of one step."""

    def page(self, step: int, when: float, name: str, html: str, markdown: str) -> None:
        """Take a picture of one step in the form that the tool can show."""

    def forget(self) -> bool:
        """Forget all that was taken, for it is told anew; False where the tool cannot."""

    def flush(self) -> None:
        """Have all that was taken by now kept."""

    def close(self, *, ended: bool) -> None:
        """Keep all; ended: the run came to its end, and will not go on by itself."""


class Opener(Protocol):
    """What the module of a tool's name has as `open_run`."""

    def __call__(self, known: Known, folder: Path, id_: str | None) -> Tracker:
        """Begin a run, or go on with one.

        Args:
            known: of the run.
            folder: for what the tool keeps beside the run.
            id_: of the run that the tool knows already; None begins a new one.
        """


def check_tool(tool: str) -> None:
    """Look whether a tracker can be used at all, without importing it.

    Raises:
        SettingsError: it is unknown or not installed.
    """
    if tool not in PACKAGES:
        raise SettingsError(f"no tracker {tool!r}; there are {', '.join(PACKAGES)}")
    missing = [name for name in PACKAGES[tool] if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"{tool} needs the package {missing[0]}: pip install 'nextword[{tool}]'"
        )


def opener(tool: str) -> Opener:
    """Import a tracker.

    Raises:
        SettingsError: it is unknown or not installed.
    """
    check_tool(tool)
    found: Opener = importlib.import_module(f"nextword.track.{tool}").open_run
    return found
