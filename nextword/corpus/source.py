"""Read one file, plain or compressed, or standard input, as UTF-8; errors name the place."""

import atexit
import codecs
import contextlib
import gzip
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO

from nextword.base.errors import CorpusError

STANDARD_INPUT = "-"
COMPRESSIONS = (".gz",)
READ_BYTES = 1 << 20


class Source:
    """One file's bytes and text."""

    def __init__(self, file: str, errors: str = "strict") -> None:
        """Name the file; nothing is read yet.

        Args:
            file: its path, or "-" for standard input.
            errors: "strict" stops at bytes that are not UTF-8; "replace" puts U+FFFD for them.
        """
        self.file = file
        self.errors = errors
        self.name = "standard input" if file == STANDARD_INPUT else file

    def read_bytes(self) -> Iterator[bytes]:
        """Yield the file's bytes, decompressed, in blocks of bounded size."""
        with self._reported(), self._open() as stream:
            while block := stream.read(READ_BYTES):
                yield block

    def read_text(self) -> Iterator[str]:
        """Yield the file's text in blocks of bounded size; a leading byte-order mark is dropped.

        Raises:
            CorpusError: bytes that are not UTF-8, with the offset of the first.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(self.errors)
        offset = 0
        first = True
        for block in self._blocks():
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise CorpusError(
                    f"{self.name}: byte {offset - pending + error.start} is not UTF-8; "
                    "convert the file, or pass --corpus.errors replace to go on"
                ) from None
            offset += len(block)
            if first and text:
                text, first = text.removeprefix("\ufeff"), False
            if text:
                yield text

    def read_lines(self) -> Iterator[tuple[int, str]]:
        """Yield (line number from 1, line without its end)."""
        held, number = "", 0
        for text in self.read_text():
            *lines, held = (held + text).split("\n")
            for line in lines:
                number += 1
                yield number, line
        if held:
            yield number + 1, held

    def _blocks(self) -> Iterator[bytes]:
        yield from self.read_bytes()
        yield b""

    def _open(self) -> IO[bytes]:
        if self.file == STANDARD_INPUT:
            return open(_spooled_input(), "rb")
        if self.file.lower().endswith(".gz"):
            return gzip.open(self.file, "rb")  # type: ignore[return-value]
        return open(self.file, "rb")

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except PermissionError:
            raise CorpusError(f"{self.name}: no permission to read this file") from None
        except FileNotFoundError:
            raise CorpusError(f"{self.name}: no such file; check the spelling") from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CorpusError(
                f"{self.name}: the compressed file is cut short or damaged ({error}); fetch it "
                "again"
            ) from None
        except OSError as error:
            raise CorpusError(f"{self.name}: cannot be read ({error.strerror or error})") from None


@cache
def _spooled_input() -> str:
    """Copy standard input to a temporary file, because a corpus is read more than once."""
    with tempfile.NamedTemporaryFile("wb", prefix="nextword-stdin-", delete=False) as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool)
    atexit.register(Path(spool.name).unlink, missing_ok=True)
    return spool.name
