"""Instruction-tuning objective: continue a prompt; the loss counts answer tokens only.

Several examples stand in a row, each looking only at itself and counting its positions from 0, so a
packed row teaches exactly what its examples would teach apart. After each answer end-of-text is
asked for like any other token: so the model learns to stop. Where a chat goes on it is not read,
for who asks later writes the chat down as text.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nextword.objectives import Objective
from nextword.objectives.causal import OBJECTIVE as CAUSAL
from nextword.targets.batch import IGNORED, Batch


class Turns(NamedTuple):
    """One example in tokens."""

    inputs: tuple[int, ...]
    """From the end-of-text before the prompt to the last answer's last token."""
    targets: tuple[int, ...]
    """What is asked for after each: an answer's tokens, end-of-text after it, else IGNORED."""

    @property
    def places(self) -> int:
        """Positions it takes up in a row."""
        return len(self.inputs)

    @property
    def prompt(self) -> tuple[int, ...]:
        """What stands before the first answer."""
        first = next(place for place, one in enumerate(self.targets) if one != IGNORED)
        return self.inputs[: first + 1]


def pack(examples: Sequence[Turns], context: int) -> list[list[int]]:
    """Divide examples over rows, the longest first, each where it leaves the least room.

    Args:
        examples: none longer than a row.
        context: positions of a row.

    Returns:
        for each row the numbers of its examples.
    """
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(context + 1)]
    rooms = 0  # a bit for each number of free positions that some row has
    for number in sorted(range(len(examples)), key=lambda number: -examples[number].places):
        needed = examples[number].places
        fitting = rooms >> needed
        if fitting:
            left = needed + (fitting & -fitting).bit_length() - 1
            row = with_room[left].pop()
            if not with_room[left]:
                rooms &= ~(1 << left)
        else:
            left, row = context, len(rows)
            rows.append([])
        rows[row].append(number)
        with_room[left - needed].append(row)
        rooms |= 1 << (left - needed)
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
            stop = start + example.places
            inputs[number, start:stop] = example.inputs
            targets[number, start:stop] = example.targets
            documents[number, start:stop] = which
            positions[number, start:stop] = np.arange(example.places)
            start = stop
        documents[number, start:] = len(row) + 1
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
    make_batch=answer,
    cannot={
        **CAUSAL.cannot,
        "ruler": "it learned from examples and has no held-out text; `nextword evaluate RUN FILE` "
        "scores one",
        "replay": "no sentences were judged while it learned from examples",
        "report": "it learned from examples and has no held-out text to report on",
    },
)
