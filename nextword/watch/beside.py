"""Processes beside a training that follow its run: the live page, trackers.

They are told which run it is, and end when the training does: then the pipe that they listen to is
closed. What happens to them never reaches the training.
"""

import atexit
import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

from nextword.base.writer import holder_of
from nextword.prediction.loading import list_runs

LOOK_SECONDS = 0.5
"""Between two looks whether a process has begun a run."""
LAST_WORDS_SECONDS = 60.0
"""For which one that has something left to tell is waited for."""


def start(*words: str, waits: bool = False) -> None:
    """Start one, for the run that this process is about to train.

    Args:
        *words: of the command; --of and this process' number are added.
        waits: let it finish before this process ends.
    """
    command = [sys.executable, "-m", "nextword", *words, "--of", str(os.getpid())]
    _started.append((subprocess.Popen(command, stdin=subprocess.PIPE), waits))


_started: list[tuple["subprocess.Popen[bytes]", bool]] = []
"""Kept, for what nobody holds is closed."""


def tell(run: Path) -> None:
    """Tell them which run it was, for one of a few steps may be over before they have found it."""
    for process, _ in _started:
        with contextlib.suppress(OSError, ValueError):
            assert process.stdin is not None
            process.stdin.write(f"{run}\n".encode())
            process.stdin.flush()


@atexit.register
def _end() -> None:
    for process, _ in _started:
        with contextlib.suppress(OSError):
            assert process.stdin is not None
            process.stdin.close()
    for process, waits in _started:
        if waits:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LAST_WORDS_SECONDS)


class Parent:
    """The training beside which this process was started, as it is seen from here."""

    def __init__(self, process: int) -> None:
        """Listen to it.

        Args:
            process: its number.
        """
        self.process = process
        self.gone = threading.Event()
        """Set when it has ended."""
        self._told: Path | None = None
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in sys.stdin.buffer:
                self._told = Path(os.fsdecode(line.rstrip(b"\n")))
        self.gone.set()

    def run(self) -> Path | None:
        """Wait for its run; None where it ended without one."""
        while not self.gone.wait(LOOK_SECONDS) and self._told is None:
            for run in list_runs():
                if (holder_of(run) or {}).get("process") == self.process:
                    return run
        return self._told
