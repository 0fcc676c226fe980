"""Tells a tracker of a run: once, until Ctrl-C, or for as long as a training lasts."""

import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from nextword.base.errors import NextwordError, RunError
from nextword.prediction.loading import find_run
from nextword.rendering.formatting import argument
from nextword.track.follow import Follower
from nextword.watch.beside import Parent


def follow_run(name: str, tool: str, say: Callable[[str], None], *, forever: bool) -> str:
    """Tell a tracker what a run's journal holds; say how it went.

    Args:
        name: of the run, or its path, or `latest`.
        tool: the tracker's name.
        say: tells the user that it goes on.
        forever: go on with what is added, until Ctrl-C.

    Raises:
        NextwordError: there is no such run, or the tracker fails.
    """
    run = find_run(name)
    count, where = _follow(run, tool, say, threading.Event() if forever else None)
    return f"{tool} was told of {run.name}: {count:,} new events; look with: {where}"


def follow_parent(process: int, tool: str, say: Callable[[str], None]) -> None:
    """Tell a tracker of the run that another process trains, until that process ends.

    Ctrl-C reaches both; this one ends when the other has.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        os.nice(10)  # training comes first
    parent = Parent(process)
    run = parent.run()
    if run is not None:
        try:
            _follow(run, tool, say, parent.gone)
        except NextwordError as error:
            later = f"nextword track {argument(run.name)} --to {tool}"
            raise RunError(f"{error}; training goes on without it. Later: {later}") from None


def _follow(
    run: Path, tool: str, say: Callable[[str], None], until: threading.Event | None
) -> tuple[int, str]:
    try:
        follower = Follower(run, tool)
        try:
            if until is not None:
                say(f"{tool} is told of {run.name}; look with: {follower.where}")
            with contextlib.suppress(KeyboardInterrupt):
                follower.follow(until)
            return follower.count, follower.where
        finally:
            follower.close()
    except NextwordError:
        raise
    except Exception as error:  # a tool of others, which may raise anything
        words = re.sub(r"//[^/@\s]+@", "//…@", f"{type(error).__name__}: {error}")  # passwords
        raise RunError(f"{tool} failed: {words}"[:500]) from error
