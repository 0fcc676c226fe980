"""Train a language model to predict the next word from nothing but text, and watch it learn."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nextword.api import Model, load, train
    from nextword.loss.linear import linear_cross_entropy

__all__ = ["Model", "linear_cross_entropy", "load", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the public names only when they are used: importing nextword imports no torch."""
    if name == "linear_cross_entropy":
        from nextword.loss.linear import linear_cross_entropy

        return linear_cross_entropy
    if name in __all__:
        from nextword import api

        return getattr(api, name)
    raise AttributeError(f"module 'nextword' has no attribute {name!r}")
