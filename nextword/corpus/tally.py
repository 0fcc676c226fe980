"""Counts of records that a reading skipped, truncated, repaired or repeated, and where.

Every record of a file is either read as a document or counted here, so that the counts add up.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

LEFT_OUT = {
    "empty": "empty texts",
    "null": "records without a text (null)",
}
"""Records that gave no document."""
OTHERWISE = {
    "blank_lines": "blank lines between records",
    "other_files": "files of a kind that is not read",
    "byte_order_marks": "byte-order marks at a file's beginning",
    "replaced": "places that were not UTF-8 and are U+FFFD now",
    "surrogates": "half characters (lone surrogates) that are ? now",
    "cut": "texts without a place to cut, cut where they stood: a token may differ there",
    "separators": "marks of a document's end, taken as that and not as text",
    "beyond_limit": "held-out documents beyond the limit, left out of both sides",
    "edges": "lines that repeat at pages' edges (titles, numbers), left out",
    "pictures": "pages without text, which may be pictures of it, left out",
    "parted": "words parted at a line's end, put together",
    "boilerplate": "words around pages' own text (menus, notices), left out",
    "read_whole": "pages without a text that stands out, read whole",
    "front_matter": "front matters of Markdown files, left out",
    "quoted": "lines of mails that quote another or sign it, left out",
    "notices": "lines of chats that nobody wrote (who joined, what was left out), left out",
    "other_records": "records of web archives that are no page of text",
    "ignored": "files of repositories that .gitignore names, left out",
    "generated": "files of repositories that a program wrote, left out",
    "binary": "files of repositories that are not UTF-8 text, left out",
    "emails": "e-mail addresses that are <EMAIL> now",
    "phones": "telephone numbers that are <PHONE> now",
    "keys": "keys and passwords that are <KEY> now",
    "repeated": "documents that repeat an earlier one exactly, kept; none stands on both sides",
}
WORDS = LEFT_OUT | OTHERWISE


@dataclass
class Finding:
    """One kind of thing that was not read as it stood."""

    count: int = 0
    first: str = ""
    """Where the first stands."""


@dataclass
class Tally:
    """All that one reading noticed."""

    records: int = 0
    """Rows, lines or parts that could have been a document."""
    findings: dict[str, Finding] = field(default_factory=dict)
    file: str = ""
    """The one being read."""

    def add(self, kind: str, place: str, count: int = 1) -> None:
        """Count something.

        Args:
            kind: a key of WORDS.
            place: where it stands; kept for the first of a kind.
            count: how many at once.
        """
        if kind not in WORDS:
            raise KeyError(kind)
        if not count:
            return
        found = self.findings.setdefault(kind, Finding(first=place))
        found.count += count

    def copy(self) -> "Tally":
        """Return another with the same counts, to go on from."""
        return Tally(self.records, {kind: replace(one) for kind, one in self.findings.items()})

    def take(self, other: "Tally") -> None:
        """Hold what another does, in place of what was held."""
        self.records, self.findings = other.records, dict(other.findings)

    @property
    def left_out(self) -> int:
        """Records that gave no document."""
        return sum(self.findings[kind].count for kind in LEFT_OUT if kind in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: records, and of each kind its count and first place."""
        kinds = {
            kind: {"count": self.findings[kind].count, "first": self.findings[kind].first}
            for kind in WORDS
            if kind in self.findings
        }
        return {"records": self.records, **kinds}


def join_readings(readings: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Add up what several readings noticed, each as `Tally.as_dict` gives it."""
    whole = Tally()
    for reading in readings:
        for kind, value in (reading or {}).items():
            if kind == "records":
                whole.records += value
            else:
                whole.add(kind, value["first"], value["count"])
    return whole.as_dict()


def describe_reading(reading: Mapping[str, Any] | None, *, beside: Iterable[str] = ()) -> str:
    """Say in one line what was not read as it stands; nothing where all was.

    Args:
        reading: as `Tally.as_dict` gives it.
        beside: kinds that are told elsewhere.
    """
    known = {kind: value for kind, value in (reading or {}).items() if kind in WORDS}
    return "; ".join(
        f"{WORDS[kind]}: {value['count']:,} (first: {value['first']})"
        for kind, value in known.items()
        if kind not in beside
    )
