"""Parquet: a row a document, the text in one column."""

from collections.abc import Iterator
from typing import Any

from nextword.base.errors import CorpusError
from nextword.corpus.documents import Piece
from nextword.corpus.formats import no_column
from nextword.corpus.options import CorpusSettings
from nextword.corpus.packages import import_package, one_line
from nextword.corpus.source import Source

SUFFIXES = (".parquet",)
BATCH_ROWS = 256
BUFFER_BYTES = 1 << 20


def read(source: Source, settings: CorpusSettings) -> Iterator[Piece]:
    """Yield the text of each row's column, a few rows at a time; rows without one are left out.

    Raises:
        CorpusError: the column is missing or is no text, or the file is damaged.
    """
    arrow = import_package("pyarrow", source.name)
    parquet = import_package("pyarrow.parquet", source.name)
    with source.local_path() as path:
        try:
            # Read ahead, or without a buffer, arrow takes in a whole row group's column at once.
            with parquet.ParquetFile(
                path, pre_buffer=False, buffer_size=BUFFER_BYTES, page_checksum_verification=True
            ) as table:
                _check_column(arrow, table.schema_arrow, source.name, settings.field)
                batches = table.iter_batches(
                    BATCH_ROWS, columns=[settings.field], use_threads=False
                )
                row = 0
                for batch in batches:
                    yield from _pieces(arrow, batch.column(0), source, row)
                    row += len(batch)
        except (arrow.ArrowException, OSError) as error:
            raise CorpusError(
                f"{source.name}: damaged, or not a Parquet file ({one_line(error)}); fetch it again"
            ) from None


def _check_column(arrow: Any, schema: Any, name: str, field: str) -> None:
    if field not in schema.names:
        raise no_column(name, field, schema.names)
    kind = schema.field(field).type
    held = kind.value_type if arrow.types.is_dictionary(kind) else kind
    is_text = (arrow.types.is_string, arrow.types.is_large_string, arrow.types.is_string_view)
    if not any(check(held) for check in is_text):
        texts = [column.name for column in schema if str(column.type).endswith("string")]
        raise CorpusError(
            f'{name}: the column "{field}" holds {kind}, not text; name another with '
            f"--corpus.field (text is in: {', '.join(texts) or 'none'})"
        )


def _pieces(arrow: Any, column: Any, source: Source, before: int) -> Iterator[Piece]:
    """Decode here, because arrow takes a string's bytes on trust."""
    if arrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    for number, raw in enumerate(column.cast(arrow.large_binary()).to_pylist(), before + 1):
        source.here = f"row {number}"
        if raw is None:
            source.tally.records += 1
            source.tally.add("null", source.place)
            continue
        yield Piece(source.decode(raw), True)
