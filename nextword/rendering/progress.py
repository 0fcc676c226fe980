"""Progress of a run on the screen: a bar in a terminal, lines elsewhere."""

import sys
import time
from typing import Any

from nextword.base.terminal import for_stream, visible


class Progress:
    """Plain lines; a progress bar where standard error is a terminal."""

    LINE_SECONDS = 10.0

    def __init__(self, *, quiet: bool = False, terminal: bool | None = None) -> None:
        """Look where the output goes.

        Args:
            quiet: say nothing at all.
            terminal: draw a bar; default: whether standard error is a terminal.
        """
        self.quiet = quiet
        self.terminal = sys.stderr.isatty() if terminal is None else terminal
        self._progress: Any = None
        self._task: Any = None
        self._last_line = time.monotonic()

    def say(self, text: str = "") -> None:
        """Write lines."""
        if self.quiet:
            return
        if self._progress is not None:
            plain = {"markup": False, "highlight": False, "soft_wrap": True}
            self._progress.console.print(visible(text), **plain)
        else:
            sys.stderr.write(for_stream(f"{text}\n", sys.stderr))
            sys.stderr.flush()

    def start(self, steps: int, done: int) -> None:
        """Begin the bar."""
        if self.quiet or not self.terminal:
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TextColumn("{task.fields[speed]:,.0f} tokens/s"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._progress.start()
        self._task = self._progress.add_task(
            "training", total=steps, completed=done, loss=float("nan"), speed=0.0
        )

    def step(self, step: int, steps: int, loss: float, speed: float, batch_tokens: int) -> None:
        """Move the bar on; where there is none, write a line now and then."""
        if self._progress is not None:
            self._progress.update(self._task, total=steps, completed=step, loss=loss, speed=speed)
        elif not self.quiet and time.monotonic() - self._last_line > self.LINE_SECONDS:
            self._last_line = time.monotonic()
            left = duration((steps - step) * batch_tokens / speed)
            self.say(
                f"step {step:,} of {steps:,}: loss {loss:.3f}, {speed:,.0f} tokens/s, {left} left"
            )

    def stop(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def duration(seconds: float) -> str:
    """Say a time span in plain words."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
