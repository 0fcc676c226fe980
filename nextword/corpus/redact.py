"""Personal data: e-mail addresses, telephone numbers and keys, replaced by a word for their kind.

Found by their form alone, so not all are found, and a number that looks like a telephone's is taken
for one: docs/documents.md says which forms are known.
"""

import re
from collections.abc import Iterator

from nextword.corpus.tally import Tally

EMAILS, PHONES, KEYS = "emails", "phones", "keys"
PLACEHOLDERS = {EMAILS: "<EMAIL>", PHONES: "<PHONE>", KEYS: "<KEY>"}
REACH = 1 << 14
"""More characters than the longest of them has: a private key of 16,384 bits has 12,800."""

_DOMAIN = re.compile(r"@(?:[^\W_](?:[\w-]{0,62})\.){1,8}[^\W\d_]{2,24}(?![\w@])")
_MAILBOX = re.compile(r"[\w.+%'-]{0,63}\w\Z")
_MAILBOX_REACH = 64
_PHONES = re.compile(
    r"(?<![\w+])(?:\+|00)[1-9]\d{0,2}[ ./-]{0,2}(?:\(\d{1,5}\)[ ./-]?)?"
    r"(?:\d[ ./-]?){5,12}\d(?![\w@])"
    r"|(?<![\w.,/+-])(?:1[-. ])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-. ])\d{3}[-. ]\d{4}(?![\w@-])"
    r"|(?<![\w.,/+-])(?:\(0[1-9]\d{1,3}\)|0[1-9]\d{0,3})[ /](?:\d{2,8}[ -]?){1,4}(?<=\d)"
    r"(?![\w@.,]\d|\w)"
)
_LEAST_DIGITS, _MOST_DIGITS = 9, 15
"""Of a telephone number; fewer are dates and prices. At most 15: ITU-T E.164."""
_KEYS = re.compile(
    r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:(?!-----)[\s\S]){1,14000}"
    r"-----END (?:[A-Z]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"|(?<![A-Za-z0-9])(?:A[KS]IA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,255}"
    r"|github_pat_\w{60,255}|glpat-[\w-]{20,255}|hf_[A-Za-z0-9]{30,255}"
    r"|[sr]k-(?=[A-Za-z_-]{0,60}\d)[A-Za-z0-9_-]{20,500}|[sr]k_(?:live|test)_[A-Za-z0-9]{16,255}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,255}|AIza[\w-]{35}|npm_[A-Za-z0-9]{36}|pypi-AgE[\w-]{50,255}"
    r"|eyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{10,1000})(?![A-Za-z0-9])"
)
_ASSIGNED = re.compile(
    r"((?:pass(?:word|wd|phrase)|secret(?:[_-]?(?:access[_-]?)?key)?|api[_-]?key|access[_-]?token|auth[_-]?token)[\"']?\s{0,4}"
    r"(?::|=>?)\s{0,4})([\"'])([^\"'\s<>{}$]{8,200})\2",
    re.IGNORECASE,
)


def personal(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, kind) of each place, in order, none within another."""
    found = [(match.start(), match.end(), KEYS) for match in _KEYS.finditer(text)]
    found += [(match.start(3), match.end(3), KEYS) for match in _ASSIGNED.finditer(text)]
    for match in _DOMAIN.finditer(text):
        before = _MAILBOX.search(text[max(0, match.start() - _MAILBOX_REACH) : match.start()])
        if before is not None:
            found.append((match.start() - len(before.group()), match.end(), EMAILS))
    for match in _PHONES.finditer(text):
        digits = sum(letter.isdigit() for letter in match.group())
        if _LEAST_DIGITS <= digits <= _MOST_DIGITS:
            found.append((match.start(), match.end(), PHONES))
    end = 0
    for start, stop, kind in sorted(found, key=lambda one: (one[0], -one[1])):
        if start >= end:
            yield start, stop, kind
            end = stop


class Redactor:
    """Puts words for what is personal into texts that come in chunks, and counts it.

    A chunk's end is held back as far as something could reach across it.
    """

    def __init__(self, tally: Tally) -> None:
        """Say where to count."""
        self._tally = tally
        self._held = ""

    def take(self, chunk: str, place: str, *, is_last: bool) -> str:
        """Take a chunk of a text; return as much of what came as is sure, all of it at its end."""
        text = self._held + chunk
        if is_last:
            until = len(text)
        elif len(text) > 2 * REACH:
            until = len(text) - REACH
            space = text.rfind(" ", until - REACH, until)
            until = until if space < 0 else space  # there a look behind sees what begins a text
        else:
            until = 0
        parts, end = [], 0
        for start, stop, kind in personal(text) if until else ():
            if start >= until:
                break
            parts += [text[end:start], PLACEHOLDERS[kind]]
            self._tally.add(kind, place)
            end = stop
        until = max(until, end)
        self._held = text[until:]
        return "".join([*parts, text[end:until]])
