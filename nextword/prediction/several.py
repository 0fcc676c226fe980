"""Multi-label metrics: micro and macro F1, exact match, beside their baselines.

Legend of shapes: B texts, C labels.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nextword.prediction.labels import f1_of_each


@dataclass(frozen=True)
class Always:
    """What whoever does not read the text says best, as the training side shows it."""

    labels: tuple[int, ...]
    """Those that, said of every text, give the highest micro-F1."""
    commonest: tuple[int, ...]
    """The labels that most often stand together, alone and all: those of most texts."""


@dataclass(frozen=True)
class SeveralScores:
    """How right a model's labels are, where a text may have several, or none."""

    names: tuple[str, ...]
    examples: int
    loss: float
    """Binary cross-entropy, in nats a label, the average over labels and texts."""
    right: NDArray[np.int64]
    """(C,): how often each label was rightly said."""
    said: NDArray[np.int64]
    true: NDArray[np.int64]
    exact: int
    """Texts all of whose labels were right, and no more were said."""
    always: Always
    baseline_exact: int
    """Texts whose labels are just the commonest."""

    @property
    def micro_f1(self) -> float:
        """F1 over all labels of all texts together: 2·right / (said + true)."""
        return _micro_f1(self.right, self.said, self.true)

    @property
    def macro_f1(self) -> float:
        """Average over the labels of F1, each label counting alike."""
        return f1_of_each(self.right, self.said, self.true)

    @property
    def baseline_micro_f1(self) -> float:
        """Of who always says the same labels."""
        return _micro_f1(*self._same())

    @property
    def baseline_macro_f1(self) -> float:
        """Of who always says the same labels."""
        return f1_of_each(*self._same())

    def named(self, labels: Sequence[int]) -> list[str]:
        """Return the names of some labels."""
        return [self.names[one] for one in labels]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        return {
            "task": "multi_label",
            "loss": self.loss,
            "eval_loss": self.loss,
            "micro_f1": self.micro_f1,
            "macro_f1": self.macro_f1,
            "exact_match": self.exact / self.examples,
            "baseline_micro_f1": self.baseline_micro_f1,
            "baseline_macro_f1": self.baseline_macro_f1,
            "baseline_exact_match": self.baseline_exact / self.examples,
            "always": self.named(self.always.labels),
            "commonest": self.named(self.always.commonest),
            "labels": list(self.names),
            "right": self.right.tolist(),
            "said": self.said.tolist(),
            "true": self.true.tolist(),
            "examples": self.examples,
        }

    def _same(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        said = np.zeros_like(self.true)
        said[list(self.always.labels)] = self.examples
        return np.minimum(self.true, said), said, self.true


def _micro_f1(right: NDArray[np.int64], said: NDArray[np.int64], true: NDArray[np.int64]) -> float:
    marked = int(said.sum() + true.sum())
    return 2 * int(right.sum()) / marked if marked else 0.0


def best_without_reading(labels: Sequence[tuple[int, ...]], count: int) -> Always:
    """Find the answers that are best if they must be the same for every text.

    Args:
        labels: of each text of the training side.
        count: of different labels.
    """
    true = np.zeros(count, dtype=np.int64)
    for one in labels:
        true[list(one)] += 1
    order = np.argsort(-true, kind="stable")
    # Saying the k commonest: 2·right / (k a text + all that are true).
    said = np.arange(1, count + 1) * len(labels)
    best = int(np.argmax(2 * true[order].cumsum() / (said + true.sum())))
    together = Counter(labels).most_common(1)[0][0]
    return Always(tuple(sorted(order[: best + 1].tolist())), together)


def score_several(
    logits: torch.Tensor,
    labels: Sequence[tuple[int, ...]],
    names: Sequence[str],
    always: Always,
) -> SeveralScores:
    """Compare logits (B, C) with the labels a person gave each text."""
    true = torch.zeros(logits.shape, dtype=torch.float64)
    for row, one in zip(true, labels, strict=True):
        row[list(one)] = 1
    said = (logits > 0).double()  # likelier than not
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, true)
    right, of_model, of_person = (
        part.sum(dim=0).long().numpy() for part in (said * true, said, true)
    )
    return SeveralScores(
        tuple(names),
        len(labels),
        float(loss),
        right,
        of_model,
        of_person,
        int((said == true).all(dim=1).sum()),
        always,
        sum(one == always.commonest for one in labels),
    )


def all_several(parts: Sequence[SeveralScores]) -> SeveralScores:
    """Join the scores of parts of one hold-out."""
    examples = sum(part.examples for part in parts)
    return replace(
        parts[0],
        examples=examples,
        loss=sum(part.loss * part.examples for part in parts) / examples,
        right=np.sum([part.right for part in parts], axis=0),
        said=np.sum([part.said for part in parts], axis=0),
        true=np.sum([part.true for part in parts], axis=0),
        exact=sum(part.exact for part in parts),
        baseline_exact=sum(part.baseline_exact for part in parts),
    )
