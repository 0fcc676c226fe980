"""Classification and regression: predictions, accuracy, F1, squared error.

Legend of shapes: B texts, C labels.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nextword.base.signals import check_signals
from nextword.model.labels import SequenceClassifier
from nextword.objectives.labelled import between_ends
from nextword.objectives.labelled import label as laid_out
from nextword.vocabulary.tokenizer import Vocabulary

TOKENS_AT_ONCE = 1 << 13
MOST_SQUARE = 200
"""Classes up to which who was taken for whom is told as a square."""
LIKELY = 0.5


@dataclass(frozen=True)
class Said:
    """What a model said of one text."""

    text: str
    label: str
    """The likeliest class, or the number as text."""
    number: float | None
    """Where the labels are numbers."""
    probabilities: dict[str, float]
    """Of each class, the likeliest first; empty where the labels are numbers."""
    labels: tuple[str, ...] | None = None
    """Where a text may have several: those that are likelier than not, perhaps none."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        values = asdict(self)
        if self.labels is None:
            del values["labels"]
        return values


@dataclass(frozen=True)
class ClassScores:
    """How right a model's classes are."""

    names: tuple[str, ...]
    counts: dict[tuple[int, int], int]
    """By what a person said and what the model said, as numbers of classes."""
    loss: float
    """Cross-entropy, in nats an example."""
    majority: str
    """The commonest class of the training side, which a baseline says of every text."""

    @property
    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """Row: what a person said; column: what the model said."""
        return tuple(map(tuple, self.confusion_of(range(len(self.names)))))

    def confusion_of(self, classes: Sequence[int]) -> list[list[int]]:
        """Return the part of the confusion that is between some classes."""
        return [[self.counts.get((true, said), 0) for said in classes] for true in classes]

    @property
    def examples(self) -> int:
        """Count them."""
        return sum(self.counts.values())

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return int(self._marks()[0].sum()) / self.examples

    @property
    def macro_f1(self) -> float:
        """Average over the classes of F1 = 2·right / (said + true), each class counting alike."""
        return f1_of_each(*self._marks())

    @property
    def baseline_accuracy(self) -> float:
        """Of who says the commonest class of every text."""
        return int(self.true[self.names.index(self.majority)]) / self.examples

    @property
    def baseline_macro_f1(self) -> float:
        """Of who says the commonest class of every text."""
        always = np.zeros_like(self.true)
        always[self.names.index(self.majority)] = self.examples
        return f1_of_each(np.minimum(self.true, always), always, self.true)

    @property
    def true(self) -> NDArray[np.int64]:
        """How many examples are of each class."""
        return self._marks()[2]

    def _marks(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Of each class: how often it was rightly said, said, and true."""
        right, said, true = (np.zeros(len(self.names), dtype=np.int64) for _ in range(3))
        for (of_person, of_model), count in self.counts.items():
            right[of_person] += count * (of_person == of_model)
            said[of_model] += count
            true[of_person] += count
        return right, said, true

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        return {
            "task": "classification",
            "loss": self.loss,
            "eval_loss": self.loss,
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "baseline_accuracy": self.baseline_accuracy,
            "baseline_macro_f1": self.baseline_macro_f1,
            "majority": self.majority,
            "classes": list(self.names),
            "examples": self.examples,
            **self._told(),
        }

    def _told(self) -> dict[str, Any]:
        """Return who was taken for whom: as a square while that is small, else as triples."""
        if len(self.names) <= MOST_SQUARE:
            return {"confusion": [list(row) for row in self.confusion]}
        pairs = sorted(self.counts.items())
        return {"confused": [[true, said, count] for (true, said), count in pairs]}


@dataclass(frozen=True)
class NumberScores:
    """How near a model's numbers are."""

    examples: int
    loss: float
    """Mean squared error."""
    baseline: float
    """Mean squared error of who says the training side's mean of every text."""
    variance: float
    """Mean squared distance of the true numbers from their own mean."""

    @property
    def r_squared(self) -> float | None:
        """Share of the variance that is explained; None where the numbers do not vary."""
        return 1 - self.loss / self.variance if self.variance > 0 else None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        return {
            "task": "regression",
            "loss": self.loss,
            "eval_loss": self.loss,
            "mean_squared_error": self.loss,
            "r_squared": self.r_squared,
            "baseline_mean_squared_error": self.baseline,
            "examples": self.examples,
        }


Scores = ClassScores | NumberScores


def f1_of_each(right: NDArray[np.int64], said: NDArray[np.int64], true: NDArray[np.int64]) -> float:
    """Average F1 over classes, from how often each was rightly said, said, and true."""
    marked = said + true
    there = marked > 0  # a class that is neither true nor said has no F1
    return float((2 * right[there] / marked[there]).mean()) if there.any() else 0.0


class Tokens(NamedTuple):
    """Texts in tokens."""

    rows: list[list[int]]
    cut: int
    """How many were longer than the network reads at once, and lost their end."""


def rows_of(vocabulary: Vocabulary, texts: Sequence[str], context: int, *, causal: bool) -> Tokens:
    """Turn texts into rows of tokens, as a network with labels reads them."""
    # Where end-of-text fills rows up too, a causal network's last token must not be one.
    closed = not causal or vocabulary.pad_id is not None
    encoded = vocabulary.encode_many(texts)
    rows = [between_ends(ids, context, vocabulary.end_id, closed=closed) for ids in encoded]
    room = context - 1 - closed
    return Tokens(rows, sum(len(ids) > room for ids in encoded))


@torch.inference_mode()
def logits_of(
    model: SequenceClassifier, vocabulary: Vocabulary, rows: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Return the logits of rows of tokens, (B, C), float64, in their order."""
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    found = torch.empty(len(rows), len(model.labels.names), dtype=torch.float64)
    fill_id = vocabulary.end_id if vocabulary.pad_id is None else vocabulary.pad_id
    start = 0
    while start < len(order):
        check_signals()
        stop = start + 1
        while stop < len(order) and len(rows[order[stop]]) * (stop + 1 - start) <= TOKENS_AT_ONCE:
            stop += 1
        part = order[start:stop]
        nothing = np.zeros(len(part), dtype=np.float32)
        batch = laid_out([rows[number] for number in part], nothing, nothing, fill_id)
        ids, lengths = torch.from_numpy(batch.inputs), torch.from_numpy(batch.lengths)
        given = model.logits(ids.to(model.device), lengths.to(model.device))
        found[torch.tensor(part)] = given.cpu().double()
        start = stop
    return found


def classify(model: SequenceClassifier, vocabulary: Vocabulary, texts: Sequence[str]) -> list[Said]:
    """Say what a model makes of texts."""
    rows = rows_of(vocabulary, texts, model.shape.context, causal=model.shape.causal).rows
    names, said = model.labels.names, []
    for text, logits in zip(texts, logits_of(model, vocabulary, rows), strict=True):
        if model.labels.is_number:
            number = float(logits[0])
            said.append(Said(text, f"{number:.6g}", number, {}))
            continue
        several = model.labels.several
        odds = logits.sigmoid() if several else logits.softmax(0)
        order = odds.argsort(descending=True).tolist()
        chances = {names[one]: float(odds[one]) for one in order}
        likely = tuple(name for name, chance in chances.items() if chance > LIKELY)
        if several:
            said.append(Said(text, ", ".join(likely), None, chances, likely))
        else:
            said.append(Said(text, names[order[0]], None, chances))
    return said


def score_classes(
    logits: torch.Tensor, labels: NDArray[np.int64], names: Sequence[str], majority: int
) -> ClassScores:
    """Compare logits (B, C) with the classes a person named, (B,)."""
    true = torch.from_numpy(labels)
    counts = Counter(zip(labels.tolist(), logits.argmax(dim=1).tolist(), strict=True))
    loss = float(torch.nn.functional.cross_entropy(logits, true))
    return ClassScores(tuple(names), dict(counts), loss, names[majority])


def all_classes(parts: Sequence[ClassScores]) -> ClassScores:
    """Join the scores of parts of one hold-out."""
    if len(parts) == 1:
        return parts[0]
    counts = sum((Counter(part.counts) for part in parts), Counter[tuple[int, int]]())
    loss = sum(part.loss * part.examples for part in parts) / counts.total()
    return ClassScores(parts[0].names, dict(counts), loss, parts[0].majority)


def score_numbers(logits: torch.Tensor, labels: NDArray[np.float32], mean: float) -> NumberScores:
    """Compare numbers (B, 1) with those a person gave, (B,)."""
    true = labels.astype(np.float64)
    error = float(((logits[:, 0].numpy() - true) ** 2).mean())
    baseline = float(((true - mean) ** 2).mean())
    return NumberScores(len(true), error, baseline, float(true.var()))
