"""The hooks for `print` and notebooks: renderers register here, data knows none."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from nextword.base.errors import RunError


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


class Watchable:
    """What has `opened`, a model whose run can be watched in a notebook."""

    def watch(self, height: int = 700) -> Any:
        """Show its run while it learns, as `nextword watch` does; `close()` ends it.

        Args:
            height: of the frame, in pixels.

        Raises:
            RunError: it belongs to no run, or what serves pages is not installed.
        """
        opened = vars(self)["opened"]
        if opened.run is None:
            raise RunError(f"{opened.name}: a model folder without a run; nothing to watch")
        try:
            page = import_module("nextword.watch.notebook")  # a room that this one knows nothing of
        except ModuleNotFoundError as error:
            raise RunError(
                f"watching needs the package {error.name}: pip install 'nextword[serve]'"
            ) from None
        return page.watch(str(opened.run), height)
