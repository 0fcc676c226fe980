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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nextword.base.writer import holder_of
from nextword.prediction.loading import list_runs
from nextword.rendering.formatting import argument

LOOK_SECONDS = 0.5
"""Between two looks whether a process has begun a run."""
LAST_WORDS_SECONDS = 60.0
"""For which one that has something left to tell is waited for."""


def start(*words: str, say: Callable[[str], None] | None = None) -> None:
    """Start one, for the run that this process is about to train.

    Args:
        *words: of the command; --of and this process' number are added.
        say: where given it is let finish before this process ends, and told where it does not.
    """
    command = [sys.executable, "-m", "nextword", *words, "--of", str(os.getpid())]
    _started.append(_Beside(subprocess.Popen(command, stdin=subprocess.PIPE), words, say))


@dataclass(frozen=True)
class _Beside:
    process: "subprocess.Popen[bytes]"
    words: tuple[str, ...]
    say: Callable[[str], None] | None

    def ends(self) -> str:
        """Wait until it has ended; say what went wrong that it could not say itself, if so."""
        try:
            status = self.process.wait(LAST_WORDS_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return f"did not come to its end within {LAST_WORDS_SECONDS:.0f} s and was ended"
        except KeyboardInterrupt:
            self.process.kill()
            return "was ended before its end"
        # What fails by itself says why; who is ended from outside cannot.
        return f"was ended by signal {-status}" if status < 0 else ""


_started: list[_Beside] = []
"""Kept, for what nobody holds is closed."""
_runs: list[Path] = []


def tell(run: Path) -> None:
    """Tell them which run it was, for one of a few steps may be over before they have found it."""
    _runs.append(run)
    for one in _started:
        with contextlib.suppress(OSError, ValueError):
            assert one.process.stdin is not None
            one.process.stdin.write(f"{run}\n".encode())
            one.process.stdin.flush()


@atexit.register
def _end() -> None:
    for one in _started:
        with contextlib.suppress(OSError):
            assert one.process.stdin is not None
            one.process.stdin.close()
    for one in _started:
        if one.say and (why := one.ends()):
            name = argument(_runs[-1].name) if _runs else "RUN"
            command = " ".join(word for word in one.words if word != "--quiet")
            later = command.replace("track", f"track {name}", 1)
            one.say(
                f"nextword {command}, beside this training, {why}; the run itself is whole. "
                f"Later: nextword {later}"
            )


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
