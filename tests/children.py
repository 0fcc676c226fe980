"""Do something in a forked child under limits, which may write in one folder only."""

import contextlib
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

SECONDS, BYTES = 20, 2 << 30
OUTSIDE = 71
"""The status of a child that would have written elsewhere."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.mkdir": ((0, 2),), "os.remove": ((0, 1),), "os.rmdir": ((0, 1),), "os.chmod": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)), "os.link": ((1, 3),), "os.symlink": ((1, 2),),
    "os.utime": ((0, 3),), "os.truncate": ((0, None),),
}  # fmt: skip
"""Python's events that change a name: where their values hold it, and its folder's handle."""


def child(
    work: Callable[[], int], *, limited: bool = True, inside: Path | None = None
) -> tuple[int, str]:
    """Do something in a forked child under limits; return its status and what it said.

    Args:
        work: what to do; returns the child's status.
        limited: in time and memory.
        inside: the only folder in which it may write; elsewhere ends it with OUTSIDE.
    """
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        status = 70
        try:
            os.close(read)
            os.dup2(write, 1)
            os.dup2(write, 2)
            sys.stdout = open(1, "w")  # noqa: SIM115 - it ends with the process
            sys.stderr = open(2, "w", errors="backslashreplace")  # noqa: SIM115 - as Python does
            if limited:
                now = resource.getrusage(resource.RUSAGE_SELF)
                spent = int(now.ru_utime + now.ru_stime) + 1
                # The signal first, and the end where it is not heard.
                resource.setrlimit(resource.RLIMIT_CPU, (spent + SECONDS, spent + SECONDS + 5))
                resource.setrlimit(resource.RLIMIT_AS, (_size_now() + BYTES,) * 2)
                signal.alarm(8 * SECONDS)
            if inside is not None:
                _stay(inside)
            status = work()
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):
                    stream.flush()
            os._exit(status)
    os.close(write)
    said = bytearray()
    with open(read, "rb") as stream:
        while part := stream.read(1 << 16):
            said = (said + part)[-(1 << 14) :]
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode("utf-8", "replace")


def _size_now() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _stay(folder: Path) -> None:
    """End this process before it opens a file to write, or changes a name, outside a folder."""
    home = os.path.realpath(folder)
    sys.dont_write_bytecode = True

    def look(event: str, values: tuple) -> None:
        if event == "open":
            places = ((0, None),) if values[2] & _WRITES else ()
        else:
            places = _CHANGES.get(event, ())
        for name, handle in places:
            if not isinstance(values[name], str | bytes | os.PathLike):
                continue  # an open file's handle, which was looked at when it was opened
            path = os.fsdecode(values[name])
            if handle is not None and values[handle] not in (-1, None):
                path = os.path.join(f"/proc/self/fd/{values[handle]}", path)
            # A name is changed where it stands; what is opened, where its links lead.
            above, last = os.path.split(path)
            real = os.path.realpath(above or ".")
            real = os.path.realpath(path) if event == "open" else os.path.join(real, last)
            if real != home and not real.startswith((home + os.sep, "/dev/", "/proc/self/")):
                os.write(2, f"{event} would write to {real}\n".encode(errors="replace"))
                os._exit(OUTSIDE)

    sys.addaudithook(look)


def entries(root: Path, but: Path) -> dict[str, tuple[int, int]]:
    """List size and time of everything below a folder, but for one folder in it."""
    found = {}
    for above, folders, files in os.walk(root):
        folders[:] = [name for name in folders if Path(above, name) != but]
        for name in (*folders, *files):
            stated = os.lstat(os.path.join(above, name))
            is_folder = name in folders
            found[os.path.join(above, name)] = (
                (0, 0) if is_folder else (stated.st_size, stated.st_mtime_ns)
            )
    return found


def run_verb(arguments: tuple[str, ...]) -> int:
    """Run the command line in this process; return its status."""
    from nextword.cli import main

    try:
        main([*arguments, "--debug"])
    except SystemExit as left:
        sys.stdout.flush()
        return left.code if isinstance(left.code, int) else 70
    return 0
