"""Examples divided: which are learned from, and which are held out."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nextword.base.errors import CorpusError
from nextword.corpus.examples import Row
from nextword.objectives.options import FinetuneSettings

MOST_CLASSES = 1000
BINS = 10
"""Of numbers, by size, so that the hold-out has of each."""


class Labelled(NamedTuple):
    """A text and what a person said of it."""

    text: str
    label: int | float
    """The number of a class, or a number."""


@dataclass(frozen=True)
class LabelledSet:
    """All examples, and what their labels are."""

    names: tuple[str, ...]
    """Of the classes, sorted; of numbers the field's name alone."""
    is_number: bool
    train: list[Labelled]
    holdout: list[Labelled]
    notes: tuple[str, ...]
    """What was noticed on the way, in plain words."""


def look(rows: Sequence[Row], settings: FinetuneSettings) -> str:
    """Say what kind of examples these are: answers, classification or regression.

    Raises:
        CorpusError: they are of no kind.
    """
    if settings.task != "auto":
        return settings.task
    fields = rows[0].values
    if settings.label not in fields and ("messages" in fields or settings.prompt in fields):
        return "answers"
    values = [row.value(settings.label, "--finetune.label") for row in rows]
    return "regression" if all(_number(value) is not None for value in values) else "classification"


def _number(value: Any) -> float | None:
    """Return a label as a number, if it is one; true and false are names."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def labelled(rows: Sequence[Row], settings: FinetuneSettings, *, numbers: bool) -> LabelledSet:
    """Turn rows into texts and labels, and hold some out.

    Args:
        rows: of a file.
        settings: names of the fields, share of the hold-out.
        numbers: whether the labels are numbers.

    Raises:
        CorpusError: a row lacks a field, a label is no number where all must be, there is only one
            class, or too little is left on a side.
    """
    texts = [row.text(settings.text, "--finetune.text") for row in rows]
    values = [row.value(settings.label, "--finetune.label") for row in rows]
    labels: list[int | float]
    if numbers:
        found = [_number(value) for value in values]
        for row, value, number in zip(rows, values, found, strict=True):
            if number is None:
                raise CorpusError(
                    f"{row.place}: the label {str(value)[:40]!r} is no number; for names of "
                    "classes give --finetune.task classification"
                )
        names: tuple[str, ...] = (settings.label,)
        labels = [number for number in found if number is not None]
    else:
        said = [_name(value) for value in values]
        names = tuple(sorted(set(said)))
        if not 2 <= len(names) <= MOST_CLASSES:
            raise CorpusError(
                f"{rows[0].place.rpartition(',')[0]}: {len(names):,} different labels; there must "
                f"be 2 to {MOST_CLASSES:,} classes (numbers: --finetune.task regression)"
            )
        known = {name: number for number, name in enumerate(names)}
        labels = [known[name] for name in said]
    examples = [Labelled(text, label) for text, label in zip(texts, labels, strict=True)]
    train, holdout = divide(examples, _strata(labels, numbers), settings)
    return LabelledSet(names, numbers, train, holdout, _notes(examples, names, numbers))


def _name(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _strata(labels: Sequence[int | float], numbers: bool) -> list[Hashable]:
    if not numbers:
        return list(labels)
    edges = np.quantile(np.array(labels), np.linspace(0, 1, BINS + 1)[1:-1])
    return list(np.searchsorted(edges, np.array(labels)).tolist())


def divide(
    examples: Sequence[Labelled], strata: Sequence[Hashable], settings: FinetuneSettings
) -> tuple[list[Labelled], list[Labelled]]:
    """Hold a share of each stratum out, by chance; the same text always falls on one side.

    Raises:
        CorpusError: nothing is left on a side.
    """
    where: dict[str, Hashable] = {}
    for example, stratum in zip(examples, strata, strict=True):
        where.setdefault(example.text, stratum)
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for text, stratum in where.items():
        groups[stratum].append(text)
    source = random.Random(settings.seed)
    held: set[str] = set()
    for stratum in sorted(groups, key=str):
        texts = sorted(groups[stratum])
        source.shuffle(texts)
        count = round(settings.holdout * len(texts))
        if settings.holdout > 0 and len(texts) > 1:
            count = min(max(count, 1), len(texts) - 1)
        held.update(texts[:count])
    train = [example for example in examples if example.text not in held]
    holdout = [example for example in examples if example.text in held]
    if not train or (settings.holdout > 0 and not holdout):
        raise CorpusError(
            f"{len(where):,} different texts are too few to learn from some and hold others out; "
            "give more examples"
        )
    return train, holdout


def _notes(examples: Sequence[Labelled], names: Sequence[str], numbers: bool) -> tuple[str, ...]:
    said: dict[str, set[int | float]] = defaultdict(set)
    for example in examples:
        said[example.text].add(example.label)
    notes = []
    if doubled := sum(len(labels) > 1 for labels in said.values()):
        notes.append(f"{doubled:,} texts stand there with different labels; all are kept")
    if not numbers:
        counts = Counter(example.label for example in examples)
        single = [names[int(label)] for label, count in counts.items() if count == 1]
        if single:
            notes.append(
                f"with a single example, which is learned from and cannot be judged: "
                f"{', '.join(sorted(single)[:10])}"
            )
    return tuple(notes)
