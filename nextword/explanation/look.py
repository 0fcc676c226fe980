"""A look at a text before anything is trained on it: what was read, of which files, how much."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nextword.corpus.documents import Piece, find_files, read_pieces
from nextword.corpus.options import CorpusSettings
from nextword.corpus.redact import PLACEHOLDERS, Redactor
from nextword.corpus.separators import Separator
from nextword.corpus.tally import Tally
from nextword.vocabulary.scripts import script_of

SAMPLE_CHARACTERS = 320
LEAST_REPEATS, SHORTEST_REPEATED, LONGEST_REPEATED = 5, 20, 200
_DISTINCT_LINES = 500_000
"""Kept while counting; of a larger text the lines that come later are not looked for."""
_SCRIPT_CHARACTERS = 2_000_000
"""Looked at to tell the scripts; enough for shares of a per cent."""
LEAST_SHARE = 0.01


@dataclass
class FileRead:
    """What one file gave."""

    name: str
    documents: int = 0
    characters: int = 0


@dataclass
class Sample:
    """The beginning of a document."""

    file: str
    number: int
    """Of the document in its file, from 1."""
    text: str


@dataclass
class Look:
    """What there is to know of a text before training."""

    files: list[FileRead] = field(default_factory=list)
    documents: int = 0
    characters: int = 0
    words: int = 0
    bytes: int = 0
    longest: int = 0
    """Characters of the longest document."""
    scripts: dict[str, float] = field(default_factory=dict)
    """Share of letters, for each that is 1 % or more."""
    repeated: dict[str, int] = field(default_factory=dict)
    """Lines that stand often, as headers and notices do, and how often."""
    personal: dict[str, int] = field(default_factory=dict)
    """What `--corpus.redact` would find, or has found."""
    samples: list[Sample] = field(default_factory=list)
    reading: dict[str, Any] = field(default_factory=dict)
    """As `Tally.as_dict` gives it."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def look(paths: Sequence[str], settings: CorpusSettings, samples: int, seed: int = 0) -> Look:
    """Read a text as training would, and tell what was read.

    Args:
        paths: files, folders, globs or addresses.
        settings: how they are read.
        samples: beginnings of documents to show, drawn so that each is as likely as any.
        seed: of that draw.

    Raises:
        CorpusError: as `read_pieces`.
    """
    return _Looking(settings, samples, seed).read(paths)


def _by_file(
    paths: Sequence[str], settings: CorpusSettings, tally: Tally
) -> Iterator[tuple[str, Piece]]:
    marks: dict[str, Separator | None] = {}
    for piece in read_pieces(find_files(paths, tally), settings, tally, marks):
        yield tally.file, piece


class _Looking:
    """Counts as the pieces come by; holds one document's beginning and the lines' counts."""

    def __init__(self, settings: CorpusSettings, samples: int, seed: int) -> None:
        self._settings, self._samples = settings, samples
        self._draw = random.Random(seed)
        self._letters, self._lines = Counter[str](), Counter[str]()
        self._letters_seen = 0
        self._personal = Tally()
        self.found = Look()

    def read(self, paths: Sequence[str]) -> Look:
        tally = Tally()
        redactor = Redactor(self._personal)
        size, beginning = 0, ""
        for name, piece in _by_file(paths, self._settings, tally):
            if not self.found.files or self.found.files[-1].name != name:
                self.found.files.append(FileRead(name))
            file = self.found.files[-1]
            redactor.take(piece.text, name, is_last=piece.is_last)
            self._count(piece.text)
            file.characters += len(piece.text)
            size += len(piece.text)
            if len(beginning) < SAMPLE_CHARACTERS:
                beginning += piece.text[:SAMPLE_CHARACTERS]
            if piece.is_last:
                file.documents += 1
                self.found.documents += 1
                self.found.longest = max(self.found.longest, size)
                self._sample(Sample(name, file.documents, beginning[:SAMPLE_CHARACTERS]))
                size, beginning = 0, ""
        return self._finished(tally)

    def _count(self, text: str) -> None:
        self.found.characters += len(text)
        self.found.words += len(text.split())
        self.found.bytes += len(text.encode("utf-8", "replace"))
        if self._letters_seen < _SCRIPT_CHARACTERS:
            self._letters.update(text)
            self._letters_seen += len(text)
        for line in text.split("\n"):
            line = line.strip()
            if SHORTEST_REPEATED <= len(line) <= LONGEST_REPEATED and (
                line in self._lines or len(self._lines) < _DISTINCT_LINES
            ):
                self._lines[line] += 1

    def _sample(self, one: Sample) -> None:
        """Keep it with the probability that makes each document as likely as any."""
        kept = self.found.samples
        if len(kept) < self._samples:
            kept.append(one)
        elif (place := self._draw.randrange(self.found.documents)) < self._samples:
            kept[place] = one

    def _finished(self, tally: Tally) -> Look:
        scripts = Counter[str]()
        for letter, count in self._letters.items():
            scripts[script_of(letter)] += count
        letters = sum(count for script, count in scripts.items() if script != "symbols")
        self.found.scripts = {
            script: round(count / letters, 4)
            for script, count in scripts.most_common()
            if script != "symbols" and count >= LEAST_SHARE * letters
        }
        self.found.repeated = {
            line: count for line, count in self._lines.most_common(5) if count >= LEAST_REPEATS
        }
        found = self._personal.findings | {
            kind: finding for kind, finding in tally.findings.items() if kind in PLACEHOLDERS
        }
        self.found.personal = {kind: found[kind].count for kind in PLACEHOLDERS if kind in found}
        order = {file.name: place for place, file in enumerate(self.found.files)}
        self.found.samples.sort(key=lambda one: (order[one.file], one.number))
        self.found.reading = tally.as_dict()
        return self.found
