"""Evaluation of preferences on held-out prompts: which of two answers the model finds likelier."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nextword.base.signals import check_signals
from nextword.loss.linear import linear_cross_entropy
from nextword.model.transformer import Transformer
from nextword.objectives.answer import Turns, answer
from nextword.objectives.preference import Preference
from nextword.targets.batch import IGNORED

AT_ONCE = 16


@dataclass(frozen=True)
class PreferenceScores:
    """What a model makes of pairs of answers, beside its reference.

    A reward is β times how much likelier the model finds an answer than the reference does, as the
    logarithm of their ratio.
    """

    examples: int
    loss: float
    """−log σ of the difference of the two rewards, nats a pair; log 2 before any step."""
    right: int
    """Pairs whose preferred answer has the higher reward."""
    chosen_reward: float
    rejected_reward: float

    @property
    def margin(self) -> float:
        """By how much preferred answers' rewards are higher, on average."""
        return self.chosen_reward - self.rejected_reward

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        return {
            "task": "preferences",
            "loss": self.loss,
            "eval_loss": self.loss,
            "preference_accuracy": self.right / self.examples,
            "reward_margin": self.margin,
            "chosen_reward": self.chosen_reward,
            "rejected_reward": self.rejected_reward,
            "examples": self.examples,
        }


def answer_log_probabilities(
    model: Transformer, inputs: Tensor, targets: Tensor, precision: torch.dtype
) -> Tensor:
    """Add up the log-probabilities of each row's answer, its end included.

    Args:
        model: the network.
        inputs: (B, T).
        targets: (B, T); IGNORED asks for nothing.
        precision: of the matrix products.

    Returns:
        (B,), nats.
    """
    hidden = model.hidden(inputs)
    losses = linear_cross_entropy(
        hidden, model.output_weight, targets, reduction="none", precision=precision
    )
    asked = targets != IGNORED
    return -(losses * asked).sum(dim=1)


@torch.inference_mode()
def log_probabilities(
    model: Transformer,
    examples: Sequence[Turns],
    fill_id: int,
    precision: torch.dtype = torch.float32,
) -> NDArray[np.float32]:
    """Return the log-probability of each example's answers, (N,), in the order given.

    Args:
        model: the network.
        examples: in tokens.
        fill_id: stands after the shorter.
        precision: of the loss's products.
    """
    found = np.zeros(len(examples), dtype=np.float32)
    order = sorted(range(len(examples)), key=lambda number: examples[number].places)
    for start in range(0, len(order), AT_ONCE):
        check_signals()
        part = order[start : start + AT_ONCE]
        batch = answer([[examples[number]] for number in part], fill_id)
        inputs, targets = (
            torch.from_numpy(array).to(model.device) for array in (batch.inputs, batch.targets)
        )
        said = answer_log_probabilities(model, inputs, targets, precision)
        found[part] = said.float().cpu().numpy()
    return found


def score_preferences(
    model: Transformer,
    pairs: Sequence[Preference],
    reference: NDArray[np.float32],
    beta: float,
    fill_id: int,
) -> PreferenceScores:
    """Score pairs, at least one.

    Args:
        model: the network, in float32.
        pairs: in tokens.
        reference: (P, 2): what the reference gives the preferred answer and the other.
        beta: β.
        fill_id: stands after the shorter.
    """
    said = log_probabilities(model, [one for pair in pairs for one in pair], fill_id)
    rewards = beta * (said.reshape(-1, 2) - reference).astype(np.float64)
    margins = torch.from_numpy(rewards[:, 0] - rewards[:, 1])
    return PreferenceScores(
        len(pairs),
        float(-F.logsigmoid(margins).mean()),
        int((margins > 0).sum()),
        float(rewards[:, 0].mean()),
        float(rewards[:, 1].mean()),
    )
