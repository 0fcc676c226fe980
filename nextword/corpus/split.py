"""Train/validation split of documents, by a hash of content, so that no text is on both sides.

Many documents are divided by a hash of their content: exact duplicates fall on one side. Of fewer
than ten, each gives the last tenth of its text, as nanoGPT does with one.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from nextword.base.errors import CorpusError
from nextword.corpus.documents import Piece
from nextword.corpus.options import HOLDOUT_SHARE, HOLDOUT_TOKENS, CorpusSettings
from nextword.corpus.tally import Tally

MANY_DOCUMENTS = 10
MAX_HASHES = 1_000_000
BYTES_PER_TOKEN = 4
_HASH_SPAN = 1 << 64

Side = Literal["train", "holdout"]


class Part(NamedTuple):
    """A piece and the side it belongs to."""

    side: Side
    piece: Piece


@dataclass
class Scan:
    """What one reading of a corpus found."""

    digest: str = ""
    documents: int = 0
    num_bytes: int = 0
    duplicates: int = 0
    """Documents that repeat an earlier one exactly.

    Counted among the first million different ones.
    """
    tally: Tally = field(default_factory=Tally)
    """What of them is not read as it stands."""
    lengths: list[int] = field(default_factory=list)
    """Characters of each document, as long as there are few."""
    hashes: set[int] = field(default_factory=set)
    lowest: int = _HASH_SPAN
    highest: int = 0


def scan(pieces: Iterable[Piece]) -> Scan:
    """Read all documents once: count them, and take the digest of everything."""
    found, whole = Scan(), hashlib.blake2b(digest_size=16)
    content, length = hashlib.blake2b(digest_size=16), 0
    for piece in pieces:
        raw = _bytes_of(piece.text, found)
        found.num_bytes += len(raw)
        whole.update(raw)
        content.update(raw)
        if not length:
            first = hash_text(piece.text)
        length += len(piece.text)
        if piece.is_last:
            whole.update(b"\xff" + length.to_bytes(8, "little"))
            _count_document(found, first, int.from_bytes(content.digest()[:8], "little"), length)
            content, length = hashlib.blake2b(digest_size=16), 0
    found.digest = whole.hexdigest()
    return found


def _bytes_of(text: str, found: Scan) -> bytes:
    """Return a text's bytes; count what UTF-8 cannot hold, for which a ? will stand."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        halves = sum("\ud800" <= letter <= "\udfff" for letter in text)
        found.tally.add("surrogates", f"document {found.documents + 1:,}", halves)
        return text.encode("utf-8", "surrogatepass")


def _count_document(found: Scan, first: int, content: int, length: int) -> None:
    found.documents += 1
    found.lowest, found.highest = min(found.lowest, first), max(found.highest, first)
    if len(found.lengths) < MANY_DOCUMENTS:
        found.lengths.append(length)
    if content in found.hashes:
        found.duplicates += 1
        found.tally.add("repeated", f"document {found.documents:,}")
    elif len(found.hashes) < MAX_HASHES:
        found.hashes.add(content)


def hash_text(text: str) -> int:
    """Return 64 bits of a text's content.

    Of a document in several pieces the first decides its side.
    """
    digest = hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=8, person=b"holdout"
    ).digest()
    return int.from_bytes(digest, "little")


def plan_split(
    found: Scan, settings: CorpusSettings, bytes_per_token: float = BYTES_PER_TOKEN
) -> "Split":
    """Choose how to divide, so that neither side is empty.

    Args:
        found: what the corpus holds.
        settings: the share to hold out, if one was asked for.
        bytes_per_token: a guess, to turn the limit of a million tokens into a share.

    Raises:
        CorpusError: the text is too short to divide.
    """
    if not found.documents:
        raise CorpusError("the corpus holds no text; give a file or folder with text in it")
    share = settings.holdout
    if share is None:
        share = min(HOLDOUT_SHARE, HOLDOUT_TOKENS * bytes_per_token / found.num_bytes)
    if found.documents < MANY_DOCUMENTS or found.lowest == found.highest:
        if found.documents >= MANY_DOCUMENTS:
            raise CorpusError(
                f"all {found.documents} documents begin with the same text; give it once"
            )
        keep = [length - max(1, round(length * share)) for length in found.lengths]
        if not any(keep):
            raise CorpusError(
                f"the text is too short to train on ({sum(found.lengths)} characters); give more "
                "text"
            )
        return Split(keep=tuple(keep))
    threshold = min(max(int(share * _HASH_SPAN), found.lowest + 1), found.highest)
    return Split(threshold=threshold)


@dataclass(frozen=True)
class Split:
    """A rule that sends every piece of text to one side."""

    keep: tuple[int, ...] = ()
    """Of few documents: how many characters of each are for training."""
    threshold: int = 0
    """Of many: those whose hash is below it are held out."""

    def divide(self, pieces: Iterable[Piece]) -> Iterator[Part]:
        """Yield every piece with its side, in order."""
        return self._by_tail(pieces) if self.keep else self._by_hash(pieces)

    def _by_hash(self, pieces: Iterable[Piece]) -> Iterator[Part]:
        starts, side = True, "train"
        for piece in pieces:
            if starts:
                side = "holdout" if hash_text(piece.text) < self.threshold else "train"
            yield Part(side, piece)  # type: ignore[arg-type]
            starts = piece.is_last

    def _by_tail(self, pieces: Iterable[Piece]) -> Iterator[Part]:
        document, position = 0, 0
        for piece in pieces:
            border = self.keep[document] - position
            if border >= len(piece.text):
                yield Part("train", Piece(piece.text, piece.is_last or border == len(piece.text)))
            elif border <= 0:
                yield Part("holdout", piece)
            else:
                yield Part("train", Piece(piece.text[:border], True))
                yield Part("holdout", Piece(piece.text[border:], piece.is_last))
            position += len(piece.text)
            if piece.is_last:
                document, position = document + 1, 0


@dataclass(frozen=True)
class Corpus:
    """Documents that can be read again from the start."""

    name: str
    pieces: Callable[[], Iterator[Piece]]
    tally: Tally = field(default_factory=Tally)
    """What the last whole reading did not read as it stands."""
    is_drawn: bool = False
    """Whether it is drawn from few words, each of which comes often."""
