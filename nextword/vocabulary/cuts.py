"""Where a long text may be cut for tokenization without changing any token.

Pieces end where `corpus/documents.py` says; that no token reaches across there is known of the
vocabularies built here, and of those from elsewhere whose steps stand below. Any other is given
whole texts: with Metaspace, for one, each piece would begin with a blank that the text has not.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from nextword.base.errors import CorpusError
from nextword.corpus.documents import SAFE_CUT, Piece, cut
from nextword.corpus.split import Part
from nextword.vocabulary.patterns import pattern_of
from nextword.vocabulary.tokenizer import Vocabulary

LONGEST_WHOLE = 1 << 25
"""Characters of a text that is encoded whole."""
_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "BertNormalizer", "Lowercase", "StripAccents"}
"""Work on a character and those that combine with it; what follows a cut combines with nothing."""
_PRE_TOKENIZERS = {"BertPreTokenizer", "Whitespace"}
"""Divide at every white space and sign."""


def cuts_are_safe(vocabulary: Vocabulary) -> bool:
    """Whether the tokens of a text's pieces are known to be the text's."""
    if vocabulary.is_built_here:
        return True
    described = vocabulary.description
    return (
        _normalizer_is_known(described.get("normalizer"))
        and _pre_tokenizer_is_known(described.get("pre_tokenizer"))
        and all(_stays_whole(entry) for entry in described.get("added_tokens", []))
    )


def _normalizer_is_known(step: dict[str, Any] | None) -> bool:
    if step is None:
        return True
    steps = step.get("normalizers", [step])
    return all(one.get("type") in _NORMALIZERS for one in steps)


def _pre_tokenizer_is_known(step: dict[str, Any] | None) -> bool:
    if step is None:
        return False
    return step.get("type") in _PRE_TOKENIZERS or pattern_of(step) is not None


def _stays_whole(entry: dict[str, Any]) -> bool:
    """Whether an added entry is ordinary text when encoded, or holds no place to cut."""
    if entry.get("special"):
        return True
    return not (entry.get("rstrip") or entry.get("single_word")) and not SAFE_CUT.search(
        entry["content"]
    )


def encode_stream(
    vocabulary: Vocabulary, parts: Iterable[str], *, special: bool = False
) -> Iterator[int]:
    """Encode one text that comes in parts, in bounded memory: the ids are those of the whole text.

    Args:
        vocabulary: any; with one that allows no cuts the text is held whole.
        parts: of the text, of any size, as lines of a file.
        special: names of special tokens in the text stand for their entries.

    Raises:
        CorpusError: the text is too long to be encoded whole, and has to be; or a million
            characters hold no place to cut.
    """
    pieces = chain((Piece(part, False) for part in parts), [Piece("", True)])
    names = vocabulary.description.get("added_tokens", [])
    reaches = special and any(_reaches_across(entry) for entry in names)
    whole = reaches or not cuts_are_safe(vocabulary)
    for piece in whole_texts(pieces) if whole else cut(pieces, strict=True):
        yield from vocabulary.encode(piece.text, special=special)


def _reaches_across(entry: dict[str, Any]) -> bool:
    """Whether an added entry that is read may take in what stands on both sides of a cut."""
    flags = ("lstrip", "rstrip", "single_word")
    return any(entry.get(flag) for flag in flags) or bool(SAFE_CUT.search(entry["content"]))


def whole_texts(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Put the pieces of each text together.

    Raises:
        CorpusError: a text is too long to be encoded whole.
    """
    for part in _whole(Part("train", piece) for piece in pieces):
        yield part.piece


def in_pieces(vocabulary: Vocabulary, pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield pieces as they come where that is safe, whole texts where it is not.

    Raises:
        CorpusError: a text is too long to be encoded whole.
    """
    for part in parts_for(vocabulary, (Part("train", piece) for piece in pieces)):
        yield part.piece


def parts_for(vocabulary: Vocabulary, parts: Iterable[Part]) -> Iterator[Part]:
    """Do the same with pieces that know their side.

    Raises:
        CorpusError: a text is too long to be encoded whole.
    """
    yield from parts if cuts_are_safe(vocabulary) else _whole(parts)


def _whole(parts: Iterable[Part]) -> Iterator[Part]:
    held: list[str] = []
    size = 0
    for side, piece in parts:
        held.append(piece.text)
        size += len(piece.text)
        if size > LONGEST_WHOLE:
            raise CorpusError(
                f"a text has more than {LONGEST_WHOLE:,} characters, and it is not known where "
                "this vocabulary's tokens allow a cut; divide the text (--corpus.separator), or "
                "learn a vocabulary from it"
            )
        if piece.is_last:
            yield Part(side, Piece("".join(held), True))
            held, size = [], 0
