"""CSV and TSV: a row a document, the text in one column.

The first row names the columns. A field with a line break, the separator or a quote in it stands in
double quotes, and a quote within is doubled (RFC 4180).
"""

import csv
import struct
from collections.abc import Iterator

from nextword.base.errors import CorpusError
from nextword.corpus.documents import Piece, ending_of
from nextword.corpus.formats import no_column
from nextword.corpus.options import CorpusSettings
from nextword.corpus.source import Source

SUFFIXES = (".csv", ".tsv")
LONGEST_FIELD = (1 << (8 * struct.calcsize("l") - 1)) - 1
"""The greatest number the csv module takes; its own limit of 131,072 letters is for forms."""


def read(source: Source, settings: CorpusSettings) -> Iterator[Piece]:
    """Yield the text of each row's column, its line breaks as they are.

    Raises:
        CorpusError: the column is missing, or a row is broken; the message gives its line.
    """
    for line, row in read_table(source, ending_of(source.file, settings), settings.field):
        source.here = f"line {line}"
        yield Piece(row[settings.field], True)


def read_table(
    source: Source, ending: str, needed: str | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row's line and its fields by their columns' names.

    Args:
        source: the file.
        ending: ".tsv" where tabs part the fields, else commas do.
        needed: a column that must be there.

    Raises:
        CorpusError: the column is missing, or a row is broken; the message gives its line.
    """
    rows = _rows(source, "\t" if ending == ".tsv" else ",")
    _, header = next(rows, (0, []))
    if not header:
        return
    if needed is not None and needed not in header:
        raise no_column(source.name, needed, header)
    for line, row in rows:
        if len(row) != len(header):
            raise CorpusError(
                f"{source.name}, line {line}: this row has {len(row)} fields, the first row "
                f"{len(header)}; a field with a separator, quote or line break needs double quotes"
            )
        yield line, dict(zip(header, row, strict=True))


def _rows(source: Source, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (the line where a row begins, its fields); blank lines are passed over, and counted."""
    csv.field_size_limit(LONGEST_FIELD)
    lines = (f"{line}\n" for _, line in source.read_lines())
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        first_line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise CorpusError(
                f"{source.name}, line {first_line}: the row that begins here is broken ({error}); "
                "look for a quote that is not closed or not doubled"
            ) from None
        if row:
            yield first_line, row
        else:
            source.tally.add("blank_lines", f"{source.name}, line {first_line}")
