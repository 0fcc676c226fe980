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

    def ends(self) -> int:
        """Wait until the program has ended; return its status."""
        until = time.monotonic() + 120
        while self.status is None:
            assert time.monotonic() < until, self.shown
            with contextlib.suppress(OSError):
                if select.select([self._terminal], [], [], 0.1)[0]:
                    self.shown += os.read(self._terminal, 1 << 16).decode(errors="replace")
            process, status = os.waitpid(self._child, os.WNOHANG)
            if process:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status


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
