"""A folder of a test's own, and the program at work in it: in this process or in another."""

import contextlib
import io
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import forked


@dataclass(frozen=True)
class Place:
    """A folder with its own runs and its own cache."""

    folder: Path

    def variables(self) -> dict[str, str]:
        """What the program is told of this place."""
        return {
            "NEXTWORD_CACHE": str(self.folder / "cache"),
            "NEXTWORD_RUNS": str(self.folder / "runs"),
            "NO_COLOR": "1",
        }

    def environment(self) -> dict[str, str]:
        """The environment of a process that works here."""
        return {**os.environ, **self.variables(), "PYTHONWARNINGS": ""}

    @contextlib.contextmanager
    def entered(self) -> Iterator[pytest.MonkeyPatch]:
        """Work here, for what is called in this process."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.variables().items():
                patch.setenv(name, value)
            patch.chdir(self.folder)
            yield patch

    def nextword(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run a command in this process: as `process` does, without starting Python and torch.

        What a command changes of the process is put back, so that the next one finds it new.
        """
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="") for _ in range(2))
        with _as_if_new(self, out, err):
            status = _status_of(arguments)
            for stream in (out, err):
                stream.flush()
        said = (stream.buffer.getvalue().decode("utf-8") for stream in (out, err))
        return subprocess.CompletedProcess(arguments, status, *said)

    def process(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        timeout: float | None = 600,
        starts: bool = False,
    ) -> subprocess.CompletedProcess:
        """Run a command as a user does, where a process of its own is part of the claim.

        Args:
            *arguments: of `nextword`.
            stdin: what it is given.
            timeout: seconds.
            starts: whether Python's own start is part of the claim, too.
        """
        if forked.POSSIBLE and not starts:
            server = forked.fork_server()
            done = server.run(arguments, self.folder, self.environment(), stdin, timeout)
            said = (part.decode("utf-8") for part in (done.stdout, done.stderr))
            return subprocess.CompletedProcess(done.args, done.returncode, *said)
        done = subprocess.run(
            [sys.executable, "-m", "nextword", *arguments],
            cwd=self.folder,
            env=self.environment(),
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
        )


@contextlib.contextmanager
def _as_if_new(place: Place, out: io.TextIOWrapper, err: io.TextIOWrapper) -> Iterator[None]:
    """Stand in a place, with streams of one's own, and leave all as it was."""
    import torch

    threads, nothing = torch.get_num_threads(), io.TextIOWrapper(io.BytesIO())
    with place.entered() as patch, warnings.catch_warnings():
        for name, stream in (("stdin", nothing), ("stdout", out), ("stderr", err)):
            patch.setattr(sys, name, stream)
        torch.set_flush_denormal(False)
        try:
            yield
        finally:
            torch.set_flush_denormal(False)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


def _status_of(arguments: tuple[str, ...]) -> int:
    """Run the command line and return the status with which its process would end."""
    from nextword.cli import main

    try:
        main([*arguments])
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:  # what a process would print, for the test to find
        traceback.print_exc()
        return 1
    return 0
