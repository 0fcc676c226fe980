"""Copies of tensors in one piece of memory, and the file that they become, byte for byte.

Saving beside training must cost training nothing that it need not: no second copy on the way to the
disk, none in the system's page cache, and one fast digest.
"""

import errno
import json
import math
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import xxhash

from nextword.base.files import DIGEST
from nextword.machine.parts import Part, part_of

PAGE = 4096
"""Bytes: places and lengths are multiples of it where the disk reads memory itself."""
WORTH_GOING_PAST = 16 << 20
"""Bytes from which on a file goes past the page cache; a smaller one is soon read again."""
_CHUNK = 8 << 20
_KINDS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Copies:
    """Tensors as they were at one moment, on the CPU, one after the other in memory."""

    tensors: dict[str, torch.Tensor]
    """By name, in the order in which they lie there: large elements first, so that all fit."""
    memory: torch.Tensor
    """All of it, uint8; begins at a page and ends with one."""
    parts: Mapping[str, Part] | None = None
    """Where tensors are divided among processes: which of their rows these are."""

    @classmethod
    def of(
        cls,
        values: Mapping[str, torch.Tensor | Part],
        room: "Copies | None" = None,
        *,
        divided: bool = False,
    ) -> "Copies":
        """Copy tensors.

        Args:
            values: on any device.
            room: earlier copies that nobody needs any more, written over where the tensors are
                alike: fresh memory costs three copies.
            divided: these are one process's rows of tensors that are divided among several, and
                each writes its own into their one file.
        """
        parts = {n: one if isinstance(one, Part) else part_of(one) for n, one in values.items()}
        rows = {name: part.rows for name, part in parts.items()}
        into = room if room is not None and _alike(rows, room.tensors) else cls._empty(rows)
        for name, value in rows.items():
            into.tensors[name].copy_(value)
        kept = {name: part._replace(rows=into.tensors[name]) for name, part in parts.items()}
        return replace(into, parts=kept if divided else None)

    @classmethod
    def _empty(cls, values: Mapping[str, torch.Tensor]) -> "Copies":
        size = sum(value.nbytes for value in values.values())
        memory = torch.empty(_up(size) + PAGE, dtype=torch.uint8)
        memory = memory[-memory.data_ptr() % PAGE :][: _up(size)]
        tensors, place = {}, 0
        for name in sorted(values, key=lambda name: (-values[name].element_size(), name)):
            value = values[name]
            part = memory[place : place + value.nbytes]
            tensors[name] = part.view(value.dtype).view(value.shape)
            place += value.nbytes
        memory[place:] = 0
        return cls(tensors, memory)

    def write(self, file: Path, metadata: Mapping[str, str] | None = None) -> str:
        """Write them as safetensors, and return the file's digest, as `digest_of_file` tells it.

        Args:
            file: made, or written over.
            metadata: of the file's header.

        Returns:
            nothing where the tensors are divided: the others' rows are still to come.

        Raises:
            OSError: it could not be written.
        """
        header = self._header(metadata)
        if self.parts is not None:
            _write(file, 0, [memoryview(header)], len(header) + self.size)
            self.write_rows(file, metadata)
            return ""
        size = len(header) + sum(tensor.nbytes for tensor in self.tensors.values())
        direct = getattr(os, "O_DIRECT", 0) if size >= WORTH_GOING_PAST else 0
        data = self.memory.numpy().data
        for flags in (direct, 0):
            try:
                _write(file, flags, (memoryview(header), data), size)
                break
            except OSError as error:
                if not flags or error.errno != errno.EINVAL:  # a file system that cannot do so
                    raise
        digest = xxhash.xxh3_128(header)
        digest.update(data[: size - len(header)])
        return f"{DIGEST}{digest.hexdigest()}"

    def write_rows(self, file: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write this process's rows into the file that the first one has laid out with `write`.

        Raises:
            OSError: they could not be written.
        """
        assert self.parts is not None
        begins = len(self._header(metadata))
        # Never opened for reading: on a network disk a whole page would be read then and written
        # back, with what another machine has written into it meanwhile.
        # Of blocks each row is a piece of its own: all are brought to the disk at once, at the end.
        blocks = any(part.is_block for part in self.parts.values())
        sync = 0 if blocks else getattr(os, "O_DSYNC", 0)
        handle = os.open(file, os.O_WRONLY | sync | getattr(os, "O_BINARY", 0))
        try:
            for name, place, shape in self._layout():
                part, rows = self.parts[name], self.tensors[name]
                if part.is_copy or not rows.numel():
                    continue
                row = math.prod(shape[1:]) * rows.element_size()
                first = begins + place + part.first * row
                if not part.is_block:
                    _write_at(handle, first, rows)
                    continue
                first += part.left * rows.element_size()
                for number, piece in enumerate(rows):
                    _write_at(handle, first + number * row, piece)
            if blocks:
                os.fsync(handle)
        finally:
            os.close(handle)

    def _shape(self, name: str) -> torch.Size:
        return self.tensors[name].shape if self.parts is None else self.parts[name].shape

    def _layout(self) -> Iterator[tuple[str, int, torch.Size]]:
        """Yield each tensor's name, where it begins in the file, and its shape."""
        place = 0
        for name, tensor in self.tensors.items():
            shape = self._shape(name)
            yield name, place, shape
            place += shape.numel() * tensor.element_size()

    @property
    def size(self) -> int:
        """Bytes of all tensors, whole."""
        return sum(self._shape(n).numel() * one.element_size() for n, one in self.tensors.items())

    def _header(self, metadata: Mapping[str, str] | None) -> mmap.mmap:
        told: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
        for name, place, shape in self._layout():
            tensor = self.tensors[name]
            told[name] = {
                "dtype": _KINDS[tensor.dtype],
                "shape": list(shape),
                "data_offsets": [place, place + shape.numel() * tensor.element_size()],
            }
        text = json.dumps(told, separators=(",", ":")).encode()
        header = mmap.mmap(-1, _up(8 + len(text)))  # begins at a page
        header[:8] = (len(header) - 8).to_bytes(8, "little")
        header[8:] = text.ljust(len(header) - 8)
        return header


def _up(size: int) -> int:
    return -(-size // PAGE) * PAGE


def _write_at(handle: int, place: int, rows: torch.Tensor) -> None:
    """Write rows, one after the other, to a place in a file."""
    os.lseek(handle, place, os.SEEK_SET)
    data = memoryview(rows.reshape(-1).view(torch.uint8).numpy().data)
    done = 0
    while done < len(data):
        done += os.write(handle, data[done : done + _CHUNK])


def _alike(values: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]) -> bool:
    return values.keys() == others.keys() and all(
        value.shape == others[name].shape and value.dtype == others[name].dtype
        for name, value in values.items()
    )


def _write(file: Path, flags: int, parts: Iterable[memoryview], size: int) -> None:
    """Write whole pages, and cut off what is too much."""
    flags |= os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    handle = os.open(file, flags, 0o666)
    try:
        for part in parts:
            place = 0
            while place < len(part):
                place += os.write(handle, part[place : place + _CHUNK])
        os.ftruncate(handle, size)
    finally:
        os.close(handle)
