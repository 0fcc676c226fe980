"""Read JSON files through a typed, bounded description, field by field; msgspec does the work.

A file from a disk may hold anything. What a field must be stands in one class for each kind of
file; whatever is not that is one clear line, and nothing is allocated by a number that was read
before the number was looked at.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from nextword.base.errors import NextwordError

Kind = TypeVar("Kind")
LARGEST_FILE = 1 << 26
"""Bytes of a description; none that is ours, and no config.json in use, comes near it."""
Size = Annotated[int, Meta(ge=1, le=1 << 30)]
"""Of something that will be allocated or counted up to, one after the other."""
Count = Annotated[int, Meta(ge=0, le=1 << 53)]
"""Of what may be nothing."""
Share = Annotated[float, Meta(ge=1e-300, lt=1)]
"""Not gt=0: the library asks then for the smallest number at least, which is 0 where a processor
was told to flush the smallest numbers to zero, as training does."""
Base = Annotated[float, Meta(ge=1e-300, le=1e15)]
"""Of a power."""
Place = Annotated[str, Meta(pattern=r"^[^\0]*$", max_length=4096)]
"""Path of a file or folder."""
Id = Annotated[int, Meta(ge=0, lt=1 << 31)]
"""Of an entry of a vocabulary."""
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(
    file: Path, error: type[NextwordError], *, advice: str = "", largest: int = LARGEST_FILE
) -> Any:
    """Read a JSON file.

    Args:
        file: it must be a plain file, or a link to one.
        error: raised where it cannot be read.
        advice: what to do then.
        largest: bytes that are read at most.

    Raises:
        NextwordError: of the kind that was given: it is no plain file, too large, or no JSON.
    """
    after = f"; {advice}" if advice else ""
    try:
        if not file.is_file():
            raise error(f"{file}: no such file{after}")
        if (size := file.stat().st_size) > largest:
            raise error(f"{file}: {size:,} bytes, where {largest:,} are more than enough{after}")
        raw = file.read_bytes()
        value = json.loads(raw.decode("utf-8"))
        if _HALF.search(raw):  # whole pairs have become characters; a half can be written nowhere
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except OSError as why:
        raise error(f"{file}: cannot be read ({why.strerror}){after}") from None
    except RecursionError:
        raise error(f"{file}: damaged (nested too deeply){after}") from None
    except UnicodeEncodeError:
        raise error(f"{file}: damaged (a character is cut in two){after}") from None
    except ValueError as why:
        raise error(f"{file}: damaged, not JSON ({_short(why)}){after}") from None


def as_record(
    value: Any, kind: type[Kind], file: Path, error: type[NextwordError], *, advice: str = ""
) -> Kind:
    """Take a value for a record of a kind.

    Args:
        value: as `read_json` gives it.
        kind: what it must be: a `msgspec.Struct`, or a type with bounds.
        file: where it stood, for the message.
        error: raised where it is anything else.
        advice: what to do then.

    Raises:
        NextwordError: of the kind that was given; the field is named.
    """
    after = f"; {advice}" if advice else ""
    try:
        return msgspec.convert(value, kind)
    except NextwordError as why:  # of a class that looks at its fields together
        raise error(f"{file}: {why}{after}") from None
    except RecursionError:
        raise error(f"{file}: damaged (nested too deeply){after}") from None
    except msgspec.ValidationError as why:
        raise error(f"{file}: {_in_words(str(why))}{after}") from None


def read_record(
    file: Path, kind: type[Kind], error: type[NextwordError], *, advice: str = ""
) -> Kind:
    """Read a JSON file as a record of a kind.

    Args:
        file: where it stands.
        kind: what it must hold.
        error: raised where it does not.
        advice: what to do then.

    Raises:
        NextwordError: of the kind that was given; the field is named.
    """
    return as_record(read_json(file, error, advice=advice), kind, file, error, advice=advice)


def _in_words(found: str) -> str:
    """Say what msgspec found with the field's name first."""
    what, _, path = found.partition(" - at ")
    name = path.strip("`").removeprefix("$").removeprefix(".")
    if missing := what.partition("missing required field ")[2]:
        inside = f" in {name}" if name else ""
        return f"the field {missing.strip('`')!r} is missing{inside}"
    what = what.replace("`", "")
    return f"{name}: {what[:1].lower()}{what[1:]}" if name else f"damaged ({what})"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
