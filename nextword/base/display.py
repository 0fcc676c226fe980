"""The hook for `print` and notebooks (`_repr_html_`): renderers register here, data knows none."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Renderers(NamedTuple):
    """What draws one kind of data."""

    text: Callable[[Any], str]
    html: Callable[[Any], str]


_registered: dict[type, Renderers] = {}


def register(kind: type, text: Callable[[Any], str], html: Callable[[Any], str]) -> None:
    """Say what draws a kind of data, for `print` and for notebooks.

    Args:
        kind: a subclass of `Displayable`.
        text: draws it for a terminal.
        html: draws it for a notebook.
    """
    _registered[kind] = Renderers(text, html)


class Displayable:
    """Data that `print` and notebooks draw, where something is registered that draws it."""

    def __str__(self) -> str:
        """Draw itself for a terminal."""
        found = _registered.get(type(self))
        return repr(self) if found is None else found.text(self)

    def _repr_html_(self) -> str | None:
        """Draw itself in a notebook; None, where nothing draws it, lets it show its repr."""
        found = _registered.get(type(self))
        return None if found is None else found.html(self)
