"""Shingles for near-duplicate detection: token streams cut into units, units into n-grams.

A unit is a document or, of a long one, a passage of about 2 KB, cut where the text itself decides,
so that a sentence inserted early in a copy does not shift every later cut. Units shorter than 80
bytes are skipped: so short a text repeats by chance. A shingle is a run of about 24 bytes' worth of
tokens; what two units share is counted in shingles.

Source: content-defined cuts as in Muthitacharoen, Chen and Mazières 2001, A Low-bandwidth Network
File System, section 3.1.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextword.vocabulary.shards import TokenStream

BLOCK_TOKENS = 1 << 16
"""Read at a time: 0.5 MB of hashes stay in a core's cache, a third faster than four times it."""

Hashes = NDArray[np.uint64]
Ranges = NDArray[np.int64]


@dataclass(frozen=True)
class Scale:
    """Lengths in tokens, so that the same text is cut alike under every vocabulary."""

    shingle: int
    window: int
    """Tokens whose hash decides on a cut: few, so that an edit seldom touches a cut."""
    shortest: int
    least: int
    mean: int
    most: int
    """Documents up to here are one unit; no passage is longer."""

    @classmethod
    def of(cls, bytes_per_token: float) -> "Scale":
        """Turn lengths in bytes into tokens; at 4 bytes a token: 6, 3, 20, 64, 512, 2048."""
        shingle, window, shortest, least, mean, most = (
            round(size / bytes_per_token) for size in (24, 12, 80, 256, 2048, 8192)
        )
        shingle = max(3, shingle)
        shortest = max(2 * shingle, shortest)
        least = max(shortest, least)
        return cls(
            shingle, max(2, window), shortest, least, max(2 * least, mean), max(4 * least, most)
        )


class Block(NamedTuple):
    """Units of one stretch of a stream."""

    ranges: Ranges
    """(u, 2): [start, stop) in the stream; a document's end-of-text belongs to its last unit."""
    shingles: Hashes
    """Of all units, one after another."""
    offsets: NDArray[np.uint64]
    """(u + 1,): where each unit's begin."""

    def shingles_of(self, unit: int) -> Hashes:
        """Return one unit's shingles, repeated ones included."""
        return self.shingles[int(self.offsets[unit]) : int(self.offsets[unit + 1])]


def cut_units(stream: TokenStream, scale: Scale, whole_upto: int, seed: int = 0) -> Iterator[Block]:
    """Yield all units of a stream, in blocks of bounded size.

    Args:
        stream: whose documents are cut.
        scale: the lengths.
        whole_upto: documents of at most so many tokens are one unit.
        seed: of the hashes; the same for two streams to be compared.
    """
    ends = stream.document_ends
    if len(stream) > (ends[-1] if len(ends) else 0):
        ends = np.append(ends, len(stream))  # the last document has not ended
    size = max(BLOCK_TOKENS, 4 * max(whole_upto, scale.most))
    position, document = 0, 0  # all text before `position`, which lies in `document`, is done
    while document < len(ends):
        tokens = stream.read(position, position + size)
        here = position + len(tokens)
        upto = int(np.searchsorted(ends, here, side="right"))
        stops = ends[document : upto + 1]
        starts = np.concatenate([[position], stops[:-1]])
        is_long = stops - starts > whole_upto
        is_long[0] |= position > (ends[document - 1] if document else 0)
        ends_here = stops <= here
        units = [np.stack([starts, stops], axis=1)[~is_long & ends_here]]
        position, document = int(starts[-1]) if upto < len(ends) else here, upto
        if is_long.any():
            low = hash_grams(tokens, scale.window, seed) < np.uint64((1 << 64) // scale.mean)
            places = (here - len(tokens) + scale.window + np.flatnonzero(low)).tolist()
            for start, stop in np.stack([starts, stops], axis=1)[is_long].tolist():
                cuts = [start, *_cut(places, start, stop, here, scale)]
                units.append(np.array(list(pairwise(cuts)), dtype=np.int64).reshape(-1, 2))
                position = max(position, cuts[-1])
        yield lay_out(np.concatenate(units), tokens, here - len(tokens), stream.end_id, scale, seed)


def _cut(places: list[int], start: int, stop: int, here: int, scale: Scale) -> list[int]:
    """Return where to cut a long document, its end included, as far as tokens are known.

    No choice depends on where the known tokens end.

    Args:
        places: where the text proposes a cut.
        start: of the document, or where it was last cut.
        stop: its end, known or not.
        here: the tokens before it are known.
        scale: the lengths.
    """
    cuts: list[int] = []
    while True:
        if stop > here and start + scale.most > here:
            return cuts
        last = min(start + scale.most, stop - scale.least)
        number = bisect_left(places, start + scale.least)
        if number < len(places) and places[number] <= last:
            start = places[number]
        elif stop - start > scale.most:
            start = last
        else:
            return [*cuts, stop]
        cuts.append(start)


def hash_grams(tokens: NDArray[np.int64], width: int, seed: int = 0) -> Hashes:
    """Return a hash of every run of `width` tokens: a polynomial in their hashes, modulo 2⁶⁴."""
    odd = 0x9E3779B97F4A7C15
    single = mix(tokens.astype(np.uint64) + np.uint64(derive(seed)))
    length, grams = 0, single[:0]
    power, doubled = 1, single
    while power <= width:  # a run of 2k is two runs of k: a logarithmic number of passes
        factor = np.uint64(pow(odd, power, 1 << 64))
        if width & power:
            count = max(0, len(tokens) - length - power + 1)
            head, grams = grams[:count], doubled[length : length + count].copy()
            if length:
                grams += head * factor
            length += power
        if 2 * power <= width:
            count = max(0, len(doubled) - power)
            head, doubled = doubled, doubled[:count] * factor
            doubled += head[power:]
        power *= 2
    return mix(grams)


def derive(seed: int) -> int:
    """Return 64 bits that differ from seed to seed."""
    return int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=8).digest(), "little")


def mix(values: Hashes) -> Hashes:
    """Spread every bit over all, in place (the finish of MurmurHash3, public domain)."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        values ^= values >> np.uint64(33)
        values *= np.uint64(factor)
    values ^= values >> np.uint64(33)
    return values


def lay_out(
    ranges: Ranges, tokens: NDArray[np.int64], first: int, end_id: int, scale: Scale, seed: int
) -> Block:
    """Lay out the shingles of units, the too short ones left out, end-of-text not among them."""
    lengths = ranges[:, 1] - ranges[:, 0] - (tokens[ranges[:, 1] - 1 - first] == end_id)
    ranges, lengths = ranges[lengths >= scale.shortest], lengths[lengths >= scale.shortest]
    counts = lengths - scale.shingle + 1
    offsets = np.concatenate([[0], np.cumsum(counts)])
    places = np.repeat(ranges[:, 0] - first - offsets[:-1], counts) + np.arange(offsets[-1])
    grams = hash_grams(tokens, scale.shingle, seed)
    return Block(ranges, grams[places], offsets.astype(np.uint64))
