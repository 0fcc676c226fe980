"""Read one file, plain or compressed, near or far, or standard input, as UTF-8.

Errors name the place.
"""

import atexit
import codecs
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO

from nextword.base.errors import CorpusError
from nextword.corpus.addresses import file_name, is_address, open_address
from nextword.corpus.compressions import LOOK_BYTES, decompress, recognize, split_compression
from nextword.corpus.separators import Separator
from nextword.corpus.tally import Tally

STANDARD_INPUT = "-"
READ_BYTES = 1 << 20
LONGEST_LINE = 1 << 27
"""Characters that a record may have; they are held at once."""


class Source:
    """One file's bytes and text."""

    def __init__(
        self,
        file: str,
        errors: str = "strict",
        tally: Tally | None = None,
        marks: dict[str, Separator | None] | None = None,
    ) -> None:
        """Name the file; nothing is read yet.

        Args:
            file: its path or address, or "-" for standard input.
            errors: "strict" stops at bytes that are not UTF-8; "replace" puts U+FFFD for them.
            tally: where to count what is not read as it stands.
            marks: what parts the documents of files looked into before, by file.
        """
        self.file = file
        self.errors = errors
        self.name = "standard input" if file == STANDARD_INPUT else file
        self.tally = Tally() if tally is None else tally
        self.marks = {} if marks is None else marks
        self.here = ""
        """The record being read: "line 7"."""

    @property
    def place(self) -> str:
        """Where the record being read stands."""
        return f"{self.name}, {self.here}" if self.here else self.name

    def unnoticed(self) -> "Source":
        """Return the same file for a look that counts nothing."""
        return Source(self.file, self.errors)

    def read_bytes(self) -> Iterator[bytes]:
        """Yield the file's bytes, decompressed, in blocks of bounded size."""
        with self._reported(), self._open() as raw:
            if compression := self._compression(raw):
                yield from decompress(raw, compression, self.name)
                return
            while block := raw.read(READ_BYTES):
                yield block

    def read_text(self) -> Iterator[str]:
        """Yield the file's text in blocks of bounded size; a leading byte-order mark is dropped.

        Raises:
            CorpusError: bytes that are not UTF-8, with the offset of the first.
        """
        decoder = codecs.getincrementaldecoder("utf-8")()
        offset = 0
        first = True
        for block in self._blocks():
            pending = decoder.getstate()[0]
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                place = f"{self.name}, byte {offset - len(pending) + error.start}"
                if self.errors == "strict":
                    raise CorpusError(
                        f"{place} is not UTF-8; convert the file, or pass --corpus.errors replace "
                        "to go on"
                    ) from None
                text = self._repaired(decoder, pending + block, place, final=not block)
            offset += len(block)
            if first and text:
                if text.startswith("\ufeff"):
                    self.tally.add("byte_order_marks", self.name)
                text, first = text.removeprefix("\ufeff"), False
            if text:
                yield text

    def _repaired(
        self, decoder: codecs.IncrementalDecoder, block: bytes, place: str, *, final: bool
    ) -> str:
        """Decode a block with U+FFFD for what is not UTF-8, and count that."""
        decoder.reset()
        replacing = codecs.getincrementaldecoder("utf-8")("replace")
        text = replacing.decode(block, final=final)
        rest = replacing.getstate()[0]
        decoder.decode(rest)
        own = block[: len(block) - len(rest)].count("\ufffd".encode())
        self.tally.add("replaced", place, text.count("\ufffd") - own)
        return text

    def decode(self, raw: bytes) -> str:
        """Decode one text of a file that holds several.

        Raises:
            CorpusError: it is not UTF-8.
        """
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            if self.errors == "strict":
                raise CorpusError(
                    f"{self.place}: this text is not UTF-8; convert the file, or pass "
                    "--corpus.errors replace to go on"
                ) from None
        text = raw.decode("utf-8", "replace")
        self.tally.add("replaced", self.place, text.count("\ufffd") - raw.count("\ufffd".encode()))
        return text

    def read_lines(self) -> Iterator[tuple[int, str]]:
        """Yield (line number from 1, line without its end).

        Raises:
            CorpusError: a line is longer than any record should be.
        """
        held: list[str] = []
        number = size = 0
        for text in self.read_text():
            *lines, rest = text.split("\n")
            for line in lines:
                number += 1
                yield number, "".join([*held, line])
                held.clear()
                size = 0
            if rest:
                held.append(rest)
                size += len(rest)
            if size > LONGEST_LINE:
                raise CorpusError(
                    f"{self.name}, line {number + 1}: longer than {LONGEST_LINE:,} characters; "
                    "each record stands on a line of its own"
                )
        if held:
            yield number + 1, "".join(held)

    @contextlib.contextmanager
    def local_path(self) -> Iterator[str]:
        """Give the path of a local file with the content, for a format that reads here and there.

        A plain local file is that file; of any other a temporary copy is made, and removed after.
        """
        if plain := self._plain_path():
            yield plain
            return
        with tempfile.TemporaryDirectory(prefix="nextword-", ignore_cleanup_errors=True) as folder:
            copy = Path(folder) / "content"
            with self._reported(), open(copy, "wb") as stream:
                for block in self.read_bytes():
                    stream.write(block)
            yield str(copy)

    def _blocks(self) -> Iterator[bytes]:
        yield from self.read_bytes()
        yield b""

    def _open(self) -> IO[bytes]:
        if self.file == STANDARD_INPUT:
            return open(_spooled_input(), "rb")
        if is_address(self.file):
            return open_address(self.file)
        return open(self.file, "rb")

    def _compression(self, raw: IO[bytes]) -> str:
        """Tell the compression by the name's ending; standard input has none, so by its bytes."""
        if self.file != STANDARD_INPUT:
            return split_compression(file_name(self.file))[1]
        beginning = raw.read(LOOK_BYTES)
        raw.seek(0)
        return recognize(beginning)

    def _plain_path(self) -> str:
        """Return the path of a file that is neither far nor compressed, "" of others."""
        if is_address(self.file):
            return ""
        with self._reported(), self._open() as raw:
            if self._compression(raw):
                return ""
        return _spooled_input() if self.file == STANDARD_INPUT else self.file

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except PermissionError:
            raise CorpusError(f"{self.name}: no permission to read this file") from None
        except FileNotFoundError:
            raise CorpusError(f"{self.name}: no such file; check the spelling") from None
        except OSError as error:
            raise CorpusError(f"{self.name}: cannot be read ({error.strerror or error})") from None


@cache
def _spooled_input() -> str:
    """Copy standard input to a temporary file, because a corpus is read more than once."""
    with tempfile.NamedTemporaryFile("wb", prefix="nextword-stdin-", delete=False) as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool)
    atexit.register(Path(spool.name).unlink, missing_ok=True)
    return spool.name
