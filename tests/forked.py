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
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
POSSIBLE = hasattr(os, "fork") and hasattr(socket, "send_fds")


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
        self._said = self._line.makefile("rb")

        atexit.register(self.close)

    def close(self) -> None:
        """Let it end."""
        self._said.close()
        self._line.close()
        self.process.wait()

    def run(
        self,
        arguments: Sequence[str],
        folder: Path,
        variables: Mapping[str, str],
        stdin: bytes | None,
        timeout: float | None,
    ) -> subprocess.CompletedProcess:
        """Run a command to its end; return its status, output and errors, as bytes."""
        asked = {"arguments": [*arguments], "folder": str(folder), "variables": dict(variables)}
        words = json.dumps(asked).encode()
        with self._lock, contextlib.ExitStack() as stack:
            given, out, err = files = [
                stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)
            ]
            given.write(stdin or b"")
            given.seek(0)
            socket.send_fds(self._line, [len(words).to_bytes(4)], [one.fileno() for one in files])
            self._line.sendall(words)
            number, late = int(self._said.readline()), threading.Event()
            watch = threading.Timer(timeout or 1e6, lambda: (late.set(), _kill(number)))
            watch.daemon = True
            watch.start()
            status = int(self._said.readline())
            watch.cancel()
            if late.is_set():
                raise subprocess.TimeoutExpired([*arguments], timeout or 0)
            for file in (out, err):
                file.seek(0)
            return subprocess.CompletedProcess([*arguments], status, out.read(), err.read())


def _kill(number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, signal.SIGKILL)


_servers: list[ForkServer] = []


def fork_server() -> ForkServer:
    """Return this session's, started when it is asked for first."""
    if not _servers or _servers[0].process.poll() is not None:
        _servers[:] = [ForkServer()]
    return _servers[0]


def serve(number: int) -> None:
    """Fork a child for each command that comes along a line, until it is closed."""
    import torch

    import nextword.cli.program
    import nextword.language_model
    import nextword.pretrain

    assert torch
    assert nextword
    line = socket.socket(fileno=number)
    while True:
        size, files, _, _ = socket.recv_fds(line, 4, 3)
        if len(size) < 4:
            return
        words = b""
        while len(words) < int.from_bytes(size):
            words += line.recv(1 << 16)
        asked = json.loads(words)
        child = os.fork()
        if not child:
            line.close()
            _be(asked, files)
        for file in files:
            os.close(file)
        line.sendall(f"{child}\n".encode())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        line.sendall(f"{status}\n".encode())


def _be(asked: dict, files: list[int]) -> None:
    """Be the program, as `python -m nextword` is."""
    status = 70
    try:
        for place, file in enumerate(files):
            os.dup2(file, place)
            os.close(file)
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["variables"])
        sys.argv = ["nextword", *asked["arguments"]]
        sys.path[:] = ["", *(place for place in sys.path if place != str(ROOT))]
        try:
            runpy.run_module("nextword", run_name="__main__", alter_sys=True)
            status = 0
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else int(left.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
