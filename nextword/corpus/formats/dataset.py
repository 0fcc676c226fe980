"""A Hugging Face dataset by its name: `dataset:NAME?config=...&split=...&revision=...`.

NAME is one on huggingface.co (`dataset:roneneldan/TinyStories?split=validation`), read as it
arrives, or a local folder: one that `save_to_disk` wrote, or one of data files. The split is
`train` where none is named. Nothing that a dataset brings along is run.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from nextword.base.errors import CorpusError
from nextword.base.options import nearest
from nextword.corpus.documents import Piece
from nextword.corpus.formats import no_column
from nextword.corpus.options import CorpusSettings
from nextword.corpus.packages import import_package, one_line
from nextword.corpus.source import Source

SUFFIXES = ()
SCHEME = "dataset:"
BATCH_ROWS = 256
_WORDS = ("config", "split", "revision")


class _Request(NamedTuple):
    """A dataset's address, taken apart."""

    name: str
    config: str | None
    split: str | None
    revision: str | None = None
    """A commit, to which a run pins it."""


def read(source: Source, settings: CorpusSettings) -> Iterator[Piece]:
    """Yield the text of each row's column, a few rows at a time; rows without one are left out.

    Raises:
        CorpusError: the dataset cannot be reached or read, or lacks the split or the column.
    """
    request = _parse(source.file)
    datasets = import_package("datasets", source.name)
    datasets.disable_progress_bars()
    with _reported(source.name):
        rows = _open(datasets, request, source.name).with_format(None)
        for text in _texts(rows, settings.field, source):
            yield Piece(text, True)


def _parse(address: str) -> _Request:
    name, _, query = address.removeprefix(SCHEME).partition("?")
    words = dict(parse_qsl(query, keep_blank_values=True))
    for word in words:
        if word not in _WORDS:
            raise CorpusError(
                f"{address}: {word!r} is not known here; after the ? may stand config=..., "
                f"split=... and revision=..., with & between.{nearest(word, _WORDS)}"
            )
    if not name:
        raise CorpusError(f"{address}: the dataset has no name; write dataset:OWNER/NAME")
    return _Request(name, words.get("config"), words.get("split"), words.get("revision"))


def _open(datasets: Any, request: _Request, name: str) -> Any:
    folder, split = Path(request.name), request.split or "train"
    if (folder / "dataset_dict.json").is_file():
        splits = datasets.load_from_disk(request.name)
        if split not in splits:
            raise _no_split(name, split, list(splits))
        return splits[split]
    if (folder / "state.json").is_file():
        rows = datasets.load_from_disk(request.name)
        if request.split and rows.split and request.split != str(rows.split):
            raise _no_split(name, request.split, [str(rows.split)])
        return rows
    if not folder.is_dir() and (folder.is_absolute() or request.name.startswith(".")):
        raise CorpusError(f"{name}: no such folder; check the spelling")
    return datasets.load_dataset(
        request.name, request.config, split=split, revision=request.revision, streaming=True
    )


def _no_split(name: str, split: str, known: list[str]) -> CorpusError:
    return CorpusError(
        f'{name}: no split "{split}", only {", ".join(known)}; name one with ?split=...'
        f"{nearest(split, known)}"
    )


def _texts(rows: Any, field: str, source: Source) -> Iterator[str]:
    name, number = source.name, 0
    if rows.column_names is not None:
        if field not in rows.column_names:
            raise no_column(name, field, rows.column_names)
        rows = rows.select_columns([field])  # pictures and sounds beside it are not decoded
    for batch in rows.iter(batch_size=BATCH_ROWS):
        if field not in batch:
            raise no_column(name, field, batch)
        for text in batch[field]:
            number += 1
            source.here = f"row {number}"
            if text is None:
                source.tally.records += 1
                source.tally.add("null", source.place)
                continue
            if not isinstance(text, str):
                raise CorpusError(
                    f'{source.place}: the column "{field}" holds {type(text).__name__}, not text; '
                    "name another with --corpus.field"
                )
            yield text


@contextlib.contextmanager
def _reported(name: str) -> Iterator[None]:
    """Turn whatever `datasets` and the network raise into one line: there is no common error."""
    try:
        yield
    except CorpusError:
        raise
    except Exception as error:
        raise CorpusError(
            f"{name}: the dataset cannot be read ({one_line(error)}); check its name, config and "
            "split, and that this machine reaches huggingface.co"
        ) from None
