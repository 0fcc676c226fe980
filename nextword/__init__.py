"""Train a language model to predict the next word from nothing but text, and watch it learn."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nextword.api import train
    from nextword.language_model import Model, load
    from nextword.loss.linear import linear_cross_entropy

_PLACES = {
    "Model": "language_model",
    "linear_cross_entropy": "loss.linear",
    "load": "language_model",
    "train": "api",
}
"""Where each public name is defined; it is imported when it is first used."""
__all__ = ["Model", "linear_cross_entropy", "load", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a public name only when it is used: importing nextword imports no torch."""
    if name not in _PLACES:
        raise AttributeError(f"module 'nextword' has no attribute {name!r}")
    return getattr(importlib.import_module(f"nextword.{_PLACES[name]}"), name)
