"""A cache of computed values, keyed by a hash of everything that they depend on."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nextword.base.files import DIGEST, cache_folder, digest_of_file, write_json

_FOLDER = "measured"
WORTH_REMEMBERING = 1 << 20
"""Bytes of a file from which on its digest is remembered, by size, times and place on the disk."""

SETTLED = 3.0
"""Seconds after which a file that is written again gets another time: FAT and some network disks
count in twos, and what changes within one such moment would pass for what was read in it."""


def cached(made_of: Iterable[bytes], compute: Callable[[], Any]) -> Any:
    """Return a JSON value from the cache, or compute it and keep it there.

    A damaged file is computed anew; where nothing can be written, nothing is kept.

    Args:
        made_of: everything that the value depends on, versions of what computes it among it.
        compute: returns plain values, as JSON knows them.
    """
    digest = hashlib.sha256()
    for part in made_of:
        digest.update(hashlib.sha256(part).digest())
    file = cache_folder() / _FOLDER / f"{digest.hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        return json.loads(file.read_text(encoding="utf-8"))["value"]
    value = compute()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"value": value})
    except OSError:
        pass
    return value


def digest_of(file: Path, like: str = DIGEST) -> str:
    """Return a file's digest; of a large one that was read before and is untouched, from here.

    Args:
        file: read whole, or known.
        like: the digest to compare it with, which tells its kind.
    """
    state = file.stat()
    if state.st_size < WORTH_REMEMBERING or time.time() - state.st_mtime < SETTLED:
        return digest_of_file(file, like)
    told = [str(file.absolute()), state.st_size, state.st_mtime_ns, state.st_ino, state.st_dev]
    kind = [DIGEST] if like.startswith(DIGEST) else []
    return str(cached([json.dumps(told + kind).encode()], lambda: digest_of_file(file, like)))
