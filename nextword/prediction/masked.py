"""Masked models: evaluation at hidden tokens, pseudo-log-likelihood, filling of masks.

Its loss is measured at hidden places only, and is not the loss of a text. The places are drawn from
a seed and the document's number, so the figure is the same each time, whatever the batch size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nextword.base.errors import EvaluationError
from nextword.loss.bits import bits
from nextword.machine.ranks import Ranks
from nextword.model.transformer import Transformer
from nextword.objectives.masked import NOT_A_TEXT, choose_places
from nextword.objectives.options import ObjectiveSettings
from nextword.prediction.candidates import Candidate
from nextword.prediction.divided import ALONE, add_up
from nextword.prediction.evaluate import (
    Documents,
    Evaluation,
    choose_documents,
    score_tokens,
    summed,
)
from nextword.prediction.options import EvaluationSettings
from nextword.prediction.scoring import hide_each, windows_with_pieces
from nextword.targets.batch import IGNORED
from nextword.vocabulary.tokenizer import Vocabulary

MASK = "[MASK]"
"""How a hidden place is written in a text, whatever the vocabulary calls it."""


class _Row(NamedTuple):
    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]


@torch.inference_mode()
def evaluate_masked(
    model: Transformer,
    texts: Documents,
    vocabulary: Vocabulary,
    settings: EvaluationSettings,
    hiding: ObjectiveSettings,
    *,
    max_tokens: int | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Hide a share of each document's tokens, all by the mask, and score what the model names.

    Args:
        model: looks to both sides; its matrix products are put to float32 for the while.
        texts: tokenized documents.
        vocabulary: of the same model.
        settings: batch size.
        hiding: the share, and the seed of the places.
        max_tokens: take whole documents from the first on until about so many; None takes all.
        ranks: processes that share the work, which all must call this; each returns all of it.

    Raises:
        EvaluationError: there is no document.
    """
    count, cut = choose_documents(texts, max_tokens)
    if not count:
        raise EvaluationError("there is no text to score; give a file with text in it")
    result = Evaluation(documents=count, num_bytes=None, withheld=NOT_A_TEXT, at_hidden=True)
    rows = (
        row
        for number in range(count)
        for row in _hidden_rows(
            texts.document(number)[: cut if number == count - 1 else None],
            number,
            model.shape.context,
            vocabulary,
            hiding,
        )
    )
    precision = model.precision
    model.set_precision(torch.float32)
    try:
        sums = add_up(
            _batches(rows, settings.batch_tokens),
            lambda batch: _score(model, batch, vocabulary.end_id),
            4,
            ranks,
        )
    finally:
        model.set_precision(precision)
    result.take(sums)
    return result


def _hidden_rows(
    document: NDArray[np.int64],
    number: int,
    context: int,
    vocabulary: Vocabulary,
    hiding: ObjectiveSettings,
) -> Iterator[_Row]:
    begin_id, end_id = vocabulary.begin_id, vocabulary.end_id
    whole = np.concatenate([np.array([begin_id], dtype=np.int64), document])
    for start in range(0, len(whole), context):
        window = whole[start : start + context].copy()
        source = np.random.default_rng((hiding.evaluation_seed, number, start))
        hidable = np.where(window == begin_id, end_id, window)  # neither is ever hidden
        places = choose_places(hidable, end_id, hiding.rate, source)
        if len(places):
            targets = np.full_like(window, IGNORED)
            targets[places] = window[places]
            window[places] = vocabulary.mask
            yield _Row(window, targets)


def _batches(rows: Iterator[_Row], batch_tokens: int) -> Iterator[list[_Row]]:
    waiting: list[_Row] = []
    longest = 0
    for row in rows:
        longest = max(longest, len(row.inputs))
        if waiting and longest * (len(waiting) + 1) > batch_tokens:
            yield waiting
            waiting, longest = [], len(row.inputs)
        waiting.append(row)
    if waiting:
        yield waiting


def _score(model: Transformer, batch: list[_Row], end_id: int) -> NDArray[np.float64]:
    width = max(len(row.inputs) for row in batch)
    inputs = torch.full((len(batch), width), end_id)
    targets, real = torch.full_like(inputs, IGNORED), torch.zeros_like(inputs, dtype=torch.bool)
    for number, row in enumerate(batch):
        size = len(row.inputs)
        inputs[number, :size] = torch.from_numpy(row.inputs)
        targets[number, :size] = torch.from_numpy(row.targets)
        real[number, :size] = True
    seen = real[:, None, None, :].to(model.device)
    hidden = model.hidden(inputs.to(model.device), seen=seen).float()
    asked = (targets != IGNORED).to(model.device)
    losses, ranks = score_tokens(
        hidden[asked], model.output_weight.float(), targets.to(model.device)[asked]
    )
    return summed(losses, ranks)


@dataclass(frozen=True)
class Pseudo:
    """The pseudo-log-likelihood of a text: every token hidden in turn, the logs added up.

    Source: Salazar et al. 2020. It is no likelihood: e^it over all texts does not sum to 1.
    """

    nats: float
    """Minus the pseudo-log-likelihood."""
    tokens: int
    documents: int
    num_bytes: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        return {
            "pseudo_log_likelihood": -self.nats,
            "pseudo_nats_per_token": self.nats / self.tokens,
            "pseudo_bits_per_byte": bits(self.nats) / self.num_bytes if self.num_bytes else None,
            "tokens": self.tokens,
            "bytes": self.num_bytes,
            "documents": self.documents,
        }


@torch.inference_mode()
def pseudo_nats(model: Transformer, vocabulary: Vocabulary, document: NDArray[np.int64]) -> float:
    """Hide each piece of a document alone, and add up −ln P of what it was.

    Args:
        model: looks to both sides.
        vocabulary: of the same model.
        document: ids; its end-of-text is read but not asked for.
    """
    begin = np.array([vocabulary.begin_id], dtype=np.int64)
    total = 0.0
    row = np.concatenate([begin, document])
    for window, places in windows_with_pieces(row, vocabulary, model.shape.context):
        states = hide_each(model, window, places, vocabulary.mask).float()
        wanted = torch.from_numpy(window[places]).to(model.device)
        losses, _ = score_tokens(states, model.output_weight.float(), wanted)
        total += float(losses.cpu().double().sum())
    return total


def pseudo(model: Transformer, vocabulary: Vocabulary, texts: Documents) -> Pseudo:
    """Score texts by their pseudo-log-likelihood.

    Raises:
        EvaluationError: there is no document.
    """
    count = texts.num_documents
    nats, tokens = 0.0, 0
    for number in range(count):
        document = texts.document(number)
        nats += pseudo_nats(model, vocabulary, document)
        tokens += len(document) - 1
    if not tokens:
        raise EvaluationError("there is no text to score; give a file with text in it")
    raw = texts.document_bytes
    return Pseudo(nats, tokens, count, None if raw is None else int(raw[:count].sum()))


@dataclass(frozen=True)
class Filled:
    """What a model thinks was hidden at one place of a text."""

    before: str
    after: str
    candidates: tuple[Candidate, ...]
    rest: float
    """Probability of all that is not listed."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        candidates = [vars(candidate) for candidate in self.candidates]
        return {**vars(self), "candidates": candidates}


@torch.inference_mode()
def fill(
    model: Transformer, vocabulary: Vocabulary, text: str, top: int = 10
) -> tuple[Filled, ...]:
    """List what may stand at each hidden place of a text; several places are judged apart.

    Args:
        model: looks to both sides.
        vocabulary: of the same model.
        text: with [MASK] where something is hidden; a piece's leading space is part of it.
        top: how many candidates to list.

    Raises:
        EvaluationError: no place is hidden, or the text does not fit one context.
    """
    parts = text.replace(vocabulary.mask_name or MASK, MASK).split(MASK)
    if len(parts) == 1:
        raise EvaluationError(f"the text has no {MASK}; write it where a piece is to be found")
    row: list[int] = [vocabulary.begin_id]
    places = []
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        if not is_last and vocabulary.has_spaced_pieces and part.endswith(" "):
            part = part[:-1]  # the space belongs to the piece that is hidden
        row += vocabulary.encode(part)
        if not is_last:
            places.append(len(row))
            row.append(vocabulary.mask)
    if len(row) > model.shape.context:
        raise EvaluationError(
            f"the text has {len(row)} pieces with its beginning and the model reads "
            f"{model.shape.context} at once; give a shorter one"
        )
    hidden = model.hidden(torch.tensor([row], device=model.device))[0, places].float()
    logits = (hidden @ model.output_weight.float().T).cpu().double()
    return tuple(
        _filled(
            vocabulary, MASK.join(parts[: number + 1]), MASK.join(parts[number + 1 :]), one, top
        )
        for number, one in enumerate(logits)
    )


def _filled(
    vocabulary: Vocabulary, before: str, after: str, logits: torch.Tensor, top: int
) -> Filled:
    probabilities = logits.softmax(0)
    best = torch.topk(logits[: len(vocabulary)], min(top, len(vocabulary), len(logits)))
    candidates = tuple(
        Candidate(vocabulary.piece(id_), id_, logit, float(probabilities[id_]))
        for logit, id_ in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    )
    rest = max(0.0, 1.0 - sum(candidate.probability for candidate in candidates))
    return Filled(before, after, candidates, rest)
