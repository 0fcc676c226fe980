"""Compressed files: gzip, zstd, xz, bz2, …, each by its suffix and its magic bytes.

A new compression is one more line of the table.
"""

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

from nextword.base.errors import CorpusError
from nextword.corpus.packages import import_package

READ_BYTES = 1 << 20
LOOK_BYTES = 10
"""The longest beginning that tells a compression."""
ZSTANDARD_READ_BYTES = 1 << 11
"""At once into the decompressor, which gives back all it can: 2 KiB of zeros are 64 MiB of text."""
ZSTANDARD_WINDOW = 1 << 31
"""The widest that `zstd --long=31` makes, as large public dumps of text are."""


MOST_TIMES, MOST_BESIDE = 250, 1 << 28
"""A file may become so many times as large, and so many bytes beside; text becomes 2 to 30 times
as large, the most regular logs 200 times. Beyond that it is no text, but made to fill a disk."""


class _DamageError(Exception):
    """What the decompressor says of a damaged file."""


def _gzip(raw: IO[bytes], name: str) -> Iterator[bytes]:
    del name
    with gzip.open(raw, "rb") as stream:
        while block := stream.read(READ_BYTES):
            yield block


def _bzip2(raw: IO[bytes], name: str) -> Iterator[bytes]:
    del name
    with bz2.open(raw, "rb") as stream:
        while True:
            try:
                block = stream.read(READ_BYTES)
            except OSError as error:
                # The decompressor's own complaint carries no number; a failing disk's does.
                if error.errno is None:
                    raise _DamageError(error) from None
                raise
            if not block:
                return
            yield block


def _xz(raw: IO[bytes], name: str) -> Iterator[bytes]:
    del name
    with lzma.open(raw, "rb") as stream:
        while block := stream.read(READ_BYTES):
            yield block


def _zstandard(raw: IO[bytes], name: str) -> Iterator[bytes]:
    """Decompress frame by frame: zstandard's stream_reader ends a cut frame without a word."""
    zstandard = import_package("zstandard", name)
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTANDARD_WINDOW)
    frame = None
    while compressed := raw.read(ZSTANDARD_READ_BYTES):
        while compressed:
            frame = frame or decompressor.decompressobj()
            try:
                block = frame.decompress(compressed)
            except zstandard.ZstdError as error:
                raise _DamageError(error) from None
            if block:
                yield block
            compressed = frame.unused_data if frame.eof else b""
            if frame.eof:
                frame = None
    if frame is not None:
        raise _DamageError("the last frame does not end")


class _Counted:
    """A stream that counts what is read of it."""

    def __init__(self, raw: IO[bytes]) -> None:
        """Take the stream."""
        self._raw, self.bytes = raw, 0

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        block = self._raw.read(size)
        self.bytes += len(block)
        return block

    def __getattr__(self, name: str) -> Any:
        """Be the stream in all else."""
        return getattr(self._raw, name)


class _Compression(NamedTuple):
    """How one kind of compressed file begins, and how it is read."""

    beginning: re.Pattern[bytes]
    read: Callable[[IO[bytes], str], Iterator[bytes]]


_COMPRESSIONS = {
    # Long enough beginnings that no UTF-8 text is taken for compressed, one about "BZh" included.
    ".bz2": _Compression(re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)"), _bzip2),
    ".gz": _Compression(re.compile(rb"\x1f\x8b\x08"), _gzip),
    ".xz": _Compression(re.compile(rb"\xfd7zXZ\x00"), _xz),
    ".zst": _Compression(re.compile(rb"(\x28\xb5\x2f\xfd)|([\x50-\x5f]\x2a\x4d\x18)"), _zstandard),
}
COMPRESSIONS = tuple(_COMPRESSIONS)


def split_compression(name: str) -> tuple[str, str]:
    """Part a file's name from its compression's ending, which is "" for a plain file."""
    for ending in COMPRESSIONS:
        if name.lower().endswith(ending):
            return name[: -len(ending)], ending
    return name, ""


def recognize(beginning: bytes) -> str:
    """Return the ending of the compression that a file's first bytes tell, or ""."""
    for ending, compression in _COMPRESSIONS.items():
        if compression.beginning.match(beginning):
            return ending
    return ""


def decompress(raw: IO[bytes], ending: str, name: str) -> Iterator[bytes]:
    """Yield a compressed file's content in blocks of bounded size.

    Args:
        raw: the compressed bytes.
        ending: of the compression, as COMPRESSIONS lists them.
        name: of the file, for messages.

    Raises:
        CorpusError: the file is cut short or damaged, becomes larger than a text can, or a package
            is missing.
    """
    counted, given = _Counted(raw), 0
    try:
        for block in _COMPRESSIONS[ending].read(counted, name):  # type: ignore[arg-type]
            given += len(block)
            if given > MOST_TIMES * counted.bytes + MOST_BESIDE:
                raise CorpusError(
                    f"{name}: {counted.bytes:,} compressed bytes became more than {given:,}, which "
                    f"no text does (at most {MOST_TIMES} times as many); decompress it yourself if "
                    "it is one"
                )
            yield block
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, _DamageError) as error:
        raise CorpusError(
            f"{name}: the compressed file is cut short or damaged ({error}); fetch it again"
        ) from None
