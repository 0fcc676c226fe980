"""File formats of a corpus, a file for each, found by looking into this folder.

A format's module offers

    SUFFIXES       the endings of the names it reads, compression aside; may be empty
    SCHEME         optional: how a path begins that is not a file but a name it knows ("dataset:")
    read           (source, settings) → its documents, in pieces
    NEEDS          optional: a package of the extra `documents`
    recognizes     optional: whether a file of a folder is one, where its ending does not tell

To read standard input in a new format, `--corpus.format` must list one of its endings.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from types import ModuleType

from nextword.base.errors import CorpusError
from nextword.base.options import nearest

COLUMNS_LISTED = 20


@cache
def _modules() -> tuple[ModuleType, ...]:
    names = [f"{__name__}.{entry.name}" for entry in pkgutil.iter_modules(__path__)]
    return tuple(importlib.import_module(name) for name in names)


@cache
def all_formats() -> dict[str, ModuleType]:
    """Return the format of every known suffix."""
    return {suffix: module for module in _modules() for suffix in module.SUFFIXES}


@cache
def all_schemes() -> dict[str, ModuleType]:
    """Return the format of every known scheme."""
    return {module.SCHEME: module for module in _modules() if hasattr(module, "SCHEME")}


def scheme_of(path: str) -> ModuleType | None:
    """Return the format whose scheme a path begins with, if one does."""
    return next((all_schemes()[key] for key in all_schemes() if path.startswith(key)), None)


def no_column(name: str, field: str, columns: Iterable[str]) -> CorpusError:
    """Say that a table lacks the column that was asked for, and which ones it has."""
    known = list(columns)
    shown = [column if len(column) <= 40 else column[:39] + "…" for column in known]
    listed = ", ".join(shown[:COLUMNS_LISTED]) + (", …" if len(known) > COLUMNS_LISTED else "")
    return CorpusError(
        f'{name}: no column "{field}", only {listed}; name the right one with --corpus.field.'
        f"{nearest(field, known)}"
    )
