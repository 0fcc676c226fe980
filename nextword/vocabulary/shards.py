"""Token shards on disk, memory-mapped, in the layout of datatrove's tokenizer.

train-00000.ds          tokens with end-of-text, little-endian uint16 (uint32 above 65,536)
train-00000.ds.index    uint64, one a document: the position just after its end-of-text
                        (a document longer than a shard has its entry where it ends)
train-00000.ds.bytes    uint64, one a document: bytes of its raw text (without it no bits per byte)
"""

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextword.base.errors import CorpusError
from nextword.vocabulary.remote import RemoteTokens, Wanted, ask_ahead, is_remote

READ_TOKENS = 1 << 14
"""Tokens from which on a part of a shard is read instead of mapped."""


def token_type(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    """Return the narrowest type that holds every id."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


class ShardWriter:
    """Append documents to one shard; `close` makes it whole."""

    def __init__(self, file: Path, vocab_size: int, open_bytes: int | None = None) -> None:
        """Open the shard's files.

        Args:
            file: its name, ending in .ds.
            vocab_size: chooses the type of the tokens.
            open_bytes: raw bytes so far of a document that began in the shard before; None where
                this shard begins with a document.
        """
        self.file = file
        self.type = token_type(vocab_size)
        self.num_tokens = 0
        self.ends: list[int] = []
        self.bytes: list[int] = []
        self.open_bytes = open_bytes
        self._stream = open(file, "wb")  # noqa: SIM115 - lives as long as the writer

    def add(
        self, ids: NDArray[np.unsignedinteger] | Sequence[int], num_bytes: int, end_id: int | None
    ) -> None:
        """Append a part of a document; with `end_id` the document ends here."""
        self._stream.write(np.asarray(ids, dtype=self.type).tobytes())
        self.num_tokens += len(ids)
        self.open_bytes = (self.open_bytes or 0) + num_bytes
        if end_id is not None:
            self._stream.write(np.asarray([end_id], dtype=self.type).tobytes())
            self.num_tokens += 1
            self.ends.append(self.num_tokens)
            self.bytes.append(self.open_bytes)
            self.open_bytes = None

    def end_document(self, end_id: int) -> None:
        """End a document that was cut off, if one is open."""
        if self.open_bytes is not None:
            self.add([], 0, end_id)

    def close(self) -> None:
        """Write the index and the side-car of raw bytes."""
        self._stream.close()
        np.asarray(self.ends, dtype="<u8").tofile(f"{self.file}.index")
        np.asarray(self.bytes, dtype="<u8").tofile(f"{self.file}.bytes")


class TokenStream:
    """The tokens of one side of a corpus, as one sequence over all its shards."""

    def __init__(
        self,
        files: Sequence[Path],
        vocab_size: int,
        end_id: int,
        bounds: tuple[int, int] | None = None,
    ) -> None:
        """Map the shards.

        Args:
            files: the .ds files, in order; a document may go on from one to the next.
            vocab_size: tells the type of the tokens.
            end_id: the end-of-text token, which also stands before the first token.
            bounds: take the tokens from here to there only; both are documents' ends.

        Raises:
            CorpusError: a shard is missing or empty.
        """
        kind = token_type(vocab_size)
        self.end_id, self._entries = end_id, vocab_size
        missing = [file for file in files if not (os.path.isfile(file) or is_remote(file))]
        if missing or not files:
            raise CorpusError(
                f"{missing[0] if missing else 'shards'}: no such token shard; prepare the text "
                "again"
            )
        index = [_checked_index(file, kind) for file in files]
        sizes = [size_of(file) for file in files]
        self._shards: list[Any] = [
            RemoteTokens(file, kind) if is_remote(file) else np.memmap(file, dtype=kind, mode="r")
            for file, size in zip(files, sizes, strict=True)
            if size
        ]
        self._starts = [0, *np.cumsum([len(shard) for shard in self._shards]).tolist()]
        self._first, last = bounds or (0, int(self._starts[-1]))
        self._length = last - self._first
        offsets = np.cumsum([0, *(size // kind.itemsize for size in sizes)])
        ends = np.concatenate([part + offset for part, offset in zip(index, offsets, strict=False)])
        chosen = (ends > self._first) & (ends <= last)
        self.document_ends: NDArray[np.int64] = ends[chosen] - self._first
        sidecars = [Path(f"{file}.bytes") for file in files]
        self.document_bytes: NDArray[np.int64] | None = None
        if all(sidecar.is_file() for sidecar in sidecars):
            told = [np.fromfile(car, dtype="<u8").astype(np.int64) for car in sidecars]
            for sidecar, known, ends_here in zip(sidecars, told, index, strict=True):
                if len(known) != len(ends_here):
                    raise CorpusError(_damaged(sidecar, "does not fit the index beside it"))
            self.document_bytes = np.concatenate(told)[chosen]

    def __len__(self) -> int:
        """Count the tokens, end-of-text included."""
        return self._length

    @property
    def is_afar(self) -> bool:
        """Whether some of the tokens lie at an address."""
        return any(isinstance(shard, RemoteTokens) for shard in self._shards)

    def read(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return tokens start to stop; position −1, before the first, holds end-of-text.

        Raises:
            CorpusError: a token is no id of the vocabulary; on a GPU that would end the process.
        """
        parts: list[NDArray[np.int64]] = []
        if start < 0:
            parts.append(np.full(-start, self.end_id, dtype=np.int64))
        for shard, first, last in self._places(start, stop):
            parts.append(self._part(shard, first, last).astype(np.int64))
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def ask_ahead(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Let parts that are read next, each as `read` is asked for it, come from afar at once.

        Raises:
            CorpusError: one cannot be reached.
        """
        if not self.is_afar:
            return
        ask_ahead(
            Wanted(self._shards[shard], first, last)
            for start, stop in ranges
            for shard, first, last in self._places(start, stop)
            if isinstance(self._shards[shard], RemoteTokens)
        )

    def _places(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield in which shards tokens start to stop lie, and where there."""
        start, stop = max(start, 0) + self._first, min(stop, self._length) + self._first
        shard = bisect_right(self._starts, start) - 1
        while start < stop:
            first, upto = self._starts[shard], min(stop, self._starts[shard + 1])
            yield shard, start - first, upto - first
            start, shard = upto, shard + 1

    def _part(self, shard: int, start: int, stop: int) -> NDArray[Any]:
        """Return a part of one shard; a large one is read, for mapped pages count as memory."""
        mapped = self._shards[shard]
        part: NDArray[Any]
        if isinstance(mapped, RemoteTokens):
            part = mapped.read(start, stop)
        elif stop - start < READ_TOKENS:
            part = mapped[start:stop]
        else:
            part = np.fromfile(
                str(mapped.filename),
                dtype=mapped.dtype,
                count=stop - start,
                offset=start * mapped.dtype.itemsize,
            )
        if part.size and (most := int(part.max())) >= self._entries:
            raise CorpusError(
                _damaged(
                    mapped.filename,
                    f"holds id {most}, and the vocabulary ends at {self._entries - 1}",
                )
            )
        return part

    def document(self, number: int) -> NDArray[np.int64]:
        """Return one document's tokens, its end-of-text included."""
        start = 0 if number == 0 else int(self.document_ends[number - 1])
        return self.read(start, int(self.document_ends[number]))

    @property
    def num_documents(self) -> int:
        """Count the documents."""
        return len(self.document_ends)


def _checked_index(file: Path, kind: np.dtype[np.unsignedinteger]) -> NDArray[np.int64]:
    """Read a shard's index and see that the shard is as long as it says."""
    ends, size = read_index(file), size_of(file)
    longest = size // kind.itemsize  # compared in tokens: an entry near 2^63 times bytes would wrap
    if size % kind.itemsize or (len(ends) and longest < ends[-1]):
        raise CorpusError(
            _damaged(
                file,
                "ends before its index does; it is cut short, or was not written with tokens of "
                f"{kind.itemsize} bytes, as this vocabulary asks",
            )
        )
    if len(ends) and (ends.min() <= 0 or ends.max() > longest or (np.diff(ends) <= 0).any()):
        raise CorpusError(_damaged(Path(f"{file}.index"), "is no rising list of document ends"))
    return ends


def size_of(file: Path) -> int:
    """Return the bytes of a shard's tokens, wherever they lie."""
    return RemoteTokens(file, np.dtype("<u2")).at.size if is_remote(file) else file.stat().st_size


def _damaged(file: object, what: str) -> str:
    return f"{file}: {what}; remove the folder and prepare the text again"


def read_index(file: Path) -> NDArray[np.int64]:
    """Return where a shard's documents end, in tokens of the shard.

    Raises:
        CorpusError: there is no index beside it.
    """
    index = Path(f"{file}.index")
    if not index.is_file():
        raise CorpusError(f"{index}: no such file; write the shards with their index")
    return np.fromfile(index, dtype="<u8").astype(np.int64)


class JoinedStream(TokenStream):
    """Several streams, one after the other, as one."""

    def __init__(self, streams: Sequence[TokenStream]) -> None:
        """Join streams of one vocabulary.

        Args:
            streams: at least one.
        """
        self.streams = list(streams)
        self.end_id = streams[0].end_id
        self._starts = [0, *np.cumsum([len(stream) for stream in streams]).tolist()]
        self.document_ends: NDArray[np.int64] = np.concatenate(
            [
                stream.document_ends + start
                for stream, start in zip(streams, self._starts, strict=False)
            ]
        )
        sizes = [stream.document_bytes for stream in streams]
        known = [part for part in sizes if part is not None]
        self.document_bytes: NDArray[np.int64] | None = (
            np.concatenate(known) if len(known) == len(sizes) else None
        )

    def __len__(self) -> int:
        """Count the tokens."""
        return int(self._starts[-1])

    @property
    def is_afar(self) -> bool:
        """Whether some of the tokens lie at an address."""
        return any(stream.is_afar for stream in self.streams)

    def ask_ahead(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Let parts that are read next come from afar at once."""
        asked = list(ranges)
        for stream, first in zip(self.streams, self._starts, strict=False):
            stream.ask_ahead(
                (max(start - first, 0), min(stop - first, len(stream)))
                for start, stop in asked
                if first < stop and start < first + len(stream)
            )

    def read(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return tokens start to stop."""
        parts = [
            stream.read(max(start - first, 0), min(stop - first, len(stream)))
            for stream, first in zip(self.streams, self._starts, strict=False)
            if first < stop and start < first + len(stream)
        ]
        if start < 0:
            parts.insert(0, np.full(-start, self.end_id, dtype=np.int64))
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
