"""One writer a folder: a lock that a dead process leaves behind free, and that names its holder.

The lock itself is the system's (filelock), so it ends with its process. A file beside it says who
holds it, and is touched now and then: on a network disk whose locks do not reach other machines, a
holder elsewhere that has not been heard of for ten minutes is taken for dead.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from nextword.base.errors import RunError

LOCK, HOLDER = ".lock", "writer.json"
SILENCE = 600.0
"""Seconds without a sign after which a holder on another machine is taken for dead."""
MOMENT_SECONDS = 0.4
"""For which the lock is waited for: `holder_of` takes it for a moment, to see if it is free."""
HEARTBEAT = 60.0
"""Seconds between two signs."""


@contextmanager
def one_writer(folder: Path) -> Iterator[Callable[[], None]]:
    """Be the only one who writes into a folder; what is yielded is called now and then, as a sign.

    Raises:
        RunError: somebody else writes there; names host and process.
    """
    lock, holder = FileLock(folder / LOCK), folder / HOLDER
    try:
        lock.acquire(timeout=MOMENT_SECONDS, poll_interval=MOMENT_SECONDS / 20)
    except Timeout:
        raise RunError(_taken(folder, _read(holder))) from None
    try:
        known = _read(holder)
        if known.get("host") not in (None, socket.gethostname()) and _is_fresh(holder):
            raise RunError(_taken(folder, known))
        words = {"host": socket.gethostname(), "process": os.getpid(), "since": time.time()}
        holder.write_text(json.dumps(words) + "\n", encoding="utf-8")
        last = [time.monotonic()]

        def sign() -> None:
            if time.monotonic() - last[0] > HEARTBEAT:
                last[0] = time.monotonic()
                os.utime(holder)

        yield sign
        holder.unlink(missing_ok=True)
    finally:
        lock.release()


def holder_of(folder: Path) -> dict[str, object] | None:
    """Say who writes into a folder, by host and process; None where nobody does.

    The lock is asked, and given back at once; who only looks never waits.
    """
    words = _read(folder / HOLDER)
    if not words:
        return None
    lock = FileLock(folder / LOCK)
    try:
        if words.get("host") != socket.gethostname():
            return words if _is_fresh(folder / HOLDER) else None
        lock.acquire(blocking=False)
    except Timeout:
        return words
    except OSError:  # a disk that may only be read: nobody writes there
        return None
    lock.release()
    return None


def nobody() -> None:
    """Give no sign: a process that writes nothing."""


def _read(holder: Path) -> dict[str, object]:
    """Return who holds a folder; nothing where that is not known."""
    try:
        words = json.loads(holder.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return words if isinstance(words, dict) else {}


def _is_fresh(holder: Path) -> bool:
    """Whether a sign was given lately, by the disk's own clock, which both machines share."""
    probe = holder.with_name(f".{HOLDER}.{os.getpid()}")
    probe.touch()
    try:
        return probe.stat().st_mtime - holder.stat().st_mtime < SILENCE
    finally:
        probe.unlink()


def _taken(folder: Path, known: dict[str, object]) -> str:
    host, process = known.get("host", "an unknown host"), known.get("process", "of unknown number")
    return (
        f"{folder}: process {process} on {host} is training this run; wait for it, or stop it. (A "
        f"dead one on this machine does not count, nor one elsewhere after {SILENCE / 60:.0f} "
        "minutes of silence.)"
    )
