"""JSON lines: one object a line, one document an object, the text in one field."""

import json
from collections.abc import Iterator

from nextword.base.errors import CorpusError
from nextword.base.options import nearest
from nextword.corpus.documents import Piece
from nextword.corpus.options import CorpusSettings
from nextword.corpus.source import Source

SUFFIXES = (".jsonl", ".ndjson")


def read(source: Source, settings: CorpusSettings) -> Iterator[Piece]:
    """Yield the text of each line's field.

    Raises:
        CorpusError: a line is not a JSON object or lacks the field; the message gives its number.
    """
    for number, line in source.read_lines():
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CorpusError(
                f"{source.name}, line {number}: not JSON ({error.msg} at character {error.colno})"
            ) from None
        if not isinstance(row, dict) or settings.field not in row:
            known = nearest(settings.field, row) if isinstance(row, dict) else ""
            raise CorpusError(
                f'{source.name}, line {number}: no text in the field "{settings.field}"; '
                f"name the right one with --corpus.field.{known}"
            )
        text = row[settings.field]
        if text is None:
            continue  # as a table's empty cell
        if not isinstance(text, str):
            raise CorpusError(
                f'{source.name}, line {number}: the field "{settings.field}" holds '
                f"{json.dumps(text)[:40]}, which is no text; name another with --corpus.field"
            )
        yield Piece(text, True)
