"""One prediction recomputed in float64: embeddings, attention, logits, softmax, loss, gradient.

    pieces and ids → logits z → e^z → their sum → probabilities p → −log p → p − y → one step

Legend of shapes: T positions, D width, V vocabulary.
"""

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nextword.base.display import Displayable
from nextword.base.errors import EvaluationError
from nextword.explanation.previews import WORKED_SENTENCE
from nextword.loss.bits import bits
from nextword.model.transformer import Transformer
from nextword.prediction.scoring import states_of_each
from nextword.vocabulary.tokenizer import Vocabulary

RISKY_LOGIT = 300.0
"""Above it e^z is shown after the greatest logit was subtracted from all: e^709 is the last number
that float64 can write."""
MOST_READINGS = 128
WORKED_WORD = "make"
STEP_SHARE = 0.01
"""Without a rate given, the step is as long as by the slope makes the loss fall by this share."""


@dataclass(frozen=True)
class Entry:
    """One entry of the vocabulary in one prediction."""

    piece: str
    id: int
    logit: float
    exponential: float
    """e^(logit − shift)."""
    probability: float
    gradient: float
    """∂(−ln p[target])/∂logit = p − y, where y is 1 for the target and 0 for all others."""


@dataclass(frozen=True)
class Step:
    """One step of gradient descent on this sentence alone, on a copy of the model."""

    rate: float
    weights: int
    """How many numbers the step moved."""
    squared_gradient: float
    """Sum of the squares of all gradients of the sentence's loss."""
    before: float
    """The sentence's loss: average of −ln p over its pieces, in nats."""
    after: float
    predicted: float
    """−rate · squared gradient: the change of the loss if its slope stayed the same."""
    probability_before: float
    """Of the piece under audit."""
    probability_after: float

    @property
    def change(self) -> float:
        """The change that came."""
        return self.after - self.before


@dataclass(frozen=True)
class Audit(Displayable):
    """Everything about one prediction; each number follows from those before it."""

    text: str
    model: str
    pieces: tuple[tuple[str, int], ...]
    """Every piece of the text and its id."""
    place: int
    """Which piece is under audit, counted from 1."""
    context: str
    """What stands before the piece."""
    after: str
    """What stands after it, where that was read too."""
    both_sides: bool
    """Whether the piece was hidden and all others were read."""
    entries: int
    """Of the vocabulary."""
    target: Entry
    likeliest: tuple[Entry, ...]
    """By falling probability; the target may be among them."""
    others_exponential: float
    """Sum of the exponentials of all entries that are neither likeliest nor the target."""
    shift: float
    """Subtracted from every logit before e was raised to it; mostly 0."""
    total: float
    """Sum of all exponentials."""
    probability_sum: float
    least: Entry
    """The least likely entry."""
    least_log10: float
    """log10 of its probability, which may be too small for a number."""
    squared_error: float
    """Σ (p − y)² over the vocabulary."""
    squared_error_gradient: float
    """∂(squared error)/∂(target's logit)."""
    step: Step

    @property
    def nats(self) -> float:
        """−ln p of the target."""
        return math.log(self.total) - (self.target.logit - self.shift)

    @property
    def bits(self) -> float:
        """−log2 p of the target."""
        return bits(self.nats)

    @property
    def digits(self) -> float:
        """−log10 p of the target."""
        return self.nats / math.log(10)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        return {
            **asdict(self),
            "pieces": [{"piece": piece, "id": id_} for piece, id_ in self.pieces],
            "nats": self.nats,
            "bits": self.bits,
            "digits": self.digits,
            "step": {**asdict(self.step), "change": self.step.change},
        }


def audit(
    model: Transformer,
    vocabulary: Vocabulary,
    text: str,
    *,
    ids: list[int] | None = None,
    token: int | None = None,
    top: int = 5,
    rate: float | None = None,
    name: str = "the model",
) -> Audit:
    """Take one prediction apart.

    Args:
        model: the network; it is copied, and stays as it is.
        vocabulary: of the same model.
        text: read after end-of-text; it must fit one context.
        ids: of the text, where they are known.
        token: which of its pieces, counted from 1; default: the one that surprised the model most,
            the first left out where there are others.
        top: how many of the likeliest entries to show.
        rate: of the step; default: such that by its slope the loss falls by a hundredth.
        name: what the model is called where this is shown.

    Raises:
        EvaluationError: the text is empty or too long, or has no such piece.
    """
    ids = vocabulary.encode(text) if ids is None else ids
    pieces = tuple((vocabulary.piece(id_), id_) for id_ in ids)
    most = model.shape.context - (not model.shape.causal)
    if not model.shape.causal:
        most = min(most, MOST_READINGS)  # one reading for each piece, all with gradients
    _check(ids, token, most)
    exact = copy.deepcopy(model).cpu().double()  # some GPUs have no float64
    exact.set_precision(torch.float64)
    exact.requires_grad_(requires_grad=True)
    with torch.no_grad():
        losses = _losses(exact, vocabulary, ids)
        place = token or _hardest(losses)
        logits = exact.output_weight @ states_of_each(exact, vocabulary, ids).states[place - 1]
    step = _descend(exact, vocabulary, ids, place, rate)
    right = ids[place - 1]
    shift = float(logits.max()) if float(logits.abs().max()) > RISKY_LOGIT else 0.0
    exponentials = (logits - shift).exp()
    total = float(exponentials.sum())
    probabilities = logits.softmax(0)
    gradient = probabilities.clone()
    gradient[right] -= 1.0

    def entry(id_: int) -> Entry:
        numbers = (float(values[id_]) for values in (logits, exponentials, probabilities, gradient))
        return Entry(vocabulary.piece(id_), id_, *numbers)

    known = logits[: len(vocabulary)]  # a network may have more logits than there are entries
    best = torch.topk(known, min(top, len(known))).indices.tolist()
    shown = torch.zeros_like(logits, dtype=torch.bool)
    shown[[*best, right]] = True
    least = int(known.argmin())
    wrong = float((probabilities * gradient).sum())
    return Audit(
        text=text,
        model=name,
        pieces=pieces,
        place=place,
        context="".join(piece for piece, _ in pieces[: place - 1]),
        after="" if model.shape.causal else "".join(piece for piece, _ in pieces[place:]),
        both_sides=not model.shape.causal,
        entries=len(logits),
        target=entry(right),
        likeliest=tuple(entry(id_) for id_ in best),
        others_exponential=float(exponentials[~shown].sum()),
        shift=shift,
        total=total,
        probability_sum=float(probabilities.sum()),
        least=entry(least),
        least_log10=float(logits.log_softmax(0)[least]) / math.log(10),
        squared_error=float((gradient**2).sum()),
        squared_error_gradient=2 * float(probabilities[right]) * (float(gradient[right]) - wrong),
        step=step,
    )


def audit_worked(model: Transformer, vocabulary: Vocabulary, name: str) -> Audit:
    """Take the worked example apart, at "make" where the vocabulary holds the word whole.

    Of a model that reads less at once, as much of it as fits.
    """
    ids = vocabulary.encode(WORKED_SENTENCE)
    pieces = [vocabulary.piece(id_).strip() for id_ in ids]
    token, text = 1 + pieces.index(WORKED_WORD) if WORKED_WORD in pieces else None, WORKED_SENTENCE
    if len(ids) > (most := model.shape.context - (not model.shape.causal)):
        ids = ids[:most]
        token, text = None, vocabulary.decode(ids)
    return audit(model, vocabulary, text, ids=ids, token=token, name=name)


def _check(ids: list[int], token: int | None, context: int) -> None:
    if not ids:
        raise EvaluationError("the text is empty; give one with at least one word")
    if len(ids) > context:
        raise EvaluationError(
            f"the text has {len(ids)} pieces and the model reads {context} at once; give a shorter "
            "one"
        )
    if token is not None and not 1 <= token <= len(ids):
        raise EvaluationError(f"--token {token}: the text has the pieces 1 to {len(ids)}")


def _losses(model: Transformer, vocabulary: Vocabulary, ids: list[int]) -> Tensor:
    """Return −ln p of every token, (T,)."""
    logits = states_of_each(model, vocabulary, ids).states @ model.output_weight.T
    return F.cross_entropy(logits, torch.tensor(ids), reduction="none")


def _hardest(losses: Tensor) -> int:
    """Return the place, from 1, of the greatest loss; the first piece is anybody's guess."""
    return 1 if len(losses) == 1 else 2 + int(losses[1:].argmax())


def _descend(
    model: Transformer, vocabulary: Vocabulary, ids: list[int], place: int, rate: float | None
) -> Step:
    """Take one step of plain gradient descent; the model is moved."""
    losses = _losses(model, vocabulary, ids)
    losses.mean().backward()  # type: ignore[no-untyped-call]
    weights = [weight for weight in model.parameters() if weight.grad is not None]
    squared = math.fsum(float(weight.grad.square().sum()) for weight in weights)  # type: ignore[union-attr]
    before = float(losses.detach().mean())
    if rate is None:
        rate = STEP_SHARE * before / squared if squared else 0.0
    with torch.no_grad():
        for weight in weights:
            weight -= rate * weight.grad  # type: ignore[operator, misc]
        after = _losses(model, vocabulary, ids)
    return Step(
        rate=rate,
        weights=sum(weight.numel() for weight in weights),
        squared_gradient=squared,
        before=before,
        after=float(after.mean()),
        predicted=-rate * squared,
        probability_before=math.exp(-float(losses[place - 1].detach())),
        probability_after=math.exp(-float(after[place - 1])),
    )
