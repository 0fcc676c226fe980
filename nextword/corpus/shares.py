"""Mixture weights on the command line: several texts with a weight each, `books/=2 python=1`."""

import math
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from nextword.base.errors import CorpusError


class Share(NamedTuple):
    """A text and its weight among several."""

    path: str
    weight: float


def read_shares(paths: Sequence[str]) -> list[Share]:
    """Read weights; without one in any path there is no mixture, and the list is empty.

    Args:
        paths: as given on the command line; one without a weight among others has weight 1.

    Raises:
        CorpusError: a weight is zero, or a text is named twice.
    """
    found = [read_weight(path) for path in paths]
    if all(weight is None for _, weight in found):
        return []
    shares = [Share(path, 1.0 if weight is None else weight) for path, weight in found]
    for share in shares:
        if not 0 < share.weight < math.inf:
            raise CorpusError(f"{share.path}={share.weight:g}: a weight must be above 0")
    if len({share.path for share in shares}) < len(shares):
        raise CorpusError("a mixture names each text once; add up its weights")
    return shares


_PINNED = re.compile(r".*[?&]revision=[0-9a-f]{40}")


def read_weight(path: str) -> tuple[str, float | None]:
    """Take a path and its weight apart; None where it has none."""
    name, equals, word = path.rpartition("=")
    # A file may be called a=1, and an address may end in ?version=1; one that was pinned to a
    # commit ends in that.
    asks = "?" in name and not _PINNED.fullmatch(name)
    if not equals or not name or os.path.exists(path) or asks:
        return path, None
    try:
        return name, float(word)
    except ValueError:
        return path, None
