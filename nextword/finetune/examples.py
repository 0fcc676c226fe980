"""Train/validation split of supervised examples, stratified by label."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nextword.base.errors import CorpusError
from nextword.corpus.examples import Row
from nextword.finetune.kinds import (
    Given,
    Kind,
    asked_kind,
    class_of,
    is_missing,
    is_number,
    kind_of,
    labels_of,
    number_of,
)
from nextword.finetune.shapes import TWO_ANSWERS, shape_of, unknown
from nextword.finetune.tally import Tally, Unusable
from nextword.objectives.options import FinetuneSettings, LabelsSettings

MOST_CLASSES = 100_000
BINS = 10
"""Of numbers, by size, so that the hold-out has of each."""
DOMINANT = 0.8
"""Share of one class from which on it is said that most of the accuracy comes from it."""
SHOWN = 10
YES, NO = frozenset(("1", "true")), frozenset(("0", "false"))

Label = int | float | tuple[int, ...]


class Labelled(NamedTuple):
    """A text and what a person said of it."""

    text: str
    label: Label
    """The number of a class, a quantity, or the numbers of several labels."""


@dataclass(frozen=True)
class LabelledSet:
    """All examples, and what their labels are."""

    names: tuple[str, ...]
    """Of the classes, sorted; of numbers the field's name alone."""
    kind: Kind
    train: list[Labelled]
    holdout: list[Labelled]
    notes: tuple[str, ...]
    """What was noticed on the way, in plain words."""

    @property
    def is_number(self) -> bool:
        """Whether labels are quantities."""
        return self.kind.name == "number"

    @property
    def several(self) -> bool:
        """Whether a text may have several labels, or none."""
        return self.kind.name == "multi"


def look(
    rows: Sequence[Row], settings: FinetuneSettings, labels: LabelsSettings | None = None
) -> str:
    """Say what kind of examples these are: answers, or labels.

    Raises:
        CorpusError: they are of no known shape; the fields found are named, and those known.
        SettingsError: the task and the kind of labels contradict each other.
    """
    kind = asked_kind(settings, labels or LabelsSettings())
    if settings.task != "auto":
        return settings.task if settings.task in ("answers", "preferences") else "labels"
    if kind != "auto":
        return "labels"
    for row in rows:
        if settings.text in row.values and settings.label in row.values:
            return "labels"
        if row.values.keys() >= TWO_ANSWERS:
            return "preferences"
        if shape_of(row, settings) is not None:
            return "answers"
    if {settings.text, settings.label} & set().union(*(row.values for row in rows)):
        return "labels"  # whose messages name the field that is missing
    raise CorpusError(f"{rows[0].place}: {unknown(rows[0], settings)}")


def labelled(
    rows: Sequence[Row],
    settings: FinetuneSettings,
    labels: LabelsSettings | None = None,
    tally: Tally | None = None,
) -> LabelledSet:
    """Turn rows into texts and labels, and hold some out.

    Args:
        rows: of some files.
        settings: names of the fields, share of the hold-out.
        labels: their kind, and what stands for none.
        tally: counts what is left out.

    Raises:
        CorpusError: no row has a field, too many are unusable, there is only one class, or too
            little is left on a side.
    """
    labels, tally = labels or LabelsSettings(), tally or Tally(len(rows))
    there = _with_labels(rows, settings, labels, tally)
    kind = kind_of([one for _, one in there], settings, labels)
    read = {"class": class_of, "number": number_of, "multi": labels_of}[kind.name]
    texts, said = [], []
    for row, given in there:
        try:
            found = read(given.value)
            texts.append(_text(row, settings))
            said.append(found)
        except Unusable as error:
            tally.leave(row.place, error)
    tally.check()
    names, numbers, notes = _numbered(said, kind.name, settings)
    _check_names(names, kind.name, rows)
    examples = [Labelled(text, label) for text, label in zip(texts, numbers, strict=True)]
    if kind.name == "class" and settings.holdout > 0:
        _check_sizes(numbers, names, rows)
    train, holdout = divide(examples, _strata(numbers, kind.name), settings)
    notes += _notes(examples, names, kind.name)
    if kind.name != "number":
        notes += _one_sided(train, holdout, names)
    return LabelledSet(names, kind, train, holdout, tuple(notes))


def _with_labels(
    rows: Sequence[Row], settings: FinetuneSettings, labels: LabelsSettings, tally: Tally
) -> list[tuple[Row, Given]]:
    """Leave out rows without a label.

    Raises:
        CorpusError: no row has one, or none has a field of that name.
    """
    for field, option in ((settings.label, "label"), (settings.text, "text")):
        if not any(field in row.values for row in rows):
            rows[0].value(field, f"--finetune.{option}")
    there = []
    for row in rows:
        value = row.values.get(settings.label)
        if is_missing(value, labels):
            words = f'the field "{settings.label}" is empty: {str(value)[:40]!r}'
            tally.leave(row.place, Unusable("no_label", words))
        else:
            there.append((row, Given(row.place, value)))
    if not there:
        raise CorpusError(
            f'{rows[0].place}: the field "{settings.label}" is empty, and so in all of the '
            f"{len(rows):,} rows; name the right one with --finetune.label"
        )
    return there


def _text(row: Row, settings: FinetuneSettings) -> str:
    value = row.values.get(settings.text)
    if not isinstance(value, str) or not value.strip():
        raise Unusable(
            "no_text", f'the field "{settings.text}" holds no text; --finetune.text names it'
        )
    return value


def _numbered(
    said: Sequence[Any], kind: str, settings: FinetuneSettings
) -> tuple[tuple[str, ...], list[Label], list[str]]:
    """Return the names of the classes, each example's label as numbers, and what was noticed."""
    if kind == "number":
        return (settings.label,), list(said), []
    if kind == "class":
        names = _sorted(set(said))
        known = {name: number for number, name in enumerate(names)}
        return names, [known[name] for name in said], []
    notes = []
    if _are_indicators(said):
        said = [[str(n) for n, one in enumerate(row) if one in YES] for row in said]
        notes.append(
            "lists of 0 and 1, all of one length: each place is taken as a label, which 1 says is "
            "there"
        )
    names = _sorted({name for row in said for name in row})
    known = {name: number for number, name in enumerate(names)}
    return names, [tuple(sorted({known[name] for name in row})) for row in said], notes


def _are_indicators(said: Sequence[Sequence[str]]) -> bool:
    """Whether lists say yes or no of each label, and do not name those that a text has."""
    same = len({len(row) for row in said}) == 1 and len(said[0]) > 1
    binary = {name for row in said for name in row} <= YES | NO
    return same and binary and any(len(set(row)) < len(row) for row in said)


def _sorted(names: set[str]) -> tuple[str, ...]:
    """Sort names; whole numbers by size, so that a class has its own number where it can."""
    if all(re.fullmatch(r"-?[0-9]+", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _check_names(names: Sequence[str], kind: str, rows: Sequence[Row]) -> None:
    if kind == "number":
        return
    least = 2 if kind == "class" else 1
    if not least <= len(names) <= MOST_CLASSES:
        raise CorpusError(
            f"{rows[0].place.rpartition(',')[0]}: {len(names):,} different labels; there must "
            f"be {least} to {MOST_CLASSES:,} classes (numbers: --labels.kind number)"
        )


def _check_sizes(labels: Sequence[Label], names: Sequence[str], rows: Sequence[Row]) -> None:
    """Refuse classes of which each has one example: what is learned of none could be judged.

    Raises:
        CorpusError: says so, and what else the labels may be.
    """
    if len(labels) > len(names) or len(names) == 2:
        return
    other = "--labels.kind number takes whole numbers as quantities, "
    raise CorpusError(
        f"{rows[0].place.rpartition(',')[0]}: {len(names):,} classes of one example each, so that "
        f"nothing could be judged; {other if all(map(is_number, names)) else ''}"
        "--finetune.holdout 0 learns without judging"
    )


def _strata(labels: Sequence[Label], kind: str) -> list[Hashable]:
    """Say what the hold-out should have its share of: each class, each tenth of the numbers.

    A text with several labels belongs to the rarest of them.
    """
    if kind == "class":
        return list(labels)
    if kind == "multi":
        sets = [_numbers(label) for label in labels]
        counts = Counter(one for label in sets for one in label)
        return [min(label, key=lambda one: (counts[one], one), default=-1) for label in sets]
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


def _notes(examples: Sequence[Labelled], names: Sequence[str], kind: str) -> list[str]:
    said: dict[str, set[Label]] = defaultdict(set)
    for example in examples:
        said[example.text].add(example.label)
    notes = []
    if doubled := sum(len(labels) > 1 for labels in said.values()):
        notes.append(f"{doubled:,} texts stand there with different labels; all are kept")
    if kind == "number":
        return notes
    counts = Counter(one for example in examples for one in _numbers(example.label))
    (most, common), (least, rare) = counts.most_common(1)[0], counts.most_common()[-1]
    what, share = ("classes" if kind == "class" else "labels"), common / len(examples)
    notes.append(
        f"{len(names):,} {what}, each held out alike; the commonest is {names[most]!r} "
        f"({common:,} texts, {100 * share:.3g}%), the rarest {names[least]!r} ({rare:,})"
    )
    if share >= DOMINANT and kind == "class":
        notes.append(
            f"always saying {names[most]!r} would be right in {100 * share:.3g}%: look at macro-F1 "
            "rather than accuracy; --finetune.class-weights balanced counts each class alike"
        )
    if single := [names[number] for number, count in counts.items() if count == 1]:
        notes.append(
            f"{len(single):,} {what} with a single example, which is learned from and cannot be "
            f"judged: {_listed(single)}"
        )
    if kind == "multi" and (without := sum(example.label == () for example in examples)):
        notes.append(f"{without:,} texts have no label, and are learned from as such")
    return notes


def _one_sided(
    train: Sequence[Labelled], holdout: Sequence[Labelled], names: Sequence[str]
) -> list[str]:
    """Say which labels stand in the hold-out only: equal texts with other labels bring them."""
    seen, asked = ({n for one in side for n in _numbers(one.label)} for side in (train, holdout))
    if not (unseen := [names[number] for number in asked - seen]):
        return []
    return [
        f"in the hold-out only, so that they are never learned: {_listed(unseen)} (the same text "
        "stands there with another label too)"
    ]


def _numbers(label: Label) -> tuple[int, ...]:
    return label if isinstance(label, tuple) else (int(label),)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(sorted(names)[:SHOWN])
    return shown + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
