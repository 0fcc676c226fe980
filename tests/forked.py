"""Processes of the program that begin at once: forked from one that has imported what they need.

A process of its own costs three seconds before it does anything, nearly all of them for importing
torch. Here one process a session imports it, computes nothing, and forks a child for each command,
with its own folder, variables, input and output. What is claimed of importing, of encodings or of
the start itself is tested in processes that Python starts.
"""

import atexit
import contextlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).parents[1]
POSSIBLE = hasattr(os, "fork") and hasattr(socket, "send_fds")


computed: list[float] = []
"""Processor seconds of each child that has ended, which is no child of this process."""


class ForkServer:
    """The process that forks, and what is asked of it."""

    def __init__(self) -> None:
        """Start it; it goes on until its line to this process is closed."""
        self._lock = threading.Lock()
        self._line, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
                cwd=ROOT, env={**os.environ, "PYTHONWARNINGS": ""}, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        atexit.register(self.close)

    def close(self) -> None:
        """Let it end."""
        self._line.close()
        self.process.wait()

    def begin(
        self,
        module: str,
        arguments: Sequence[str],
        folder: Path,
        variables: Mapping[str, str],
        files: Sequence[int],
    ) -> "Forked":
        """Begin a child that is a module's program.

        Args:
            module: run as `python -m` does.
            arguments: of it.
            folder: where it works.
            variables: all that its environment has.
            files: its input, output and errors, open.
        """
        asked = {
            "module": module, "arguments": [*arguments], "folder": str(folder),
            "variables": dict(variables),
        }  # fmt: skip
        words = json.dumps(asked).encode()
        hears, tells = os.pipe()
        with self._lock:
            socket.send_fds(self._line, [len(words).to_bytes(4)], [*files, tells])
            self._line.sendall(words)
        os.close(tells)
        return Forked(os.fdopen(hears, "rb", buffering=0))

    def run(
        self,
        arguments: Sequence[str],
        folder: Path,
        variables: Mapping[str, str],
        stdin: bytes | None,
        timeout: float | None,
    ) -> subprocess.CompletedProcess:
        """Run a command to its end; return its status, output and errors, as bytes."""
        with contextlib.ExitStack() as stack:
            given, out, err = files = [
                stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)
            ]
            given.write(stdin or b"")
            given.seek(0)
            numbers = [one.fileno() for one in files]
            status = self.begin("nextword", arguments, folder, variables, numbers).wait(timeout)
            for file in (out, err):
                file.seek(0)
            return subprocess.CompletedProcess([*arguments], status, out.read(), err.read())

    def watch(
        self, module: str, arguments: Sequence[str], folder: Path, variables: Mapping[str, str]
    ) -> "Forked":
        """Begin a child that is given nothing, and of whom only the errors are heard."""
        said = tempfile.TemporaryFile()  # noqa: SIM115 - the child's, and read when it has ended
        with Path(os.devnull).open("r+b") as nothing:
            streams = [nothing.fileno(), nothing.fileno(), said.fileno()]
            child = self.begin(module, arguments, folder, variables, streams)
        child.said = said
        return child


class Forked:
    """A child at work, to be asked what a `subprocess.Popen` is asked."""

    said: BinaryIO | None = None
    """Where its errors are written."""

    def __init__(self, heard: BinaryIO) -> None:
        """Learn its number."""
        self._heard, self.pid = heard, int(heard.readline())
        self.returncode: int | None = None
        self._words = ""

    def poll(self, seconds: float = 0) -> int | None:
        """Return its status; None where it has none after so many seconds."""
        if self.returncode is None and select.select([self._heard], [], [], seconds)[0]:
            status, seconds = self._heard.readline().split()
            self.returncode = int(status)
            computed.append(float(seconds))
            self._heard.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its status.

        Raises:
            TimeoutExpired: it was late, and was ended.
        """
        status = self.poll(timeout or 1e6)
        if status is None:
            self.send_signal(signal.SIGKILL)
            self.poll(60)
            raise subprocess.TimeoutExpired(f"child {self.pid}", timeout or 0)
        return status

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        """Wait for its end; return nothing and its errors."""
        self.wait(timeout)
        if self.said is not None:
            with self.said as said:
                said.seek(0)
                self._words = said.read().decode()
            self.said = None
        return None, self._words

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it, if it has not ended; what it said may still be asked for."""
        self.send_signal(signal.SIGKILL)
        self.communicate(60)


_servers: list[ForkServer] = []


def fork_server() -> ForkServer:
    """Return this session's, started when it is asked for first."""
    if not _servers or _servers[0].process.poll() is not None:
        _servers[:] = [ForkServer()]
    return _servers[0]


def serve(number: int) -> None:
    """Fork a child for each command that comes along a line, until it is closed."""
    import torch.distributed.fsdp

    import nextword.cli.program
    import nextword.language_model
    import nextword.pretrain

    assert torch
    assert nextword
    line = socket.socket(fileno=number)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that keep a child leave nothing behind
    while True:
        size, files, _, _ = socket.recv_fds(line, 4, 4)
        if len(size) < 4:
            return
        words, wanted = b"", int.from_bytes(size)
        while len(words) < wanted and (more := line.recv(wanted - len(words))):
            words += more
        if not os.fork():
            line.close()
            _keep(json.loads(words), files)
        for file in files:
            os.close(file)


def _keep(asked: dict, files: list[int]) -> None:
    """Fork a child; tell its number and, when it has ended, its status."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        *streams, tells = files
        child = os.fork()
        if not child:
            os.close(tells)
            _be(asked, streams)
        os.write(tells, f"{child}\n".encode())
        _, ended, used = os.wait4(child, 0)
        status = os.waitstatus_to_exitcode(ended)
        os.write(tells, f"{status} {used.ru_utime + used.ru_stime}\n".encode())
    finally:
        os._exit(0)


def _be(asked: dict, files: list[int]) -> None:
    """Be a module's program, as `python -m` is."""
    status = 70
    try:
        for place, file in enumerate(files):
            os.dup2(file, place)
            os.close(file)
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["variables"])
        module = asked["module"]
        sys.argv = [module, *asked["arguments"]]
        if module == "nextword":
            sys.path[:] = ["", *(place for place in sys.path if place != str(ROOT))]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            status = 0
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
