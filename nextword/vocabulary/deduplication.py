"""Deduplication: remove token ranges from shards, so that what remains is whole documents."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nextword.base.files import publish
from nextword.vocabulary.shards import token_type

CHUNK_TOKENS = 1 << 20

Ranges = NDArray[np.int64]


def merge_ranges(ranges: Ranges) -> Ranges:
    """Return [start, stop) rows sorted, with those that touch or overlap made one."""
    ranges = np.asarray(ranges, dtype=np.int64).reshape(-1, 2)
    ranges = ranges[ranges[:, 1] > ranges[:, 0]]
    ranges = ranges[np.argsort(ranges[:, 0], kind="stable")]
    if not len(ranges):
        return ranges
    reach = np.maximum.accumulate(ranges[:, 1])
    begins = np.concatenate([[True], ranges[1:, 0] > reach[:-1]])
    return np.stack([ranges[begins, 0], reach[np.append(begins[1:], True)]], axis=1)


def remove_ranges(
    files: Sequence[Path],
    vocab_size: int,
    ranges: Ranges,
    spelled_bytes: Callable[[NDArray[np.int64]], int],
) -> None:
    """Rewrite shards without the given ranges; at most a chunk of tokens is in memory.

    A document of which nothing but its end-of-text would remain goes whole, with its index entry;
    another keeps its end-of-text, even inside a range. Each file is replaced whole, but a crash
    between two of them leaves shards that no longer fit one another: the caller must then make
    them again. Close all that maps these files first: Windows replaces no file that is mapped.

    Args:
        files: the .ds files of one stream, in order; a document may go on in the next.
        vocab_size: tells the type of the tokens.
        ranges: (k, 2), [start, stop) in the stream of all shards.
        spelled_bytes: tells how many bytes of raw text ids stand for.
    """
    kind = token_type(vocab_size)
    sizes = [file.stat().st_size // kind.itemsize for file in files]
    offsets = [0, *np.cumsum(sizes, dtype=np.int64).tolist()]
    ends = [
        np.fromfile(f"{file}.index", dtype="<u8").astype(np.int64) + offset
        for file, offset in zip(files, offsets, strict=False)
    ]
    removal = _plan(merge_ranges(ranges), np.concatenate([np.empty(0, np.int64), *ends]))
    lost = _lost_bytes(files, kind, offsets, removal, spelled_bytes)
    done = 0
    for number, file in enumerate(files):
        own = slice(done, done + len(ends[number]))
        done += len(ends[number])
        goes = removal.goes[own]
        first, last = offsets[number], offsets[number + 1]
        kept_ends = ends[number][~goes] - first
        kept_ends -= removal.count_before(kept_ends + first) - removal.count_before(first)
        fresh = {"": aside(file), ".index": aside(Path(f"{file}.index"))}
        _copy_kept(file, fresh[""], kind, removal.kept_between(first, last) - first)
        kept_ends.astype("<u8").tofile(fresh[".index"])
        if (sidecar := Path(f"{file}.bytes")).is_file():
            spelled = np.fromfile(sidecar, dtype="<u8").astype(np.int64) - lost[own]
            fresh[".bytes"] = aside(sidecar)
            np.maximum(spelled, 0)[~goes].astype("<u8").tofile(fresh[".bytes"])
        for ending, written in fresh.items():
            publish(written, Path(f"{file}{ending}"))


def aside(file: Path) -> Path:
    """Return a name beside a file, to write what will replace it."""
    return file.with_name(f".{file.name}.{os.getpid()}")


@dataclass(frozen=True)
class _Removal:
    """What exactly is taken out of a stream."""

    ranges: Ranges
    starts: NDArray[np.int64]
    """Of the documents."""
    ends: NDArray[np.int64]
    goes: NDArray[np.bool_]
    """Whether a document goes whole."""

    def count_before(self, positions: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Count the removed tokens before each position."""
        return _count_before(self.ranges, np.asarray(positions, dtype=np.int64))

    def kept_between(self, first: int, last: int) -> Ranges:
        """Return what remains of [first, last)."""
        borders = np.clip(self.ranges.ravel(), first, last)
        kept = np.concatenate([[first], borders, [last]]).reshape(-1, 2)
        return kept[kept[:, 1] > kept[:, 0]]


def _count_before(ranges: Ranges, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    if not len(ranges):
        return np.zeros_like(positions)
    total = np.concatenate([[0], np.cumsum(ranges[:, 1] - ranges[:, 0])])
    number = np.searchsorted(ranges[:, 0], positions, side="right")
    beyond = np.maximum(ranges[np.maximum(number, 1) - 1, 1] - positions, 0)
    return total[number] - np.where(number > 0, beyond, 0)


def _plan(ranges: Ranges, ends: NDArray[np.int64]) -> _Removal:
    """Decide which documents go whole, and spare the end-of-text of the others."""
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)[: len(ends)]
    before, text, after = (_count_before(ranges, at) for at in (starts, ends - 1, ends))
    goes = (after > before) & (text - before == ends - 1 - starts)
    spared = ends[~goes & (after > text)] - 1
    # A spared token splits its range in two: it ends the one and stands before the other.
    begin = np.sort(np.concatenate([ranges[:, 0], spared + 1]))
    stop = np.sort(np.concatenate([ranges[:, 1], spared]))
    whole = np.stack([starts, ends], axis=1)[goes]
    return _Removal(
        merge_ranges(np.concatenate([np.stack([begin, stop], axis=1), whole])), starts, ends, goes
    )


def _lost_bytes(
    files: Sequence[Path],
    kind: np.dtype[np.unsignedinteger],
    offsets: list[int],
    removal: _Removal,
    spelled_bytes: Callable[[NDArray[np.int64]], int],
) -> NDArray[np.int64]:
    """Return, for each document that stays, how many bytes its removed tokens spelled."""
    lost = np.zeros(len(removal.ends), dtype=np.int64)
    counts = removal.count_before(removal.ends) - removal.count_before(removal.starts)
    for document in np.flatnonzero((counts > 0) & ~removal.goes).tolist():
        start, end = int(removal.starts[document]), int(removal.ends[document])
        touched = slice(
            int(np.searchsorted(removal.ranges[:, 1], start, side="right")),
            int(np.searchsorted(removal.ranges[:, 0], end, side="left")),
        )
        for low, high in np.clip(removal.ranges[touched], start, end).tolist():
            for ids in _read(files, kind, offsets, low, high):
                lost[document] += spelled_bytes(ids)
    return lost


def _read(
    files: Sequence[Path],
    kind: np.dtype[np.unsignedinteger],
    offsets: list[int],
    start: int,
    stop: int,
) -> Iterator[NDArray[np.int64]]:
    """Yield tokens of the whole stream in chunks, without keeping a file open or mapped."""
    while start < stop:
        shard = int(np.searchsorted(offsets, start, side="right")) - 1
        upto = min(stop, offsets[shard + 1], start + CHUNK_TOKENS)
        yield np.fromfile(
            files[shard],
            dtype=kind,
            count=upto - start,
            offset=(start - offsets[shard]) * kind.itemsize,
        ).astype(np.int64)
        start = upto


def _copy_kept(
    source: Path, target: Path, kind: np.dtype[np.unsignedinteger], kept: Ranges
) -> None:
    with open(source, "rb") as old, open(target, "wb") as new:
        for start, stop in (kept * kind.itemsize).tolist():
            old.seek(start)
            while start < stop:
                part = old.read(min(stop - start, CHUNK_TOKENS * kind.itemsize))
                new.write(part)
                start += len(part)
