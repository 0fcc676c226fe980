"""Per-token trace of a text: probability, rank, loss and candidates at every position.

Each position is one lesson that the text gives itself. The model has read what stands before, gives
every entry of its vocabulary a probability, and the text says which was right. Everything else here
follows from the probability of the right one.

Legend of shapes: N positions, D width, V vocabulary.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from nextword.base.display import Displayable
from nextword.base.errors import EvaluationError
from nextword.loss.bits import bits, bits_per_byte, perplexity
from nextword.loss.linear import linear_cross_entropy
from nextword.model.transformer import Transformer
from nextword.objectives.masked import NOT_A_TEXT
from nextword.prediction.scoring import states_of_each
from nextword.vocabulary.tokenizer import Vocabulary

LOGITS_AT_ONCE = 1 << 23
ZERO_NATS = 1075 * math.log(2)
"""−ln of the number below which float64 has only 0.0 left: 745.1."""
SHOWN_CONTEXT = 48
"""Tokens of context kept with a position, to be shown."""


@dataclass(frozen=True)
class Guess:
    """One entry that the model thought possible."""

    piece: str
    id: int
    probability: float
    logit: float | None = None
    """What the network said, before softmax."""


@dataclass(frozen=True)
class Position:
    """One lesson: the piece the text gave, and what the model had thought of it."""

    number: int
    """Counted from 1."""
    context: str
    """The end of what stands before, as text."""
    seen: int
    """Pieces of the text that the model had read."""
    piece: str
    id: int
    probability: float
    """Of this piece, before it was seen."""
    nats: float
    """−ln of the probability: the mistake."""
    rank: int
    """1 where it was the likeliest of all."""
    entropy: float
    """In nats: how unsure the model was, whatever came."""
    influence: float
    """Length of the loss's gradient on the last hidden state: how hard it pulls at the network."""
    candidates: tuple[Guess, ...]
    """The likeliest entries, in their order."""
    logit: float | None = None
    """What the network said of this piece, before softmax."""

    @property
    def bits(self) -> float:
        """The mistake in bits."""
        return bits(self.nats)


@dataclass(frozen=True)
class Trace(Displayable):
    """A whole text, position by position, and what they make together."""

    text: str
    model: str
    entries: int
    """Of the vocabulary."""
    positions: tuple[Position, ...]
    withheld: str
    """Why bits per byte are not given; empty where they are."""
    both_sides: bool = False
    """Whether each piece was judged from what stands before and after it; then the sum of the
    mistakes is a pseudo-log-likelihood, not the text's."""

    @property
    def nats(self) -> float:
        """Sum of the mistakes."""
        return math.fsum(position.nats for position in self.positions)

    @property
    def nats_per_token(self) -> float:
        """The loss: the average mistake."""
        return self.nats / len(self.positions)

    @property
    def perplexity(self) -> float:
        """Among how many equally likely pieces the choice was as hard."""
        return perplexity(self.nats_per_token)

    @property
    def words(self) -> int:
        """Words of the text, divided by white space."""
        return len(self.text.split())

    @property
    def word_perplexity(self) -> float | None:
        """Among how many equally likely words the choice was as hard; None without words."""
        return perplexity(self.nats / self.words) if self.words else None

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the text."""
        return len(self.text.encode("utf-8", "replace"))

    @property
    def bits_per_byte(self) -> float | None:
        """None where the vocabulary does not give the text back."""
        return None if self.withheld else bits_per_byte(self.nats, self.num_bytes)

    @property
    def product(self) -> float:
        """The product of the probabilities, as a computer's number holds it: soon 0.0."""
        return math.prod(position.probability for position in self.positions)

    @property
    def underflows_at(self) -> int | None:
        """The position at which the product becomes 0.0; None where it does not.

        Found by the sum, for processors that round the very smallest numbers to 0 (as training
        tells them to, for speed) would come there a little earlier than others.
        """
        sums = accumulate(position.nats for position in self.positions)
        return next((place for place, nats in enumerate(sums, 1) if nats > ZERO_NATS), None)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        return {
            "text": self.text,
            "model": self.model,
            "entries": self.entries,
            "both_sides": self.both_sides,
            "positions": [
                {
                    **{key: value for key, value in vars(position).items() if key != "candidates"},
                    "bits": position.bits,
                    "candidates": [vars(guess) for guess in position.candidates],
                }
                for position in self.positions
            ],
            "nats": self.nats,
            "bits": bits(self.nats),
            "product": self.product,
            "nats_per_token": self.nats_per_token,
            "perplexity": self.perplexity,
            "words": self.words,
            "word_perplexity": self.word_perplexity,
            "bytes": self.num_bytes,
            "bits_per_byte": self.bits_per_byte,
            "bits_per_byte_withheld": self.withheld or None,
        }


@torch.inference_mode()
def trace(
    model: Transformer,
    vocabulary: Vocabulary,
    text: str,
    *,
    ids: list[int] | None = None,
    begin: int | None = None,
    top: int = 1,
    name: str = "the model",
) -> Trace:
    """Judge every piece of a text, each from what stands before it.

    A model that looks to both sides judges each from all the others, in a reading in which it
    alone is hidden.

    Args:
        model: the network, in float32.
        vocabulary: of the same model.
        text: read after end-of-text; one longer than the context is read in windows of which each
            begins with the last token of the one before.
        ids: of the text, where they are known: decoded and encoded again they may differ.
        begin: the id that stands before it; default: what a text begins with.
        top: how many candidates to keep at each position.
        name: what the model is called where this is shown.

    Raises:
        EvaluationError: the text holds no piece.
    """
    ids = vocabulary.encode(text) if ids is None else ids
    if not ids:
        raise EvaluationError("the text is empty; give one with at least one word")
    pieces = [vocabulary.piece(id_) for id_ in ids]
    asked = states_of_each(model, vocabulary, ids, begin)
    wanted = torch.tensor(ids, device=model.device)
    judgements = _judge(asked.states, model.output_weight, wanted, top, len(vocabulary))
    positions = tuple(
        Position(
            number=place + 1,
            context="".join(pieces[max(place - SHOWN_CONTEXT, 0) : place]),
            seen=asked.read[place],
            piece=pieces[place],
            id=ids[place],
            probability=math.exp(-judged["nats"]),
            **{key: judged[key] for key in ("nats", "rank", "entropy", "influence", "logit")},
            candidates=tuple(
                Guess(vocabulary.piece(id_), id_, probability, logit)
                for probability, id_, logit in judged["candidates"]
            ),
        )
        for place, judged in enumerate(judgements)
    )
    withheld = "" if _comes_back(vocabulary, text) else "the vocabulary does not give the text back"
    if not model.shape.causal:
        withheld = NOT_A_TEXT
    return Trace(
        text, name, len(model.output_weight), positions, withheld, both_sides=not model.shape.causal
    )


def _judge(
    hidden: Tensor, weight: Tensor, targets: Tensor, top: int, entries: int
) -> Iterator[dict[str, Any]]:
    """Yield what is known of each position, from hidden states (N, D); V may exceed the entries."""
    rows = max(1, LOGITS_AT_ONCE // len(weight))
    for start in range(0, len(hidden), rows):
        part, wanted = hidden[start : start + rows].float(), targets[start : start + rows]
        known = linear_cross_entropy(
            part, weight.float(), wanted, reduction="none", statistics=True
        ).statistics
        # In float64 from here on, so that what is shown agrees to the last digit shown.
        logits = (part @ weight.float().T).cpu().double()
        right, norm = logits.gather(1, wanted[:, None].cpu()), logits.logsumexp(1, keepdim=True)
        ranks = 1 + (logits > right).sum(dim=1)
        best = torch.topk(logits[:, :entries], min(max(top, 1), entries, logits.shape[1]))
        probabilities = (best.values - norm).exp()
        for row in range(len(part)):
            yield {
                "nats": float(norm[row] - right[row]),
                "rank": int(ranks[row]),
                "entropy": max(float(known.entropy[row]), 0.0),
                "influence": float(known.influence[row]),
                "logit": float(right[row]),
                "candidates": [
                    *zip(
                        probabilities[row].tolist(),
                        best.indices[row].tolist(),
                        best.values[row].tolist(),
                        strict=True,
                    )
                ],
            }


def _comes_back(vocabulary: Vocabulary, text: str) -> bool:
    return vocabulary.is_lossless or vocabulary.gives_back(text)
