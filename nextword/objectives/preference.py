"""Preference objective (DPO): of two answers to a prompt, which did a person prefer?

The network is asked to raise the probability of the preferred answer over the other's, beside what
the network that training began with (the reference) gives both. Source: Rafailov et al. 2023.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextword.objectives import Objective
from nextword.objectives.answer import OBJECTIVE as ANSWER
from nextword.objectives.answer import Turns, answer


class Preference(NamedTuple):
    """A prompt with two answers, in tokens."""

    chosen: Turns
    rejected: Turns

    @property
    def places(self) -> int:
        """Positions that the longer takes up."""
        return max(self.chosen.places, self.rejected.places)


@dataclass(frozen=True)
class Preferences:
    """Some prompts with two answers each, as one batch."""

    inputs: NDArray[np.int64]
    """(2P, T): each preferred answer, and after it the other."""
    targets: NDArray[np.int64]
    """(2P, T): the answers and their ends, else IGNORED."""
    reference: NDArray[np.float32]
    """(P,): log-probability of the preferred answer less the other's, by the reference."""

    @property
    def num_targets(self) -> float:
        """Count the pairs."""
        return float(len(self.reference))

    def __iter__(self) -> Iterator[Any]:
        """Yield the arrays in the order in which the loss takes them."""
        return iter((self.inputs, self.targets, self.reference))


def prefer(
    pairs: Sequence[Preference], reference: NDArray[np.float32], fill_id: int
) -> Preferences:
    """Lay prompts with two answers each out, a row an answer.

    Args:
        pairs: in tokens.
        reference: (P,), as `Preferences` has it.
        fill_id: stands after the end of the shorter.
    """
    batch = answer([[one] for pair in pairs for one in pair], fill_id)
    return Preferences(batch.inputs, batch.targets, reference)


OBJECTIVE = Objective(
    name="preference",
    asks="Which of two answers did a person prefer?",
    supervised=True,
    attention="before",
    head="vocabulary",
    loss=("logistic",),
    metrics=("loss", "preference_accuracy", "reward_margin"),
    layouts=ANSWER.layouts,
    make_batch=prefer,
    cannot=ANSWER.cannot,
)
