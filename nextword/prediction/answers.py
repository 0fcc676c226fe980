"""Evaluation of answers on held-out prompts: loss, perplexity, exact match."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nextword.base.signals import check_signals
from nextword.loss.bits import perplexity
from nextword.model.transformer import Transformer
from nextword.objectives.answer import Turns, answer
from nextword.prediction.evaluate import score_tokens
from nextword.targets.batch import IGNORED

AT_ONCE = 16


@dataclass(frozen=True)
class AnswerScores:
    """The loss over answer tokens only, each answer's end-of-text included."""

    examples: int
    tokens: int
    nats: float
    right: int
    """Tokens that were the likeliest."""
    exact: int
    """Examples all of whose answer tokens were: the model, always taking the likeliest, would have
    written just this answer and stopped."""

    @property
    def loss(self) -> float:
        """Nats an answer token."""
        return self.nats / self.tokens

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        return {
            "task": "answers",
            "loss": self.loss,
            "eval_loss": self.loss,
            "perplexity": perplexity(self.loss),
            "nats_per_answer_token": self.loss,
            "token_accuracy": self.right / self.tokens,
            "exact_answers": self.exact / self.examples,
            "tokens": self.tokens,
            "examples": self.examples,
        }


@torch.inference_mode()
def score_answers(model: Transformer, examples: Sequence[Turns], fill_id: int) -> AnswerScores:
    """Score examples, at least one.

    Args:
        model: the network, in float32.
        examples: in tokens.
        fill_id: stands after the shorter.
    """
    nats, tokens, right, exact = 0.0, 0, 0, 0
    order = sorted(examples, key=lambda example: example.places)
    for start in range(0, len(order), AT_ONCE):
        check_signals()
        part = order[start : start + AT_ONCE]
        batch = answer([[example] for example in part], fill_id)
        targets = torch.from_numpy(batch.targets).to(model.device)
        hidden = model.hidden(torch.from_numpy(batch.inputs).to(model.device)).float()
        asked = targets != IGNORED
        losses, ranks = score_tokens(hidden[asked], model.output_weight.float(), targets[asked])
        wrong = torch.zeros_like(targets)
        wrong[asked] = (ranks > 0).long()
        nats += float(losses.cpu().double().sum())
        tokens += len(losses)
        right += int((ranks == 0).sum())
        exact += int((wrong.sum(dim=1) == 0).sum())
    return AnswerScores(len(examples), tokens, nats, right, exact)
