"""Train a language model to predict the next word from nothing but text, and watch it learn."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nextword.api import Model, load, train

__all__ = ["Model", "load", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the public names only when they are used: importing nextword imports no torch."""
    if name in __all__:
        from nextword import api

        return getattr(api, name)
    raise AttributeError(f"module 'nextword' has no attribute {name!r}")
