"""Code repositories: which of a folder's files are source code or prose that a person wrote.

What .gitignore names was made by programs or fetched; so were locked versions, minified scripts and
files that say so at their head. Data formats are not read here: a repository's JSON is settings.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nextword.corpus.compressions import split_compression
from nextword.corpus.packages import import_package
from nextword.corpus.tally import Tally

CODE = frozenset(
    f".{ending}"
    for line in (
        "ada adb ads asm awk bash c cc clj cljs cmake coffee cpp cr cs css cu cuh cxx d dart el",
        "elm erl ex exs f f90 f95 fish for fs fsx go gradle graphql groovy h hh hpp hrl hs hxx",
        "java jl js jsx kt kts less lisp lua m mjs ml mli mm nim nix pas php pl pm proto ps1 py",
        "pyi pyx r rb rkt rs s sass scala scm scss sh sol sql sv svelte swift tcl tex tf ts tsx v",
        "vala vb vhd vhdl vim vue zig zsh",
    )
    for ending in line.split()
)
"""Endings of source code."""
_MARKS = (".git", ".gitignore")
_WRITTEN_BY_PROGRAMS = re.compile(
    r"(\.min\.(js|css)|[._-]bundle\.js|_pb2(_grpc)?\.pyi?|\.pb\.(go|cc|h)|\.g\.dart|\.designer\.cs"
    r"|-lock\.\w+|\.lock)$",
    re.IGNORECASE,
)
_SAYS_SO = re.compile(
    r"@generated\b|\bgenerated (by|from|file|code)\b.*|\bdo not (edit|modify)\b", re.I
)
_HEAD_CHARACTERS = 600
_LARGEST_CODE = 1 << 24
_LONGEST_LINE = 3_000
"""A longer line of code was written by no person."""


def is_code(file: str) -> bool:
    """Whether a file's name ends as source code does."""
    return Path(file).suffix.lower() in CODE


def is_marked(folder: str) -> bool:
    """Whether git knows the folder as a repository's, or is told what to leave out there."""
    return any(os.path.exists(os.path.join(folder, mark)) for mark in _MARKS)


def files_of(folder: str) -> list[str]:
    """List all files of a folder, sorted, but those that its .gitignore files name, and git's own.

    The rules are git's: a deeper file's word counts more, the last that fits in a file decides, and
    nothing comes back below a folder that is left out.
    """
    return sorted(_walk(folder, (), _rules(folder, os.path.join(".git", "info", "exclude"))))


_Rules = tuple[tuple[str, Any], ...]
"""Each folder with a .gitignore, and what it says; the deepest last."""


def _walk(folder: str, above: _Rules, more: _Rules = ()) -> Iterator[str]:
    rules = (*above, *more, *_rules(folder, ".gitignore"))
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == ".git":
                continue
            is_folder = entry.is_dir(follow_symlinks=False)
            if _is_ignored(entry.path, is_folder, rules):
                continue
            if is_folder:
                yield from _walk(entry.path, rules)
            elif entry.is_file():
                yield entry.path


def _rules(folder: str, name: str) -> _Rules:
    path = Path(folder, name)
    if not path.is_file():
        return ()
    pathspec = import_package("pathspec", str(path), "documents")
    lines = path.read_text("utf-8", "replace").splitlines()
    return ((folder, pathspec.GitIgnoreSpec.from_lines(lines)),)


def _is_ignored(path: str, is_folder: bool, rules: _Rules) -> bool:
    for base, spec in reversed(rules):
        inside = Path(path).relative_to(base).as_posix() + "/" * is_folder
        said = spec.check_file(inside).include
        if said is not None:
            return bool(said)
    return False


def written_by_people(
    folder: str, files: Sequence[str], is_prose: Callable[[str], bool], tally: Tally
) -> list[str]:
    """Choose a repository's code and prose, and count what is left out.

    Args:
        folder: of the repository.
        files: in it.
        is_prose: whether a file's name is a text's.
        tally: where to count.
    """
    kept = []
    for file in files:
        is_hidden = any(part.startswith(".") for part in Path(file).relative_to(folder).parts)
        if is_hidden or not (is_code(file) or is_prose(file)):
            tally.add("other_files", file)
        elif os.path.getsize(file) > _LARGEST_CODE or split_compression(file)[1]:
            kept.append(file)  # a text: read as any other
        elif os.path.getsize(file) == 0:
            tally.records += 1
            tally.add("empty", file)
        elif (text := _text_of(file)) is None:
            tally.add("binary", file)
        elif is_code(file) and _is_generated(file, text):
            tally.add("generated", file)
        else:
            kept.append(file)
    return kept


def _text_of(file: str) -> str | None:
    raw = Path(file).read_bytes()
    if b"\0" in raw:
        return None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _is_generated(file: str, text: str) -> bool:
    if _WRITTEN_BY_PROGRAMS.search(file) or _SAYS_SO.search(text[:_HEAD_CHARACTERS]):
        return True
    return any(len(line) > _LONGEST_LINE for line in text.split("\n"))
