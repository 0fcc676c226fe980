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
        except ValueError as error:
            raise CorpusError(f"{source.name}, line {number}: not JSON ({error})") from None
        text = row.get(settings.field) if isinstance(row, dict) else None
        if not isinstance(text, str):
            known = nearest(settings.field, row) if isinstance(row, dict) else ""
            raise CorpusError(
                f'{source.name}, line {number}: no text in the field "{settings.field}"; '
                f"name the right one with --corpus.field.{known}"
            )
        yield Piece(text, True)
