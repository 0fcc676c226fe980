"""The live page in a notebook: served from a thread of it, shown in a frame.

from nextword.watch.notebook import watch
watch("stories-1")
"""

import contextlib
from html import escape
from types import TracebackType

from nextword.prediction.loading import find_run
from nextword.serve.doors import in_thread
from nextword.serve.options import ServeSettings
from nextword.watch.app import Watched, build


class Page:
    """A page at work; a notebook draws it, `close` ends it."""

    def __init__(self, run: str = "latest", height: int = 700) -> None:
        """Serve a run's page on a free port of this machine.

        Args:
            run: its name or path, or `latest`.
            height: of the frame, in pixels.

        Raises:
            RunError: there is no such run.
        """
        folder = find_run(run)
        self.height = height
        self._open = contextlib.ExitStack()
        app = build(Watched(folder.parent, folder.name), ServeSettings())
        self.address = self._open.enter_context(in_thread(app))

    def _repr_html_(self) -> str:
        """Draw the page in a frame."""
        return (
            f'<iframe src="{escape(self.address)}" width="100%" height="{self.height}" '
            'style="border:0" title="The run while it learns"></iframe>'
        )

    def close(self) -> None:
        """End it."""
        self._open.close()

    def __enter__(self) -> "Page":
        """Use it for as long as a block lasts."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it with the block."""
        self.close()


def watch(run: str = "latest", height: int = 700) -> Page:
    """Show a run while it learns, as `nextword watch` does."""
    return Page(run, height)
