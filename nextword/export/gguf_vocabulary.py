"""A vocabulary as llama.cpp knows it: entries in the letters of bytes, merges, a pattern."""

from typing import Any, NamedTuple

from nextword.base.errors import VocabularyError
from nextword.vocabulary.alphabet import to_letters
from nextword.vocabulary.patterns import pattern_of
from nextword.vocabulary.tokenizer import Vocabulary

PATTERNS = {"gpt2": "gpt-2", "llama3": "llama-bpe", "qwen2": "qwen2"}
"""How llama.cpp calls the patterns."""
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # of llama.cpp's kinds of tokens
_WHAT_WORKS = "export a model with a vocabulary of kind bpe, byte or char"


class GgufVocabulary(NamedTuple):
    """What is written of a vocabulary."""

    pattern: str
    entries: list[str]
    """By id; an id that has none is called [unused…]."""
    kinds: list[int]
    merges: list[str]
    loses_unknown: bool
    """Whether characters that have no entry vanish, for llama.cpp's has no entry for unknown."""


def is_known(vocabulary: Vocabulary) -> bool:
    """Say whether llama.cpp can divide a text as a vocabulary does."""
    try:
        translate(vocabulary, len(vocabulary))
    except VocabularyError:
        return False
    return True


def translate(vocabulary: Vocabulary, size: int) -> GgufVocabulary:
    """Spell a vocabulary for llama.cpp.

    Args:
        vocabulary: of the model.
        size: rows of its table of embeddings, which may be more than there are entries.

    Raises:
        VocabularyError: llama.cpp has no such kind.
    """
    described, made = vocabulary.description, vocabulary.is_built_here and vocabulary.kind
    model, in_characters = described["model"], made == "char"
    if not in_characters and (model["type"] != "BPE" or described.get("normalizer")):
        raise VocabularyError(
            f"llama.cpp cannot divide a text as this vocabulary ({made or model['type']}) does; "
            f"{_WHAT_WORKS}"
        )
    pattern = pattern_of(described.get("pre_tokenizer") or {})
    if made in ("byte", "char"):  # whatever cuts a text there, no entry reaches across
        pattern = "gpt2"
    if pattern is None:
        raise VocabularyError(
            f"llama.cpp does not know how this vocabulary cuts a text before merging; {_WHAT_WORKS}"
        )
    added = {entry["id"]: entry for entry in described.get("added_tokens", [])}
    entries = [f"[unused{number}]" for number in range(size)]
    kinds = [_CONTROL] * size  # what has no name is never matched
    for piece, id_ in model["vocab"].items():
        entries[id_] = to_letters(piece.encode()) if in_characters else piece
        kinds[id_] = _NORMAL
    for id_, entry in added.items():
        entries[id_] = entry["content"]
        kinds[id_] = _CONTROL if entry["special"] else _USER_DEFINED
    merges = _merges_of(model, [entries[i] for i, kind in enumerate(kinds) if kind == _NORMAL])
    return GgufVocabulary(PATTERNS[pattern], entries, kinds, merges, in_characters)


def _merges_of(model: dict[str, Any], entries: list[str]) -> list[str]:
    merges = [" ".join(one) if isinstance(one, list) else one for one in model.get("merges", [])]
    if merges:
        return merges
    # A character of several bytes grows from its first byte on; none is the beginning of another.
    grown = {
        f"{entry[:end]} {entry[end]}": None for entry in entries for end in range(1, len(entry))
    }
    # llama.cpp wants one merge at least: of two bytes that follow each other in no text, and should
    # they do so, it writes them one by one, for their whole has no entry.
    return list(grown) or [" ".join(to_letters(bytes([byte])) for byte in (0xFE, 0xFF))]
