"""Atomic file writes: a crash leaves the old file or the new one, never half of one."""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import xxhash

from nextword.base.errors import RunError

RUN_FACTS = "run.json"
"""By which a run's folder is known."""
LONGEST_NAME = 255
"""Bytes that file systems allow."""


def publish(aside: Path, final: Path) -> None:
    """Rename a finished file or folder to its name, after its bytes have reached the disk."""
    for file in [*sorted(aside.rglob("*"), reverse=True), aside]:
        if file.is_dir():
            sync_folder(file)  # the names in it
        else:
            sync_file(file)
    os.replace(aside, final)
    sync_folder(final.parent)


def check_output(output: Path, *, force: bool, source: Path | None = None) -> None:
    """Refuse an output that is in the way of something; every verb that writes a file asks here.

    Args:
        output: the file to make.
        force: whether a file that is there may be replaced.
        source: what is read to make it.

    Raises:
        RunError: it is the input, no plain file (a folder, link, pipe or device), lies in a run's
            folder, exists without `force`, or has no folder.
    """
    if source is not None and output.exists() and source.exists() and output.samefile(source):
        raise RunError(f"{output}: is the very file that is read; give the output another name")
    if len(output.name.encode()) > LONGEST_NAME:
        raise RunError(f"{output.name[:40]}…: no file's name is so long; give another")
    if os.path.lexists(output) and (output.is_symlink() or not output.is_file()):
        raise RunError(f"{output}: not a plain file; give the output another name")
    if not output.parent.is_dir():
        raise RunError(f"{output.parent}: no such folder")
    refuse_runs_own(output)
    if output.exists() and not force:
        raise RunError(f"{output}: exists already; give another name, or --force to overwrite it")


def refuse_runs_own(output: Path) -> None:
    """Refuse a file or folder to be made that would be a run's own, or lie in one.

    Raises:
        RunError: so it would.
    """
    named, meant = output.absolute(), output.parent.resolve() / output.name  # behind links, too
    around = (named, *named.parents, meant, *meant.parents)
    if any((folder / RUN_FACTS).is_file() for folder in around):
        raise RunError(f"{output}: lies in a run's folder, which is the run's own; write elsewhere")


def sync_file(file: Path) -> None:
    """Wait until a file's bytes have reached the disk."""
    with open(file, "rb+") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder have reached the disk."""
    if sys.platform == "win32":  # a folder cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(file: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(file, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write a text atomically; where it cannot be written nothing is left behind."""
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        publish(aside, file)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def write_output(output: Path, text: str, *, force: bool) -> None:
    """Write what a verb has made, unless something has come there in the meantime.

    Raises:
        RunError: `check_output` refuses it by now, or it cannot be written.
    """
    check_output(output, force=force)
    try:
        write_text(output, text)
    except OSError as error:
        raise RunError(f"{output}: cannot be written ({error.strerror})") from None


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


DIGEST = "xxh3:"
"""What a digest begins with that finds damage, and no forgery: as fast as memory is read."""


def digest_of_file(file: Path, like: str = DIGEST) -> str:
    """Return the digest of a file's content.

    Args:
        file: read whole.
        like: a digest to compare it with: those of earlier versions are a SHA-256.
    """
    if not like.startswith(DIGEST):
        return sha256_of(file)
    with open(file, "rb") as stream:
        return DIGEST + hashlib.file_digest(stream, xxhash.xxh3_128).hexdigest()


def cache_folder() -> Path:
    """Return where prepared text is kept: NEXTWORD_CACHE, or this system's place for such files."""
    if named := os.environ.get("NEXTWORD_CACHE"):
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "nextword"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "nextword"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "nextword"
