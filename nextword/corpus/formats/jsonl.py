"""JSON lines: one object a line, one document an object, the text in one field."""

import json
from collections.abc import Iterator
from typing import Any

from nextword.base.errors import CorpusError
from nextword.base.options import nearest
from nextword.corpus.documents import Piece
from nextword.corpus.options import CorpusSettings
from nextword.corpus.source import Source

SUFFIXES = (".jsonl", ".ndjson")


def read_objects(source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each line's number and object; blank lines are passed over, and counted.

    Raises:
        CorpusError: a line is not a JSON object; the message gives its number.
    """
    for number, line in source.read_lines():
        source.here = f"line {number}"
        if not line.strip():
            source.tally.add("blank_lines", source.place)
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CorpusError(
                f"{source.name}, line {number}: not JSON ({error.msg} at character {error.colno})"
            ) from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, say
            raise CorpusError(
                f"{source.name}, line {number}: cannot be read as JSON ({str(error)[:80]})"
            ) from None
        if not isinstance(row, dict):
            raise CorpusError(
                f"{source.name}, line {number}: no JSON object, so no text in a field of it"
            )
        yield number, row


def read(source: Source, settings: CorpusSettings) -> Iterator[Piece]:
    """Yield the text of each line's field.

    Raises:
        CorpusError: a line is not a JSON object or lacks the field; the message gives its number.
    """
    for number, row in read_objects(source):
        if settings.field not in row:
            raise CorpusError(
                f'{source.name}, line {number}: no text in the field "{settings.field}"; '
                f"name the right one with --corpus.field.{nearest(settings.field, row)}"
            )
        text = row[settings.field]
        if text is None:
            source.tally.records += 1
            source.tally.add("null", source.place)
            continue
        if not isinstance(text, str):
            raise CorpusError(
                f'{source.name}, line {number}: the field "{settings.field}" holds '
                f"{json.dumps(text)[:40]}, which is no text; name another with --corpus.field"
            )
        yield Piece(text, True)
