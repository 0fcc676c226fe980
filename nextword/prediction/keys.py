"""Numbers that stand for n-grams: equal ones taken together, and where one stands among others."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Groups(NamedTuple):
    """Equal keys taken together."""

    keys: NDArray[np.int64]
    places: NDArray[np.int64]
    """Of every key that was given, which of the different ones it is."""
    counts: NDArray[np.int64]
    examples: NDArray[np.int64]
    """Where one of each stood among those given."""


def group(keys: NDArray[np.int64]) -> Groups:
    """Take equal keys together, by sorting."""
    order = np.argsort(keys)
    rising = keys[order]
    first = np.ones(len(keys), dtype=np.bool_)
    np.not_equal(rising[1:], rising[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    places = np.empty_like(order)
    places[order] = np.cumsum(first) - 1
    counts = np.diff(starts, append=len(keys))
    return Groups(rising[starts], places, counts, order[starts])


def find(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each stands among rising keys, or −1."""
    if not len(keys):
        return np.full(len(wanted), -1)
    places = np.searchsorted(keys, wanted)
    places[keys[np.minimum(places, len(keys) - 1)] != wanted] = -1
    return places
