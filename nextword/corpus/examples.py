"""Supervised examples: rows of named values from JSON lines, CSV, TSV or Parquet."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from nextword.base.errors import CorpusError
from nextword.base.options import nearest
from nextword.corpus.documents import ending_of, find_files
from nextword.corpus.formats import csv, jsonl
from nextword.corpus.options import CorpusSettings
from nextword.corpus.source import Source

FORMATS = (*jsonl.SUFFIXES, *csv.SUFFIXES)


class Row(NamedTuple):
    """One example as it stands in a file."""

    place: str
    """File and line."""
    values: dict[str, Any]

    def value(self, field: str, option: str) -> Any:
        """Return a field.

        Raises:
            CorpusError: it is missing.
        """
        value = self.values.get(field)
        if field in self.values and (value is None or value == ""):
            raise CorpusError(f'{self.place}: the field "{field}" is empty; fill or drop the line')
        if field not in self.values:
            known = ", ".join(self.values) or "none"
            raise CorpusError(
                f'{self.place}: no field "{field}", only {known}; name the right one with '
                f"{option}.{nearest(field, self.values)}"
            )
        return self.values[field]


def read_rows(paths: Sequence[str], settings: CorpusSettings) -> list[Row]:
    """Read all rows of some files, in order.

    Raises:
        CorpusError: a file is missing, damaged, empty or of another format.
    """
    found = [row for file in find_files(paths) for row in _read(file, settings)]
    if not found:
        raise CorpusError(f"{', '.join(paths)}: no examples here; give a file with rows in it")
    return found


def _read(file: str, settings: CorpusSettings) -> Iterator[Row]:
    source, ending = Source(file, settings.errors), ending_of(file, settings)
    if ending in jsonl.SUFFIXES:
        rows = jsonl.read_objects(source)
    elif ending in csv.SUFFIXES:
        rows = csv.read_table(source, ending)
    else:
        raise CorpusError(
            f"{source.name}: examples are read from files ending in {', '.join(FORMATS)}; "
            "--format says how another is read"
        )
    for line, values in rows:
        yield Row(f"{source.name}, line {line}", values)
