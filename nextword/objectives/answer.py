"""Prompt and answer: go on from a prompt as a person would have it. The loss counts answers only.

Several examples stand in a row, each looking only at itself and counting its positions from 0, so a
packed row teaches exactly what its examples would teach apart. Each answer ends with end-of-text,
which is asked for like any other token: so the model learns to stop.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nextword.objectives import Objective
from nextword.objectives.causal import OBJECTIVE as CAUSAL
from nextword.targets.batch import IGNORED, Batch


class Turns(NamedTuple):
    """One example in tokens."""

    ids: tuple[int, ...]
    """From the end-of-text before the prompt to that after the last answer."""
    asked: tuple[bool, ...]
    """Which of them a person answered."""

    @property
    def places(self) -> int:
        """Positions it takes up in a row."""
        return len(self.ids) - 1


def pack(examples: Sequence[Turns], context: int) -> list[list[int]]:
    """Divide examples over rows, each in the first row that has room.

    Args:
        examples: none longer than a row.
        context: positions of a row.

    Returns:
        for each row the numbers of its examples.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(examples)), key=lambda number: -examples[number].places):
        needed = examples[number].places
        row = next((row for row, left in enumerate(room) if left >= needed), None)
        if row is None:
            rows.append([])
            room.append(context)
            row = len(rows) - 1
        rows[row].append(number)
        room[row] -= needed
    return rows


def answer(rows: Sequence[Sequence[Turns]], fill_id: int) -> Batch:
    """Lay rows of examples out, with targets only where a person answered.

    Args:
        rows: the examples of each.
        fill_id: stands after the last.
    """
    width = max(sum(example.places for example in row) for row in rows)
    inputs = np.full((len(rows), width), fill_id, dtype=np.int64)
    targets = np.full_like(inputs, IGNORED)
    documents, positions = np.zeros_like(inputs), np.zeros_like(inputs)
    for number, row in enumerate(rows):
        start = 0
        for which, example in enumerate(row, start=1):
            ids, asked = np.array(example.ids), np.array(example.asked)
            stop = start + example.places
            inputs[number, start:stop] = ids[:-1]
            targets[number, start:stop] = np.where(asked[1:], ids[1:], IGNORED)
            documents[number, start:stop] = which
            positions[number, start:stop] = np.arange(example.places)
            start = stop
    return Batch(inputs, targets, documents, positions)


OBJECTIVE = Objective(
    name="answer",
    asks="What would a person answer?",
    supervised=True,
    attention="before",
    head="vocabulary",
    loss=("cross-entropy",),
    metrics=("nats_per_answer_token", "token_accuracy", "exact_answers"),
    layouts=CAUSAL.layouts,
    ask=answer,
    cannot={
        **CAUSAL.cannot,
        "ruler": "it learned from examples and has no held-out text; `nextword evaluate RUN FILE` "
        "scores one",
        "replay": "no sentences were judged while it learned from examples",
        "report": "it learned from examples and has no held-out text to report on",
    },
)
