"""Supervised objective: classification, regression, multi-label.

Each example is a text and its label. A label that is one of several classes is asked for with
cross-entropy, as pieces of text are; a label that is a number with squared error, for there is no
list of all numbers to choose from. Where a text may have several labels, each is asked for alone:
yes or no, again with cross-entropy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextword.objectives import Objective
from nextword.targets.windows import keyed_permutation

NO_WORDS = (
    "its head gives labels and no longer words; ask the model that it was finetuned from, or "
    "`nextword classify`"
)


@dataclass(frozen=True)
class Examples:
    """Some texts in tokens, with their labels, as one batch."""

    inputs: NDArray[np.int64]
    """(B, T), filled up at the end."""
    lengths: NDArray[np.int64]
    """(B,), tokens that count."""
    labels: NDArray[Any]
    """(B,): numbers of classes, int64; or the numbers to predict, float32; or (B, C), float32: 1
    for each of several labels that a text has."""
    weights: NDArray[np.float32]
    """(B,): how much each example counts."""

    @property
    def num_targets(self) -> float:
        """Add up the examples by their weights."""
        return float(self.weights.sum())

    def __iter__(self) -> Iterator[Any]:
        """Yield the arrays in the order in which the loss takes them."""
        return iter((self.inputs, self.lengths, self.labels, self.weights))


def between_ends(ids: Sequence[int], context: int, end_id: int, *, closed: bool) -> list[int]:
    """Put a text between end-of-texts, as much of its beginning as the network reads at once.

    Args:
        ids: of the text.
        context: the most tokens.
        end_id: end-of-text.
        closed: whether one stands at the end too.
    """
    end = [end_id] * closed
    return [end_id, *ids[: context - 1 - len(end)], *end]


def label(
    rows: Sequence[Sequence[int]],
    labels: NDArray[Any],
    weights: NDArray[np.float32],
    fill_id: int,
) -> Examples:
    """Lay texts and what a person said of them side by side.

    Args:
        rows: of tokens, as `between_ends` makes them.
        labels: of each.
        weights: of each.
        fill_id: stands after the end of the shorter.
    """
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    inputs = np.full((len(rows), int(lengths.max())), fill_id, dtype=np.int64)
    for number, row in enumerate(rows):
        inputs[number, : len(row)] = row
    return Examples(inputs, lengths, labels, weights)


def in_order(count: int, rows: int, step: int, seed: int) -> NDArray[np.int64]:
    """Return which examples belong to a step, (rows,): each once an epoch, in ever new orders.

    Args:
        count: of examples.
        rows: a step.
        step: from 0.
        seed: of the orders.
    """
    numbers = step * rows + np.arange(rows, dtype=np.int64)
    epochs, within = np.divmod(numbers, count)
    chosen = np.empty_like(numbers)
    for epoch in np.unique(epochs).tolist():
        mine = epochs == epoch
        chosen[mine] = keyed_permutation(within[mine], count, seed * 1_000_003 + epoch)
    return chosen


_WORDS = (
    *("generate", "predict", "fill", "evaluate", "explain", "score", "audit", "replay"),
    "ruler",
    *("report", "tour", "compress", "decompress", "compare", "export", "benchmark"),
)

OBJECTIVE = Objective(
    name="labelled",
    asks="What would a person call this?",
    supervised=True,
    attention="as begun",
    head="labels",
    loss=("cross-entropy", "squared error", "binary cross-entropy"),
    metrics=(
        *("loss", "accuracy", "macro_f1", "mean_squared_error", "r_squared"),
        *("micro_f1", "exact_match"),
    ),
    layouts=(
        "Qwen3ForSequenceClassification",
        "LlamaForSequenceClassification",
        "EuroBertForSequenceClassification",
    ),
    make_batch=label,
    cannot=dict.fromkeys(_WORDS, NO_WORDS),
)
