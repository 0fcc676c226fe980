"""The live page in a notebook: served from a thread of it, shown in a frame.

from nextword.watch.notebook import watch
watch("stories-1")
"""

import threading
from html import escape
from types import TracebackType

from nextword.prediction.loading import find_run
from nextword.serve.options import ServeSettings
from nextword.serve.start import open_door
from nextword.watch.app import Watched, build

LOCAL = "127.0.0.1"


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
        import uvicorn

        folder = find_run(run)
        self.height = height
        self._door = open_door(LOCAL, 0)
        self.address = f"http://{LOCAL}:{self._door.getsockname()[1]}"
        settings = ServeSettings(port=self._door.getsockname()[1])
        config = uvicorn.Config(
            build(Watched(folder.parent, folder.name), settings), log_level="warning",
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._door]}, daemon=True
        )
        self._thread.start()

    def _repr_html_(self) -> str:
        """Draw the page in a frame."""
        return (
            f'<iframe src="{escape(self.address)}" width="100%" height="{self.height}" '
            'style="border:0" title="The run while it learns"></iframe>'
        )

    def close(self) -> None:
        """End it."""
        self._server.should_exit = True
        self._thread.join()
        self._door.close()

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
