"""Counts of examples: learned from, held out, or left out and why."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nextword.base.errors import CorpusError
from nextword.objectives.options import ExamplesSettings

NAMED = 5
"""Rows that a refusal names."""

WORDS = {
    "unknown_shape": "of no known shape",
    "damaged": "with a field or message that cannot be read",
    "ends_unanswered": "ending without an answer of the assistant",
    "no_answer": "without any answer",
    "only_system": "with a system message alone",
    "empty_answer": "with an empty answer",
    "empty_prompt": "with an empty prompt",
    "no_text": "without a text",
    "no_label": "without a label",
    "too_long": "longer than the context",
}
"""Why a row can be left out: as run.json and --json call it, and in plain words."""


class Unusable(Exception):  # noqa: N818 - not an error: the row is counted, and said with others
    """One row cannot be learned from."""

    def __init__(self, why: str, words: str) -> None:
        """Say why.

        Args:
            why: a key of WORDS.
            words: what is wrong with this row.
        """
        super().__init__(words)
        self.why = why


class Left(NamedTuple):
    """A row that is left out."""

    place: str
    why: str
    words: str


@dataclass
class Tally:
    """What became of the rows of some files."""

    rows: int
    """That were read."""
    settings: ExamplesSettings = field(default_factory=ExamplesSettings)
    left: list[Left] = field(default_factory=list)
    shortened: int = 0
    """Rows that are learned from, but not whole."""
    cut: str = "beginning"
    """Where these were cut."""
    longest: tuple[str, int] | None = None
    """Where the longest row stands that did not fit into the context, and its tokens."""
    shapes: Counter[str] = field(default_factory=Counter)
    """How many prompts with answers were of which shape."""
    chats: bool = False
    """Whether all that is learned from are conversations."""
    remarks: Sequence[str] = ()
    """What else is to be said of the rows."""

    def leave(self, place: str, error: Unusable) -> None:
        """Leave a row out."""
        self.left.append(Left(place, error.why, str(error)))

    def check(self) -> None:
        """Stop where more rows are unusable than may be.

        Raises:
            CorpusError: names five of them.
        """
        bad = [left for left in self.left if left.why != "no_label"]
        if len(bad) <= self.settings.bad_share * self.rows and len(bad) < self.rows:
            return
        named = "; ".join(f"{left.place}: {left.words}" for left in bad[:NAMED])
        more = f"; and {len(bad) - NAMED:,} more" if len(bad) > NAMED else ""
        share = f"{100 * self.settings.bad_share:.4g}%"
        raise CorpusError(
            f"{named}{more}. That is {len(bad):,} of {self.rows:,} rows, and {share} may be "
            "unusable (--examples.bad-share for another share); nothing was learned"
        )

    def notes(self) -> list[str]:
        """Say what was left out: how many of what, and where the first stands."""
        counts = Counter(left.why for left in self.left)
        first = {left.why: left for left in reversed(self.left)}
        notes = [
            f"{counts[why]:,} of {self.rows:,} rows left out, {WORDS[why]}; the first: "
            f"{first[why].place}"
            for why in WORDS
            if why in counts
        ]
        notes[:0] = self.remarks
        if self.shortened:
            notes.append(
                f"{self.shortened:,} of {self.rows:,} rows longer than the context, and cut at "
                f"their {self.cut}"
            )
        if self.longest is not None:
            place, tokens = self.longest
            notes.append(
                f"the longest, {place}, has {tokens:,} tokens; a context of {tokens:,} would hold "
                "it (train --from with --model.context), and --examples.too-long says what becomes "
                "of such rows"
            )
        return notes

    def as_dict(self, learned: int, held: int) -> dict[str, Any]:
        """Return the counts; what was learned from, held out and left out adds up to the rows."""
        return {
            "read": self.rows,
            "learned_from": learned,
            "held_out": held,
            "left_out": dict(Counter(left.why for left in self.left)),
            "shortened": self.shortened,
        }
