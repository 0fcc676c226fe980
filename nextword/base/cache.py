"""A cache of computed values, keyed by a hash of everything that they depend on."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

from nextword.base.files import cache_folder, write_json

_FOLDER = "measured"


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
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads(file.read_text(encoding="utf-8"))["value"]
    value = compute()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"value": value})
    except OSError:
        pass
    return value
