"""Documents that are zip archives of parts, as EPUB and DOCX are."""

import contextlib
import struct
import zipfile
import zlib
from collections.abc import Iterator

from nextword.base.errors import CorpusError
from nextword.corpus.compressions import MOST_BESIDE, MOST_TIMES
from nextword.corpus.source import Source


@contextlib.contextmanager
def open_archive(source: Source, kind: str) -> Iterator[zipfile.ZipFile]:
    """Give the archive that a file is.

    Args:
        source: the file.
        kind: what it should be, for messages.

    Raises:
        CorpusError: it is damaged, locked, or would become larger than a text can.
    """
    damaged = f"{source.name}: damaged, or not {kind}; fetch it again"
    with source.local_path() as path:
        try:
            with zipfile.ZipFile(path) as archive:
                parts = archive.infolist()
                whole = sum(part.file_size for part in parts)
                packed = sum(part.compress_size for part in parts)
                if whole > MOST_TIMES * packed + MOST_BESIDE:
                    raise CorpusError(
                        f"{source.name}: {packed:,} compressed bytes would become {whole:,}, which "
                        f"no text does (at most {MOST_TIMES} times as many)"
                    )
                if any(part.flag_bits & 1 for part in parts):
                    raise CorpusError(f"{source.name}: needs a password; save it without one")
                yield archive
        except _DAMAGE:
            raise CorpusError(damaged) from None


_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, ValueError),
    *(OSError, OverflowError, NotImplementedError),
)
"""What zipfile says of an archive whose numbers lead nowhere."""
