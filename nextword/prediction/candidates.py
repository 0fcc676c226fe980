"""Next-token distribution: the likeliest candidates, with logits and probabilities."""

from dataclasses import dataclass
from typing import Any

import torch

from nextword.model.transformer import Transformer
from nextword.prediction.generate import Reader
from nextword.vocabulary.tokenizer import Vocabulary


@dataclass(frozen=True)
class Candidate:
    """One entry of the vocabulary as the next token."""

    piece: str
    """As it stands in text, a leading space included."""
    id: int
    logit: float
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The likeliest next tokens after a text."""

    prompt: str
    candidates: list[Candidate]
    rest: float
    """Probability of all that is not listed."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        return {
            "prompt": self.prompt,
            "candidates": [candidate.__dict__ for candidate in self.candidates],
            "rest": self.rest,
        }


def predict(model: Transformer, vocabulary: Vocabulary, prompt: str, top: int = 10) -> Prediction:
    """Ask what comes after a prompt, from a text's beginning on.

    Args:
        model: the network, in float32.
        vocabulary: of the same model.
        prompt: the text so far; may be empty.
        top: how many candidates to list.
    """
    logits = Reader(model).read([vocabulary.begin_id, *vocabulary.encode(prompt)])
    probabilities = logits.cpu().double().softmax(0)
    best = torch.topk(logits[: len(vocabulary)], min(top, len(vocabulary), len(logits)))
    candidates = [
        Candidate(vocabulary.piece(id_), id_, logit, float(probabilities[id_]))
        for logit, id_ in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
    return Prediction(
        prompt, candidates, max(0.0, 1.0 - sum(candidate.probability for candidate in candidates))
    )
