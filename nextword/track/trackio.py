"""Trackio: on this machine, unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL says where."""

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # both are read when it is imported
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import trackio

from nextword.track.tracker import PROJECT, Known


class Trackio:
    """One run of Trackio's, which knows it by its name."""

    def __init__(self, known: Known, folder: Path, id_: str | None) -> None:
        """Begin a run, or go on with it."""
        del folder  # it keeps all runs in one place: TRACKIO_DIR
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self.id = id_ or known.name
        self.where = f"trackio show --project {project}"
        with _silent():
            self._run: Any = trackio.init(
                project=project,
                name=self.id,
                config={name: value for name, value in known.settings.items() if value is not None},
                resume="never" if id_ is None else "allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self.id, self._began = str(self._run.name), known.began

    def numbers(self, step: int, when: float, values: Mapping[str, float]) -> None:
        """Take figures of one step, with the journal's time among them."""
        self._run.log({**values, "seconds": when - self._began}, step=step)

    def words(self, step: int, when: float, name: str, text: str) -> None:
        """Take a text, shown as it stands."""
        del when
        self._run.log({name: trackio.Markdown("    " + text.replace("\n", "\n    "))}, step=step)

    def page(self, step: int, when: float, name: str, html: str, markdown: str) -> None:
        """Take the tables."""
        del when, html
        self._run.log({name: trackio.Markdown(markdown)}, step=step)

    def forget(self) -> bool:
        """What it has it keeps."""
        return False

    def flush(self) -> None:
        """It keeps what it takes by itself, within a second."""

    def close(self, *, ended: bool) -> None:
        """Wait until all is kept."""
        del ended
        with _silent():
            cast(Any, trackio).finish()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()):
        yield


open_run = Trackio
