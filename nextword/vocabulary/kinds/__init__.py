"""Tokenizer types, one file each, found by looking into this folder.

A kind's module offers

    build        (texts, size, pattern) → a tokenizer of the `tokenizers` library, with the reserved
                 entries; `pattern` is a name of `patterns.py`, and means nothing to some kinds
    LOSSLESS     whether decode(encode(text)) is the text for every text
    SIZED        whether `size` chooses the number of entries
    EXPRESSIONS  optional: regular expressions in it beside those of `patterns.py`

and its docstring's first line says what the pieces are.
"""

import importlib
import pkgutil
from functools import cache
from types import ModuleType

from nextword.base.errors import VocabularyError
from nextword.base.options import nearest
from nextword.vocabulary.patterns import PATTERNS

RESERVED = ("<|endoftext|>", "<|pad|>", "<|mask|>")
"""End of text, pad and mask: the first entries of every vocabulary built here."""
UNKNOWN = "<|unknown|>"
"""Stands for what a vocabulary without all bytes does not hold."""


def names() -> list[str]:
    """List the kinds there are."""
    return sorted(entry.name for entry in pkgutil.iter_modules(__path__))


@cache
def expressions() -> frozenset[str]:
    """Return all regular expressions that stand in vocabularies built here."""
    own = (getattr(find_kind(name), "EXPRESSIONS", ()) for name in names())
    return frozenset({*PATTERNS.values(), *(part for parts in own for part in parts)})


def find_kind(name: str) -> ModuleType:
    """Return a kind's module.

    Raises:
        VocabularyError: there is no such kind; those there are are named.
    """
    if name not in names():
        raise VocabularyError(
            f"no vocabulary of kind {name!r}; choose one of {', '.join(names())}."
            + nearest(name, names())
        )
    return importlib.import_module(f"{__name__}.{name}")
