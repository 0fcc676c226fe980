"""A program on a terminal of its own, and somebody who types."""

import contextlib
import os
import pty
import select
import signal
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

TAB, UP, CTRL_C, CTRL_D = "\t", "\x1b[A", "\x03", "\x04"


class Typed:
    """What stands between the two."""

    def __init__(self, child: int, terminal: int) -> None:
        self._child, self._terminal = child, terminal
        self.status: int | None = None
        self.shown = ""
        """Since something was typed last."""

    def type(self, words: str) -> None:
        """Press keys."""
        self.shown = ""
        os.write(self._terminal, words.encode())

    def until(self, words: str) -> str:
        """Read until some words are shown, for two minutes at most; return what was since a key."""
        until = time.monotonic() + 120
        while words not in self.shown:
            assert time.monotonic() < until, f"no {words!r} in {self.shown!r}"
            if select.select([self._terminal], [], [], 1)[0]:
                try:
                    self.shown += os.read(self._terminal, 1 << 16).decode(errors="replace")
                except OSError:  # it has ended
                    assert words in self.shown, f"no {words!r} in {self.shown!r}"
        return self.shown

    def ends_on(self, keys: str) -> int:
        """Press keys until the program has ended, as a person would; return its status.

        Where a signal comes just before Python waits for a key, it is acted upon with the next one.
        """
        for _ in range(60):
            self.type(keys)
            until = time.monotonic() + 2
            while self.status is None and time.monotonic() < until:
                self._look()
            if self.status is not None:
                return self.status
        raise AssertionError(f"it does not end: {self.shown!r}")

    def ends(self) -> int:
        """Wait until the program has ended; return its status."""
        until = time.monotonic() + 120
        while self.status is None:
            assert time.monotonic() < until, self.shown
            self._look()
        return self.status

    def _look(self) -> None:
        with contextlib.suppress(OSError):
            if select.select([self._terminal], [], [], 0.1)[0]:
                self.shown += os.read(self._terminal, 1 << 16).decode(errors="replace")
        process, status = os.waitpid(self._child, os.WNOHANG)
        if process:
            self.status = os.waitstatus_to_exitcode(status)


@contextlib.contextmanager
def typing(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, columns: int = 80
) -> Iterator[Typed]:
    """Start a program on a terminal so wide; it is ended with the context."""
    child, terminal = pty.fork()
    if not child:
        termios.tcsetwinsize(0, (24, columns))
        os.chdir(folder)
        os.execve(command[0], list(command), dict(environment))
    typed = Typed(child, terminal)
    try:
        yield typed
    finally:
        if typed.status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(terminal)
