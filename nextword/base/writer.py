"""One writer a folder: a lock that a dead process leaves behind free, and that names its holder.

The lock itself is the system's (filelock), so it ends with its process. A file beside it says who
holds it, and is touched now and then: on a network disk whose locks do not reach other machines, or
that has none at all, a holder that has not been heard of for ten minutes is taken for dead.
"""

import contextlib
import errno
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from nextword.base.errors import RunError

LOCK, HOLDER = ".lock", "writer.json"
SILENCE = 600.0
"""Seconds without a sign after which a holder is taken for dead where its lock says nothing."""
MOMENT_SECONDS = 0.4
"""For which the lock is waited for: `holder_of` takes it for a moment, to see if it is free."""
HEARTBEAT = 60.0
"""Seconds between two signs."""
_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
"""What a disk says that has no locks, as some network disks have none."""


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Be the only one who writes into a folder; a sign is given while this lasts.

    Raises:
        RunError: somebody else writes there; names host and process.
    """
    lock, holder = lock_at(folder / LOCK), folder / HOLDER
    try:
        has_locks = take_lock(lock, MOMENT_SECONDS)
    except Timeout:
        raise RunError(_taken(folder, _read(holder))) from None
    try:
        if _writes_unlocked(holder, has_locks=has_locks):
            raise RunError(_taken(folder, _read(holder)))
        with _named(holder):
            yield
    finally:
        lock.release()


@contextmanager
def alone(file: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Wait until no other process has a lock; on a disk without locks, for its file to go.

    Args:
        file: of the lock; its folder exists.
        wait: is called once, where there is something to wait for.
    """
    lock, holder = lock_at(file), file.with_suffix(".holder")
    try:
        has_locks = take_lock(lock, 0.0)
    except Timeout:
        wait()
        has_locks = take_lock(lock, -1)
    try:
        if not has_locks and _writes_unlocked(holder, has_locks=False):
            wait()
            while _writes_unlocked(holder, has_locks=False):
                time.sleep(MOMENT_SECONDS)
        with nullcontext() if has_locks else _named(holder):
            yield
    finally:
        lock.release()


@contextmanager
def _named(holder: Path) -> Iterator[None]:
    """Write down that this process is the holder, and give a sign now and then."""
    words = {"host": socket.gethostname(), "process": os.getpid(), "since": time.time()}
    holder.write_text(json.dumps(words) + "\n", encoding="utf-8")
    done = threading.Event()
    # By a thread: a long step, evaluation or pause is no silence.
    threading.Thread(target=_sign, args=(holder, done), daemon=True).start()
    try:
        yield
        holder.unlink(missing_ok=True)
    finally:
        done.set()


def _sign(holder: Path, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT):
        with contextlib.suppress(OSError):  # a disk that is away for a moment
            os.utime(holder)


def holder_of(folder: Path) -> dict[str, object] | None:
    """Say who writes into a folder, by host and process; None where nobody does.

    The lock is asked, and given back at once; who only looks never waits.
    """
    holder = folder / HOLDER
    words = _read(holder)
    if not words:
        return None
    lock = lock_at(folder / LOCK)
    try:
        if words.get("host") != socket.gethostname():
            return words if _is_fresh(holder) else None
        has_locks = take_lock(lock, 0.0)
    except Timeout:
        return words
    except OSError:  # a disk that may only be read: nobody writes there
        return None
    lock.release()
    return words if _writes_unlocked(holder, has_locks=has_locks) else None


def lock_at(file: Path) -> FileLock:
    """Return a lock of the system's; where it has none, `take_lock` says so."""
    # Without the library's own way out, a file that stays where its process was killed.
    return FileLock(file, fallback_to_soft=False)


def take_lock(lock: FileLock, seconds: float) -> bool:
    """Take a lock, or wait for so many seconds, for ever where negative; say if the disk has any.

    Raises:
        Timeout: somebody else has it.
    """
    try:
        lock.acquire(timeout=seconds, poll_interval=MOMENT_SECONDS / 20)
    except OSError as error:  # Timeout is one, without a number
        if error.errno not in _WITHOUT_LOCKS:
            raise
        return False
    return True


def _writes_unlocked(holder: Path, *, has_locks: bool) -> bool:
    """Whether who is written down as the holder writes, though the lock does not say so."""
    known = _read(holder)
    if not known:
        return False
    if known.get("host") != socket.gethostname():
        return known.get("host") is not None and _is_fresh(holder)
    if has_locks or known.get("process") == os.getpid():
        return False  # the lock would have said so
    return _is_alive(known.get("process")) and _is_fresh(holder)


def _is_alive(process: object) -> bool:
    if not isinstance(process, int) or process <= 0:
        return False
    if sys.platform == "win32":  # its disks have locks; to ask a process there would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


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
