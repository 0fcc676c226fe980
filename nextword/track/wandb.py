"""Weights & Biases: kept beside the run and sent nowhere, unless WANDB_MODE says otherwise."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import wandb

from nextword.track.tracker import PROJECT, Known


class WandB:
    """One run of wandb's; offline it writes a folder each time, and `wandb sync` joins them."""

    def __init__(self, known: Known, folder: Path, id_: str | None) -> None:
        """Begin a run, or go on with it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._began, self._highest = known.began, 0
        self.id = id_ or uuid.uuid4().hex[:12]
        mode = os.environ.get("WANDB_MODE", "offline")
        self.where = f"wandb sync {folder}/wandb/*run-*" if mode == "offline" else "wandb's page"
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=known.name,
            id=self.id,
            resume="allow",
            mode=cast(Any, mode),  # wandb itself says which there are
            dir=str(folder),
            config=dict(known.settings),
            settings=wandb.Settings(
                silent=True, console="off", disable_code=True, disable_git=True,
                x_disable_stats=True,
            ),
        )  # fmt: skip

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        """Log at a step, or the highest so far: wandb drops what goes back, as a rollback does."""
        self._highest = max(self._highest, step)
        self._run.log(dict(values), step=self._highest)

    def numbers(self, step: int, when: float, values: Mapping[str, float]) -> None:
        """Take figures of one step, with the journal's time among them."""
        self._log(step, {**values, "seconds": when - self._began})

    def words(self, step: int, when: float, name: str, text: str) -> None:
        """Take a text."""
        del when
        self._log(step, {name: wandb.Html(f"<pre>{_plain(text)}</pre>")})

    def page(self, step: int, when: float, name: str, html: str, markdown: str) -> None:
        """Take the colored sentences."""
        del when, markdown
        self._log(step, {name: wandb.Html(html)})

    def forget(self) -> bool:
        """What it has it keeps."""
        return False

    def flush(self) -> None:
        """It keeps what it takes by itself."""

    def close(self, *, ended: bool) -> None:
        """End wandb's process; a run that has not ended may go on later."""
        del ended
        self._run.finish()


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


open_run = WandB
