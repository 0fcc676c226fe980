"""Token shards on disk, read through memory maps, in the layout of datatrove's tokenizer.

train-00000.ds          tokens with end-of-text, little-endian uint16 (uint32 above 65,536)
train-00000.ds.index    uint64, one a document: the position just after its end-of-text
train-00000.ds.bytes    uint64, one a document: bytes of its raw text (without it no bits per byte)
"""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nextword.base.errors import CorpusError


def token_type(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    """Return the narrowest type that holds every id."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


class ShardWriter:
    """Append documents to one shard; `close` makes it whole."""

    def __init__(self, file: Path, vocab_size: int) -> None:
        """Open the shard's files.

        Args:
            file: its name, ending in .ds.
            vocab_size: chooses the type of the tokens.
        """
        self.file = file
        self.type = token_type(vocab_size)
        self.num_tokens = 0
        self.ends: list[int] = []
        self.bytes: list[int] = []
        self._pending_bytes = 0
        self._stream = open(file, "wb")  # noqa: SIM115 - lives as long as the writer

    def add(self, ids: Sequence[int], num_bytes: int, end_id: int | None) -> None:
        """Append a part of a document; with `end_id` the document ends here."""
        self._stream.write(np.asarray(ids, dtype=self.type).tobytes())
        self.num_tokens += len(ids)
        self._pending_bytes += num_bytes
        if end_id is not None:
            self._stream.write(np.asarray([end_id], dtype=self.type).tobytes())
            self.num_tokens += 1
            self.ends.append(self.num_tokens)
            self.bytes.append(self._pending_bytes)
            self._pending_bytes = 0

    def end_document(self, end_id: int) -> None:
        """End a document that was cut off, if one is open."""
        if self.num_tokens > (self.ends[-1] if self.ends else 0):
            self.add([], 0, end_id)

    def close(self) -> None:
        """Write the index and the side-car of raw bytes."""
        self._stream.close()
        np.asarray(self.ends, dtype="<u8").tofile(f"{self.file}.index")
        np.asarray(self.bytes, dtype="<u8").tofile(f"{self.file}.bytes")


class TokenStream:
    """The tokens of one side of a corpus, as one sequence over all its shards."""

    def __init__(self, files: Sequence[Path], vocab_size: int, end_id: int) -> None:
        """Map the shards.

        Args:
            files: the .ds files, in order.
            vocab_size: tells the type of the tokens.
            end_id: the end-of-text token, which also stands before the first token.

        Raises:
            CorpusError: a shard is missing or empty.
        """
        kind = token_type(vocab_size)
        self.end_id = end_id
        missing = [file for file in files if not file.is_file()]
        if missing or not files:
            raise CorpusError(
                f"{missing[0] if missing else 'shards'}: no such token shard; prepare the text "
                "again"
            )
        self._shards = [
            np.memmap(file, dtype=kind, mode="r") for file in files if file.stat().st_size
        ]
        self._starts = [0, *np.cumsum([len(shard) for shard in self._shards]).tolist()]
        index = [np.fromfile(f"{file}.index", dtype="<u8").astype(np.int64) for file in files]
        lengths = [file.stat().st_size // kind.itemsize for file in files]
        offsets = [0, *np.cumsum(lengths).tolist()]
        self.document_ends: NDArray[np.int64] = np.concatenate(
            [ends + offset for ends, offset in zip(index, offsets, strict=False)]
        )
        sidecars = [Path(f"{file}.bytes") for file in files]
        self.document_bytes: NDArray[np.int64] | None = None
        if all(sidecar.is_file() for sidecar in sidecars):
            self.document_bytes = np.concatenate(
                [np.fromfile(car, dtype="<u8").astype(np.int64) for car in sidecars]
            )

    def __len__(self) -> int:
        """Count the tokens, end-of-text included."""
        return int(self._starts[-1])

    def read(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return tokens start to stop; position −1, before the first, holds end-of-text."""
        parts: list[NDArray[np.int64]] = []
        if start < 0:
            parts.append(np.full(-start, self.end_id, dtype=np.int64))
            start = 0
        stop = min(stop, len(self))
        shard = bisect_right(self._starts, start) - 1
        while start < stop:
            first = self._starts[shard]
            upto = min(stop, self._starts[shard + 1])
            parts.append(self._shards[shard][start - first : upto - first].astype(np.int64))
            start, shard = upto, shard + 1
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def document(self, number: int) -> NDArray[np.int64]:
        """Return one document's tokens, its end-of-text included."""
        start = 0 if number == 0 else int(self.document_ends[number - 1])
        return self.read(start, int(self.document_ends[number]))

    @property
    def num_documents(self) -> int:
        """Count the documents."""
        return len(self.document_ends)
