"""Corpus formats, one file each, found by looking into this folder.

A format's module offers

    SUFFIXES       the endings of the names it reads, compression aside
    read           (source, settings) → its documents, in pieces
"""

import importlib
import pkgutil
from functools import cache
from types import ModuleType


@cache
def all_formats() -> dict[str, ModuleType]:
    """Return the format of every known suffix."""
    found: dict[str, ModuleType] = {}
    for entry in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{entry.name}")
        found.update(dict.fromkeys(module.SUFFIXES, module))
    return found
