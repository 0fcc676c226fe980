"""A look at a text before training, as text for a terminal."""

from collections import Counter
from pathlib import Path

from nextword.corpus.tally import WORDS
from nextword.explanation.look import FileRead, Look
from nextword.rendering.formatting import argument, one_line, quoted

MOST_FILES = 12
_NAMES = {"emails": "e-mail addresses", "phones": "telephone numbers", "keys": "keys or passwords"}


def describe_look(look: Look, paths: list[str], *, redacted: bool) -> str:
    """Lay out what was read, what was not, how it begins, and what to think of before training."""
    parts = [_sizes(look), _files(look.files), _noticed(look), _repeated(look)]
    parts += [_personal(look, redacted=redacted), _samples(look), _next(paths)]
    return "\n\n".join(part for part in parts if part)


def _sizes(look: Look) -> str:
    files = _many(len(look.files), "file")
    rows = [
        f"text            {_many(look.documents, 'document')} in {files}",
        f"size            {look.characters:,} characters, {look.words:,} words, "
        f"{look.bytes:,} bytes of UTF-8",
        f"documents       {round(look.characters / max(look.documents, 1)):,} characters on "
        f"average, the longest {look.longest:,}",
    ]
    if look.scripts:
        shares = ", ".join(f"{script} {share:.0%}" for script, share in look.scripts.items())
        rows.append(f"scripts         {shares}")
    return "\n".join(rows)


def _files(files: list[FileRead]) -> str:
    if len(files) < 2:
        return ""
    shown = sorted(files, key=lambda file: -file.characters)[:MOST_FILES]
    rows = [f"{'characters':>14}{'documents':>12}  file"]
    rows += [f"{one.characters:>14,}{one.documents:>12,}  {one.name}" for one in shown]
    rest = [one for one in files if one not in shown]
    if rest:
        endings = Counter(Path(one.name).suffix or "no ending" for one in rest).most_common(5)
        kinds = ", ".join(f"{count:,} {ending}" for ending, count in endings)
        characters, documents = (
            sum(one.characters for one in rest),
            sum(one.documents for one in rest),
        )
        rows.append(f"{characters:>14,}{documents:>12,}  {len(rest):,} smaller ones: {kinds}")
    return "\n".join(rows)


def _noticed(look: Look) -> str:
    rows = [
        f"{value['count']:>14,}  {WORDS[kind]}\n{'':>16}first: {value['first']}"
        for kind, value in look.reading.items()
        if kind in WORDS
    ]
    return "\n".join(["not read as it stands", *rows]) if rows else ""


def _repeated(look: Look) -> str:
    rows = [f"{count:>14,}  {quoted(line)}" for line, count in look.repeated.items()]
    return "\n".join(["lines that stand often", *rows]) if rows else ""


def _personal(look: Look, *, redacted: bool) -> str:
    if not look.personal or redacted:
        return ""
    found = ", ".join(f"{count:,} {_NAMES[kind]}" for kind, count in look.personal.items())
    return f"personal        {found}, by their form; --corpus.redact puts <EMAIL> and so on there"


def _samples(look: Look) -> str:
    rows = [
        f"{one.file}, document {one.number:,}\n    {one_line(one.text, 300)}"
        for one in look.samples
    ]
    return "\n".join(["how they begin", *rows]) if rows else ""


def _next(paths: list[str]) -> str:
    return f"Try next:\n  nextword train {' '.join(map(argument, paths))}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
