"""Lines as they were set on pages, made text again: pages' edges, words parted, paragraphs.

A book's page says its title and number on top or at the foot, ends its lines where the paper does,
and parts words there. None of that was written by the author; a model would learn it.
"""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

PARTED = "\ufffe"
"""Ends a line within a word: a sign of PDFium's."""
EDGE_LINES = 3
"""A header or footer is among so many lines at the beginning or the end of a page."""
LEAST_PAGES = 3
"""A line at the edge of fewer pages is taken for text."""
EDGE_SHARE = 0.2
"""Of a document's pages, on which the same line stands at the edge; titles of chapters change."""
RUNNING_TEXT, MOST_CAPITALS = 30, 0.8
"""Characters of a long line in prose, and the share of its lines that may begin with a capital;
verse, tables and code keep their lines."""

_LONGEST_WORD = 64
_NUMBERS = re.compile(r"\d+|\b[ivxlc]+\b")
_WORDS = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_BEGINS_ANEW = re.compile(r"[-*•▪◦–—]\s|\(?\d{1,3}[.)]\s")
_SENTENCE_ENDS = re.compile(r"[.!?:…。！？][\"'”’»)\]]*$")


class Line(NamedTuple):
    """A line of a page, and where it stands on it: in points, from the page's lower left corner."""

    text: str
    left: float
    right: float
    top: float
    bottom: float

    @property
    def width(self) -> float:
        """How long it is."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """How high its letters are, which a heading's are more than the text's."""
        return self.top - self.bottom


def without_edges(pages: Sequence[Sequence[Line]]) -> tuple[list[list[Line]], int]:
    """Take away the lines at pages' edges that repeat from page to page.

    Lines that differ by their numbers only are one: "Page 7 of 80", "xii".

    Args:
        pages: the lines of each.

    Returns:
        The pages, and how many lines were taken away.
    """
    seen = Counter[str]()
    for page in pages:
        seen.update({_alike(page[place]) for place in _edges(page)})
    often = {
        line for line, count in seen.items() if count >= max(LEAST_PAGES, EDGE_SHARE * len(pages))
    }
    kept, taken = [], 0
    for page in pages:
        gone = set[int]()
        for edge in (range(EDGE_LINES), range(-1, -EDGE_LINES - 1, -1)):
            for place in edge:  # from the edge inwards; the first line of the text ends it
                if not -len(page) <= place < len(page) or _alike(page[place]) not in often:
                    break
                gone.add(place % len(page))
        kept.append([line for place, line in enumerate(page) if place not in gone])
        taken += len(gone)
    return kept, taken


def _edges(page: Sequence[Line]) -> set[int]:
    places = [*range(EDGE_LINES), *range(len(page) - EDGE_LINES, len(page))]
    return {place for place in places if 0 <= place < len(page)}


def _alike(line: Line) -> str:
    return _NUMBERS.sub("#", " ".join(line.text.casefold().split()))


def join_words(text: str) -> tuple[str, int]:
    """Put words together that were parted at a line's end.

    Whether the hyphen is the word's own ("well-known") is what the rest of the text shows.

    Returns:
        The text, and how many words were put together.
    """
    parts = text.split(PARTED)
    if len(parts) == 1:
        return text, 0
    known = Counter(word.casefold() for word in _WORDS.findall(text))
    joined = [parts[0]]
    for before, after in itertools.pairwise(parts):
        left, right = (found.group().casefold() for found in (_end(before), _beginning(after)))
        hyphened = known[f"{left}-{right}"] > known[left + right]
        joined += ["-" if hyphened or not (left and right) else "", after]
    return "".join(joined), len(parts) - 1


def _end(text: str) -> re.Match[str]:
    found = re.search(r"[^\W\d_]*$", text[-_LONGEST_WORD:])
    assert found is not None  # it may be empty
    return found


def _beginning(text: str) -> re.Match[str]:
    found = re.match(r"[^\W\d_]*", text)
    assert found is not None
    return found


def paragraphs(pages: Sequence[Sequence[Line]]) -> str:
    """Join the lines of running text to paragraphs, which an empty line parts.

    Lines are joined where most are full: the next one's first word had no room on them. A paragraph
    ends where there was room, where more room follows than between lines, and where the next is set
    in. What is no running text (verse, tables, code) keeps its lines.
    """
    lines = [line for page in pages for line in page]
    wide = _at(0.9, [line.width for line in lines])
    if not _is_prose(lines, wide):
        return "\n".join(line.text for line in lines)
    steps = [a.top - b.top for page in pages for a, b in itertools.pairwise(page) if a.top > b.top]
    step = _at(0.5, steps)
    parts = [lines[0].text]
    for before, line in itertools.pairwise(lines):
        if not before.text.endswith(PARTED):
            parts.append(" " if _goes_on(before, line, wide, step) else "\n\n")
        parts.append(line.text)
    return "".join(parts)


def _is_prose(lines: Sequence[Line], wide: float) -> bool:
    if _at(0.9, [len(line.text) for line in lines]) < RUNNING_TEXT:
        return False
    after = [line for before, line in itertools.pairwise(lines) if _is_full(before, line, wide)]
    capitals = sum(line.text.lstrip("\"'“‘«([")[:1].isupper() for line in after)
    return len(after) >= len(lines) / 2 and capitals < MOST_CAPITALS * len(after)


def _is_full(before: Line, line: Line, wide: float) -> bool:
    """Whether a line's first word had no room on the line before it."""
    if before.text.endswith(PARTED):
        return True
    letter = before.width / len(before.text)
    needs = letter * (1 + len(line.text.split(maxsplit=1)[0]))
    ends = _SENTENCE_ENDS.search(before.text)
    set_in = max(0.0, before.left - line.left) if before.top > line.top else 0.0
    return wide - before.width - set_in < needs * (1.0 if ends else 1.4)


def _goes_on(before: Line, line: Line, wide: float, step: float) -> bool:
    if _BEGINS_ANEW.match(line.text) or abs(line.height - before.height) > 0.3 * before.height:
        return False
    down = before.top - line.top
    if down > 0 and (down > 1.35 * step or line.left > before.left + 0.015 * wide):
        return False
    return _is_full(before, line, wide) or line.text[:1].islower()


def _at(share: float, values: Sequence[float]) -> float:
    return sorted(values)[int(share * (len(values) - 1))] if values else 0.0
