"""Compare models on the same text: paired differences in loss, with bootstrap confidence.

Models may cut a text otherwise. Where all of them end a piece at the same byte, the text is parted,
and each part costs each model the sum of its own pieces there.

Legend of shapes: M models, N documents, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nextword.base.display import Displayable
from nextword.base.errors import EvaluationError
from nextword.loss.bits import bits
from nextword.prediction.evaluate import score_tokens
from nextword.prediction.loading import Opened
from nextword.prediction.masked import pseudo_nats
from nextword.prediction.scoring import states_by_window

RESAMPLES = 4000
FEWEST_DOCUMENTS = 8
"""Fewer say nothing of what other documents would have given."""
SURE = 0.95


@dataclass(frozen=True)
class Part:
    """A part of the text that no model's piece reaches across."""

    text: str
    nats: tuple[float, ...]
    """What it cost each model."""


@dataclass(frozen=True)
class Judge:
    """One of the models."""

    name: str
    parameters: int
    entries: int
    """Of its vocabulary."""
    both_sides: bool
    """Whether it saw what follows too: then its sum is a pseudo-log-likelihood."""
    nats: float
    tokens: int
    withheld: str
    """Why its bits per byte are not given."""


@dataclass(frozen=True)
class Difference:
    """How much better the best model is than another, in bits a byte."""

    better: int
    worse: int
    bits_per_byte: float
    low: float
    high: float
    """The interval in which 95 of 100 resamples lie."""

    @property
    def may_be_chance(self) -> bool:
        """Whether none at all lies in the interval too."""
        return self.low <= 0 <= self.high


@dataclass(frozen=True)
class Comparison(Displayable):
    """Several models on one text, or on some documents."""

    judges: tuple[Judge, ...]
    num_bytes: int
    documents: int
    parts: tuple[Part, ...]
    """Of a single text; none of documents."""
    differences: tuple[Difference, ...]
    """Between the best and each other, of enough documents."""

    def bits_per_byte(self, which: int) -> float | None:
        """Return a model's figure; None where it is withheld."""
        judge = self.judges[which]
        return None if judge.withheld else bits(judge.nats) / self.num_bytes

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        return {
            "models": [
                {**vars(judge), "bits_per_byte": self.bits_per_byte(number)}
                for number, judge in enumerate(self.judges)
            ],
            "bytes": self.num_bytes,
            "documents": self.documents,
            "parts": [vars(part) for part in self.parts],
            "differences": [
                {**vars(one), "may_be_chance": one.may_be_chance} for one in self.differences
            ],
        }


@torch.inference_mode()
def token_nats(opened: Opened, ids: list[int]) -> NDArray[np.float64]:
    """Return −ln P of every token of a text, by a model of either kind, window by window."""
    model, found = opened.model, []
    for asked, part in states_by_window(model, opened.vocabulary, ids):
        wanted = torch.tensor(part, device=model.device)
        losses, _ = score_tokens(asked.states.float(), model.output_weight.float(), wanted)
        found.append(losses.cpu().double().numpy())
    return np.concatenate(found)


def compare_text(models: Sequence[Opened], text: str) -> Comparison:
    """Judge one text by several models.

    Raises:
        EvaluationError: it is empty.
    """
    if not text.strip():
        raise EvaluationError("the text is empty; give one with at least one word")
    raw = text.encode("utf-8", "replace")
    judges, ends, costs = [], [], []
    for opened in models:
        ids = opened.vocabulary.encode(text)
        nats = token_nats(opened, ids)
        sizes = [len(opened.vocabulary.piece_bytes(id_)) for id_ in ids]
        exact = opened.vocabulary.gives_back(text)
        spelled = b"".join(map(opened.vocabulary.piece_bytes, ids)) == raw
        judges.append(_judge(opened, float(nats.sum()), len(ids), exact))
        ends.append(np.cumsum(sizes) if spelled else np.array([len(raw)]))
        costs.append(nats if spelled else np.array([nats.sum()]))
    shared = sorted(set.intersection(*(set(one.tolist()) for one in ends)))
    parts, before = [], 0
    for end in shared:
        nats_of = tuple(
            float(cost[(places > before) & (places <= end)].sum())
            for cost, places in zip(costs, ends, strict=True)
        )
        parts.append(Part(raw[before:end].decode("utf-8", "replace"), nats_of))
        before = end
    return Comparison(tuple(judges), len(raw), 1, tuple(parts), ())


def compare_documents(
    models: Sequence[Opened], documents: Sequence[str], seed: int = 0
) -> Comparison:
    """Judge documents by several models, and say which differences could be chance.

    Args:
        models: two or more.
        documents: whole texts.
        seed: of the resamples.

    Raises:
        EvaluationError: there is none.
    """
    if not documents:
        raise EvaluationError("there is no text to score; give a file with text in it")
    sizes = np.array([len(text.encode("utf-8", "replace")) for text in documents])
    nats = np.zeros((len(models), len(documents)))
    judges = []
    for number, opened in enumerate(models):
        tokens, exact = 0, True
        for which, text in enumerate(documents):
            ids = opened.vocabulary.encode(text)
            exact = exact and opened.vocabulary.gives_back(text)
            nats[number, which] = document_nats(opened, ids)
            tokens += len(ids) + opened.model.shape.causal  # which is asked for the end too
        judges.append(_judge(opened, float(nats[number].sum()), tokens, exact))
    differences: tuple[Difference, ...] = ()
    if len(documents) >= FEWEST_DOCUMENTS:
        differences = tuple(_differences(judges, nats, sizes, seed))
    return Comparison(tuple(judges), int(sizes.sum()), len(documents), (), differences)


def document_nats(opened: Opened, ids: list[int]) -> float:
    """Return what a whole document costs, its end included where that is asked for."""
    end_id = opened.vocabulary.end_id
    if opened.model.shape.causal:
        return float(token_nats(opened, [*ids, end_id]).sum())
    return pseudo_nats(opened.model, opened.vocabulary, np.array([*ids, end_id], dtype=np.int64))


def _judge(opened: Opened, nats: float, tokens: int, exact: bool) -> Judge:
    return Judge(
        name=opened.name,
        parameters=sum(weight.numel() for weight in opened.model.parameters()),
        entries=len(opened.vocabulary),
        both_sides=not opened.model.shape.causal,
        nats=nats,
        tokens=tokens,
        withheld="" if exact else "its vocabulary does not give the text back",
    )


def _differences(
    judges: Sequence[Judge], nats: NDArray[np.float64], sizes: NDArray[np.int64], seed: int
) -> list[Difference]:
    """Compare the best with each other model by resampling documents, the same for both.

    Source: the paired bootstrap (Efron & Tibshirani 1993; for language, Koehn 2004).
    """
    known = [number for number, one in enumerate(judges) if not one.withheld and not one.both_sides]
    known.sort(key=lambda number: float(nats[number].sum()))
    edges = [(1 - SURE) / 2, (1 + SURE) / 2]
    found = []
    for other in known[1:]:
        apart = bits(1.0) * (nats[other] - nats[known[0]])
        low, high = np.quantile(_resampled(apart, sizes, seed), edges)
        whole = float(apart.sum() / sizes.sum())
        found.append(Difference(known[0], other, whole, float(low), float(high)))
    return found


def _resampled(
    apart: NDArray[np.float64], sizes: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Return the difference a byte over documents drawn again with replacement, (R,)."""
    source, count = np.random.default_rng(seed), len(sizes)
    found = []
    for _ in range(RESAMPLES):
        drawn = source.integers(0, count, count)
        found.append(apart[drawn].sum() / sizes[drawn].sum())
    return np.array(found)
