"""What a model with labels says of texts, and how right it is.

Legend of shapes: B texts, C labels.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nextword.model.labels import Labeller
from nextword.objectives.labelled import between_ends
from nextword.objectives.labelled import label as laid_out
from nextword.vocabulary.tokenizer import Vocabulary

TOKENS_AT_ONCE = 1 << 13


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

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        return asdict(self)


@dataclass(frozen=True)
class ClassScores:
    """How right a model's classes are."""

    names: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Row: what a person said; column: what the model said."""
    loss: float
    """Cross-entropy, in nats an example."""
    majority: str
    """The commonest class of the training side, which a baseline says of every text."""

    @property
    def examples(self) -> int:
        """Count them."""
        return sum(map(sum, self.confusion))

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return sum(row[number] for number, row in enumerate(self.confusion)) / self.examples

    @property
    def macro_f1(self) -> float:
        """Average over the classes of F1 = 2·right / (said + true), each class counting alike."""
        return _macro_f1(np.array(self.confusion))

    @property
    def baseline_accuracy(self) -> float:
        """Of who says the commonest class of every text."""
        return sum(self.confusion[self.names.index(self.majority)]) / self.examples

    @property
    def baseline_macro_f1(self) -> float:
        """Of who says the commonest class of every text."""
        said = np.zeros((len(self.names),) * 2, dtype=np.int64)
        said[:, self.names.index(self.majority)] = [sum(row) for row in self.confusion]
        return _macro_f1(said)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        return {
            "task": "classification",
            "loss": self.loss,
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "baseline_accuracy": self.baseline_accuracy,
            "baseline_macro_f1": self.baseline_macro_f1,
            "majority": self.majority,
            "classes": list(self.names),
            "confusion": [list(row) for row in self.confusion],
            "examples": self.examples,
        }


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
            "mean_squared_error": self.loss,
            "r_squared": self.r_squared,
            "baseline_mean_squared_error": self.baseline,
            "examples": self.examples,
        }


Scores = ClassScores | NumberScores


def _macro_f1(confusion: NDArray[np.int64]) -> float:
    right, marked = confusion.diagonal(), confusion.sum(axis=0) + confusion.sum(axis=1)
    there = marked > 0  # a class that is neither true nor said has no F1
    return float((2 * right[there] / marked[there]).mean())


def rows_of(
    vocabulary: Vocabulary, texts: Sequence[str], context: int, *, causal: bool
) -> list[list[int]]:
    """Turn texts into rows of tokens, as a network with labels reads them."""
    # Where end-of-text fills rows up too, a causal network's last token must not be one.
    closed = not causal or vocabulary.pad_id is not None
    return [
        between_ends(ids, context, vocabulary.end_id, closed=closed)
        for ids in vocabulary.encode_many(texts)
    ]


@torch.inference_mode()
def logits_of(
    model: Labeller, vocabulary: Vocabulary, rows: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Return the logits of rows of tokens, (B, C), float64, in their order."""
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    found = torch.empty(len(rows), len(model.labels.names), dtype=torch.float64)
    fill_id = vocabulary.end_id if vocabulary.pad_id is None else vocabulary.pad_id
    start = 0
    while start < len(order):
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


def classify(model: Labeller, vocabulary: Vocabulary, texts: Sequence[str]) -> list[Said]:
    """Say what a model makes of texts."""
    rows = rows_of(vocabulary, texts, model.shape.context, causal=model.shape.causal)
    names, said = model.labels.names, []
    for text, logits in zip(texts, logits_of(model, vocabulary, rows), strict=True):
        if model.labels.is_number:
            number = float(logits[0])
            said.append(Said(text, f"{number:.6g}", number, {}))
            continue
        odds = logits.softmax(0)
        order = odds.argsort(descending=True).tolist()
        said.append(
            Said(text, names[order[0]], None, {names[one]: float(odds[one]) for one in order})
        )
    return said


def score_classes(
    logits: torch.Tensor, labels: NDArray[np.int64], names: Sequence[str], majority: int
) -> ClassScores:
    """Compare logits (B, C) with the classes a person named, (B,)."""
    true = torch.from_numpy(labels)
    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(confusion, (labels, logits.argmax(dim=1).numpy()), 1)
    loss = float(torch.nn.functional.cross_entropy(logits, true))
    table = tuple(tuple(row) for row in confusion.tolist())
    return ClassScores(tuple(names), table, loss, names[majority])


def score_numbers(logits: torch.Tensor, labels: NDArray[np.float32], mean: float) -> NumberScores:
    """Compare numbers (B, 1) with those a person gave, (B,)."""
    true = labels.astype(np.float64)
    error = float(((logits[:, 0].numpy() - true) ** 2).mean())
    baseline = float(((true - mean) ** 2).mean())
    return NumberScores(len(true), error, baseline, float(true.var()))
