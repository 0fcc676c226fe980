"""Document separators: the marks that stand between documents in one text file.

GPT-2's outputs, TinyStories and many others write `<|endoftext|>` on a line of its own. What stands
between two documents belongs to neither: the mark, and the line break after it where the mark is
all there is on its line.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nextword.base.errors import CorpusError

MARKS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "\f")
"""Lines that end a document wherever one of them stands more than once in a file."""
AUTO, NONE, BLANK_LINES = "auto", "none", "blank-lines"
_BLANKS = 16
"""White space that may stand on either side of a mark alone on its line."""
_EMPTY_LINES, _WIDEST = 64, 64
"""Taken as one separator at most, and characters of such a line."""
_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\f": "\f", r"\r": "\r", r"\0": "\0"}


@dataclass(frozen=True)
class Separator:
    """What ends a document."""

    name: str
    pattern: re.Pattern[str]
    reach: int
    """More characters than one of it has."""
    may_begin: tuple[str, ...]
    """A text without any of these holds none of it."""

    def divide(self, blocks: Iterable[str]) -> Iterator[tuple[str, str | None]]:
        """Yield (text, the separator after it, or None where the text goes on).

        Args:
            blocks: of the text. Memory holds one of them and a separator's length.
        """
        held, place = "", 0  # what stands before `place` was given, and is kept for a line's ^
        for block in blocks:
            held += block
            sure = len(held) - self.reach  # what begins before here is not changed by what follows
            for match in self._find(held, place):
                if match.start() >= sure:
                    break
                yield held[place : match.start()], match.group()
                place = match.end()
            if sure > place:
                yield held[place:sure], None
                place = sure
            keep = max(place - 1, 0)
            held, place = held[keep:], place - keep
        for match in self._find(held, place):
            yield held[place : match.start()], match.group()
            place = match.end()
        yield held[place:], None

    def _find(self, text: str, place: int) -> Iterator[re.Match[str]]:
        if any(mark in text for mark in self.may_begin):
            yield from self.pattern.finditer(text, place)


def line_of(mark: str) -> Separator:
    """Find a mark that is all there is on its line."""
    line = rf"^{_beside(mark)}{re.escape(mark)}{_beside(mark)}(?:\r?\n|\r?\Z)"
    return Separator(mark, re.compile(line, re.MULTILINE), len(mark) + 2 * _BLANKS + 4, (mark,))


def asked(separator: str) -> Separator:
    r"""Find what was asked for.

    Args:
        separator: "blank-lines", or the text that stands between documents; \n, \t, \f, \r and \0
            stand for what they do elsewhere.

    Raises:
        CorpusError: it is empty.
    """
    if not separator:
        raise CorpusError(
            "--corpus.separator is empty; name the text between documents, blank-lines, or none"
        )
    if separator == BLANK_LINES:
        line = rf"[ \t\r]{{0,{_WIDEST}}}\n"
        pattern = re.compile(rf"\n(?:{line}){{1,{_EMPTY_LINES}}}")
        return Separator(separator, pattern, _EMPTY_LINES * (_WIDEST + 1) + 3, ("\n",))
    for written, meant in _ESCAPES.items():
        separator = separator.replace(written, meant)
    line_ = line_of(separator)
    either = re.compile(f"{line_.pattern.pattern}|{re.escape(separator)}", re.MULTILINE)
    return Separator(separator, either, line_.reach, (separator,))


def find_mark(blocks: Iterable[str]) -> Separator | None:
    """Return the well-known mark that stands on more than one line of a text, if one does.

    Args:
        blocks: of the text; read up to the second such line.
    """
    lines = [line_of(mark) for mark in MARKS]
    pattern = re.compile("|".join(line.pattern.pattern for line in lines), re.MULTILINE)
    any_of = Separator("", pattern, max(line.reach for line in lines), MARKS)
    seen = set()
    for _, found in any_of.divide(blocks):
        if found is None:
            continue
        line = next(line for line in lines if line.name in found)
        if line.name in seen:
            return line
        seen.add(line.name)
    return None


def _beside(mark: str) -> str:
    return rf"[ \t]{{0,{_BLANKS}}}" if mark[:1].isspace() else rf"[ \t\f]{{0,{_BLANKS}}}"
