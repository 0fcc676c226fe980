"""Score every position of a text: the hidden states from which each token is predicted.

A network that looks back answers all of a text's tokens in one reading. One that looks to both
sides is asked for each token in a reading of its own, in which that token alone is hidden.

Legend of shapes: N tokens, D width.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextword.base.errors import EvaluationError
from nextword.model.transformer import Transformer
from nextword.prediction.evaluate import cut_document
from nextword.prediction.options import EvaluationSettings
from nextword.vocabulary.tokenizer import Vocabulary

TOKENS_AT_ONCE = 1 << 13
"""Read side by side where each token has a reading of its own."""


class ScoringStates(NamedTuple):
    """The states at which the tokens of a text are asked for."""

    states: Tensor
    """(N, D)."""
    read: list[int]
    """How many other pieces of the text were read before each answer."""


@dataclass(frozen=True)
class Score:
    """The log-probability of each token of a text."""

    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    log_probabilities: tuple[float, ...]
    """Natural logarithms, one a token."""

    @property
    def log_likelihood(self) -> float:
        """Ln P(text): their sum."""
        return math.fsum(self.log_probabilities)

    @property
    def nats_per_token(self) -> float:
        """The mean loss; `Trainer` calls it eval_loss."""
        return -self.log_likelihood / len(self.ids)

    @property
    def perplexity(self) -> float:
        """Among how many tokens alike the model would be as unsure, on average."""
        return math.exp(self.nats_per_token)

    @property
    def bits(self) -> float:
        """Needed to write the text down with this model."""
        return -self.log_likelihood / math.log(2)


@torch.inference_mode()
def score(model: Transformer, vocabulary: Vocabulary, text: str) -> Score:
    """Return the log-probability of each token of a text, after end-of-text.

    Args:
        model: the network.
        vocabulary: of the same model.
        text: any length.

    Raises:
        EvaluationError: there is no text.
    """
    ids = vocabulary.encode(text)
    if not ids:
        raise EvaluationError("an empty text has no tokens to score; give some words")
    logs: list[float] = []
    for asked, wanted in states_by_window(model, vocabulary, ids):
        logits = (asked.states.float() @ model.output_weight.float().T).double()
        right = torch.tensor(wanted, device=logits.device)
        logs += logits.log_softmax(-1).gather(1, right[:, None])[:, 0].tolist()
    pieces = tuple(vocabulary.piece(id_) for id_ in ids)
    return Score(tuple(ids), pieces, tuple(logs))


def states_of_each(
    model: Transformer, vocabulary: Vocabulary, ids: list[int], begin: int | None = None
) -> ScoringStates:
    """Ask for every token of a text, from its beginning on.

    Args:
        model: the network.
        vocabulary: of the same model.
        ids: of the text, at least one; one longer than the context is read in windows.
        begin: what stands before it; default: what the vocabulary begins a text with.
    """
    parts = [asked for asked, _ in states_by_window(model, vocabulary, ids, begin)]
    return ScoringStates(
        torch.cat([part.states for part in parts]), [one for part in parts for one in part.read]
    )


def states_by_window(
    model: Transformer, vocabulary: Vocabulary, ids: list[int], begin: int | None = None
) -> Iterator[tuple[ScoringStates, list[int]]]:
    """Do the same window by window, for texts whose states would not fit in memory.

    Yields:
        the states, and the ids that are asked for there. Of a model that looks to both sides,
        end-of-text is never asked for.
    """
    whole, begin_id, context = (
        np.array(ids, dtype=np.int64),
        vocabulary.begin_id if begin is None else begin,
        model.shape.context,
    )
    if model.shape.causal:
        for block in cut_document(whole, begin_id, context, EvaluationSettings()):
            tokens = torch.from_numpy(block.tokens).to(model.device)
            states = model.hidden(tokens[None, :-1])[0]
            read = [place + block.read for place in range(len(block.tokens) - 1)]
            yield ScoringStates(states, read), block.tokens[1:].tolist()
        return
    # Where the text ends is left open: what is asked about may be part of a longer one.
    row = np.concatenate([np.array([begin_id], dtype=np.int64), whole])
    for window, places in windows_with_pieces(row, vocabulary, context):
        states = hide_each(model, window, places, vocabulary.mask)
        yield ScoringStates(states, [len(places) - 1] * len(places)), window[places].tolist()


def windows_with_pieces(
    row: NDArray[np.int64], vocabulary: Vocabulary, context: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Cut a row of ids into windows of a context.

    Yields:
        each window, and the places of its tokens that are neither a text's beginning nor its end.
    """
    for start in range(0, len(row), context):
        window = row[start : start + context]
        places = np.nonzero((window != vocabulary.end_id) & (window != vocabulary.begin_id))[0]
        if len(places):
            yield window, places


def hide_each(
    model: Transformer, window: NDArray[np.int64], places: NDArray[np.int64], mask_id: int
) -> Tensor:
    """Read a window once for each of some places, with that place hidden.

    Args:
        model: looks to both sides.
        window: ids, (T,).
        places: in the window, (N,).
        mask_id: stands for what is hidden.

    Returns:
        the states at the hidden places, (N, D).
    """
    at_once = max(1, TOKENS_AT_ONCE // len(window))
    found = []
    for start in range(0, len(places), at_once):
        part = torch.from_numpy(places[start : start + at_once])
        rows = torch.from_numpy(window).repeat(len(part), 1)
        rows[torch.arange(len(part)), part] = mask_id
        hidden = model.hidden(rows.to(model.device))
        found.append(hidden[torch.arange(len(part)), part])
    return torch.cat(found)
