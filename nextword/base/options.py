"""Declare configuration options: name, type, default, bounds and help, in one place.

Its default, what it means and its unit, on one line, beside the code it governs.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable
from typing import Any

from nextword.base.errors import SettingsError

LARGEST = 2**53
"""Of whole numbers where nothing less is said: up to it a float still knows them apart."""


def option(
    default: Any,
    help: str,  # noqa: A002 - the field's own word
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    rule: str = "",
    of: tuple[str, ...] = (),
) -> Any:
    """Declare one field of a settings dataclass.

    Args:
        default: the value when nothing is said; None where it is derived from other settings.
        help: what it does, in one plain phrase.
        unit: of the value, when it has one.
        choices: the values allowed, when they are few.
        minimum: the least value allowed.
        above: the value must be greater than this.
        maximum: the greatest value allowed.
        rule: how the value follows where the default is None.
        of: what it follows from: other options, or the text, the run, the machine.
    """
    limits = {"minimum": minimum, "above": above, "maximum": maximum}
    told = {"help": help, "unit": unit, "choices": choices, "rule": rule, "of": of}
    return dataclasses.field(default=default, metadata={**told, **limits})


def check_options(settings: Any, room: str) -> None:
    """Refuse values outside an option's choices or limits.

    Raises:
        SettingsError: names the option, the value and what is allowed.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value is None or not field.metadata:
            continue
        name = f"{room}.{field.name}"
        choices = field.metadata["choices"]
        if choices and value not in choices:
            raise SettingsError(f"{name} = {value!r}: choose one of {', '.join(choices)}")
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        least, above, most = (field.metadata[key] for key in ("minimum", "above", "maximum"))
        if value in (math.inf, -math.inf) or value != value:
            raise SettingsError(f"{name} = {value}: must be a finite number")
        if most is None and isinstance(value, int):
            most = LARGEST
        if least is not None and not value >= least:
            raise SettingsError(f"{name} = {value}: must be at least {least:g}")
        if above is not None and not value > above:
            raise SettingsError(f"{name} = {value}: must be more than {above:g}")
        if most is not None and not value <= most:
            raise SettingsError(f"{name} = {value:.4g}: must be at most {most:g}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean X?" for the known name nearest to a mistyped one, or nothing."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {found[0]}?" if found else ""
