"""Label types: classes, numbers (regression) or several of a text (multi-label), and why."""

import ast
import json
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nextword.base.errors import SettingsError
from nextword.finetune.tally import Unusable
from nextword.objectives.options import FinetuneSettings, LabelsSettings

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
MANY = 20
"""Different whole numbers from which on it is asked whether they are quantities."""

TASKS = {"class": "classification", "number": "regression", "multi": "multi_label"}
"""By kind, what is learned; as run.json and --json call it."""


class Given(NamedTuple):
    """A label as it stands in a file."""

    place: str
    value: Any


class Kind(NamedTuple):
    """Of which kind the labels are."""

    name: str
    reason: str


def is_missing(value: Any, settings: LabelsSettings) -> bool:
    """Whether a field holds no label: nothing, null, NaN, or a text that stands for these."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and (not value.strip() or value.strip() in settings.missing)


def asked_kind(finetune: FinetuneSettings, labels: LabelsSettings) -> str:
    """Return the kind that was asked for, by either setting; auto where none was.

    Raises:
        SettingsError: the two contradict each other.
    """
    by_task = {"classification": "class", "regression": "number"}.get(finetune.task, "auto")
    fits = labels.kind in ("auto", by_task) or by_task == "auto"
    if finetune.task == "classification":
        fits = labels.kind != "number"  # a text with several labels is classified too
    if finetune.task in ("answers", "preferences"):
        fits = labels.kind == "auto"
    if not fits:
        raise SettingsError(
            f"finetune.task = {finetune.task!r} and labels.kind = {labels.kind!r} contradict each "
            "other; give one of them"
        )
    return by_task if labels.kind == "auto" else labels.kind


def kind_of(given: Sequence[Given], finetune: FinetuneSettings, labels: LabelsSettings) -> Kind:
    """Say of which kind labels are.

    Lists are several labels of a text. Numbers of which at least one has a decimal point are
    quantities. All else names a class: words, true and false, whole numbers.

    Args:
        given: those that are not missing, at least one.
        finetune: may name the task.
        labels: may name the kind.
    """
    asked = asked_kind(finetune, labels)
    if asked != "auto":
        where = "labels.kind" if labels.kind != "auto" else "finetune.task"
        return Kind(asked, f"as --{where} says")
    first = _first(given, lambda value: isinstance(value, list))
    if first is not None or all(isinstance(read_list(one.value), list) for one in given):
        return Kind("multi", f"{_quoted(first or given[0])} is a list")
    number, word = _first(given, _is_decimal), _first(given, lambda value: not is_number(value))
    if word is None and number is not None:
        return Kind("number", f"all are numbers, and {_quoted(number)} has a decimal point")
    if word is not None:
        numbers = _first(given, is_number)
        beside = f", though {_quoted(numbers)} is one" if numbers is not None else ""
        return Kind("class", f"{_quoted(word)} is no number{beside}")
    different = len({str(one.value).strip() for one in given})
    many = ", many for classes: are they quantities?" if different > MANY else ""
    return Kind("class", f"whole numbers without a decimal point, {different:,} different{many}")


def is_number(value: Any) -> bool:
    """Whether a label is a number; true and false are names."""
    if isinstance(value, str):
        return NUMBER.fullmatch(value.strip()) is not None
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def number_of(value: Any) -> float:
    """Read a quantity.

    Raises:
        Unusable: it is no number, or too large for one.
    """
    try:
        number = float(value) if is_number(value) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Unusable(
            "damaged",
            f"the label {str(value)[:40]!r} is no number; for names of classes give "
            "--labels.kind class",
        )
    return number


def class_of(value: Any) -> str:
    """Read the name of a class.

    Raises:
        Unusable: it is a list or an object.
    """
    if isinstance(value, list | dict):
        raise Unusable(
            "damaged",
            f"the label {str(value)[:40]} is no name of a class; for lists of labels give "
            "--labels.kind multi",
        )
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # tables with gaps turn whole numbers into 1.0
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def labels_of(value: Any) -> list[str]:
    """Read the labels of a text: a list, a list written as text, or names parted by , or ;."""
    found = read_list(value)
    if not isinstance(found, list):
        found = re.split(r"[,;]", value) if isinstance(value, str) else [value]
    names = [class_of(name) for name in found if name is not None]
    return [name for name in names if name]


def read_list(value: Any) -> Any:
    """Return a list that is written as text, in JSON or as Python writes it, as a list."""
    if not (isinstance(value, str) and value.strip().startswith("[")):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # a backslash in a label is no mistake of the user's
                return read(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return value


def _is_decimal(value: Any) -> bool:
    if isinstance(value, str):
        return is_number(value) and any(letter in value for letter in ".eE")
    return isinstance(value, float) and math.isfinite(value)


def _first(given: Sequence[Given], fits: Callable[[Any], bool]) -> Given | None:
    return next((one for one in given if fits(one.value)), None)


def _quoted(one: Given) -> str:
    value = one.value if isinstance(one.value, str | list) else json.dumps(one.value)
    return f"{str(value)[:40]!r} ({one.place})"
