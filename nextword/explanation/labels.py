"""A linear probe on hidden states, trained on the spot: supervised learning in miniature.

The network stays as it is. Its states are averaged over a sentence's pieces, and a matrix of one
row a label is learned on them by gradient descent, with the same cross-entropy and the same p − y
as pieces of text are learned with.

Legend of shapes: N sentences, D width, C labels.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

import torch
from torch import Tensor

from nextword.model.transformer import Transformer
from nextword.vocabulary.tokenizer import Vocabulary

STEPS = 300
RATE = 4.0
"""Of a step, times one over the mean squared length of what is learned from."""


@dataclass(frozen=True)
class LabelledSentence:
    """A sentence, what a person said of it, and how likely that seemed after learning."""

    text: str
    label: str
    probability: float

    @property
    def is_right(self) -> bool:
        """Whether it was the likelier of two."""
        return self.probability > 0.5


@dataclass(frozen=True)
class LabelLesson:
    """What was learned from labels."""

    names: tuple[str, ...]
    learned: tuple[LabelledSentence, ...]
    asked: tuple[LabelledSentence, ...]
    """Never learned from."""
    before: float
    """Loss on the learned ones at first, when each label was as likely: ln C."""
    after: float
    weights: int
    """Numbers in the matrix that was learned."""

    @property
    def right(self) -> int:
        """How many of those asked are right."""
        return sum(sentence.is_right for sentence in self.asked)


@cache
def labelled_sentences() -> dict[str, list[list[str]]]:
    """Return the sentences and labels, by list."""
    source = resources.files(__package__).joinpath("labelled.toml")
    return tomllib.loads(source.read_text(encoding="utf-8"))


@torch.no_grad()
def learn_labels(model: Transformer, vocabulary: Vocabulary) -> LabelLesson:
    """Learn the labels of a few sentences, and ask for those of others.

    Args:
        model: the network; it is not changed.
        vocabulary: of the same model.
    """
    lists = labelled_sentences()
    names = tuple(sorted({label for rows in lists.values() for _, label in rows}))
    states, labels = {}, {}
    for kind, rows in lists.items():
        states[kind] = torch.stack([_state(model, vocabulary, text) for text, _ in rows])
        labels[kind] = torch.tensor([names.index(label) for _, label in rows])
    matrix = torch.zeros(len(names), states["learned"].shape[1], dtype=torch.float64)
    before = _loss(states["learned"], matrix, labels["learned"])
    _descend(states["learned"], matrix, labels["learned"])
    return LabelLesson(
        names,
        _told(lists["learned"], states["learned"], matrix, labels["learned"]),
        _told(lists["asked"], states["asked"], matrix, labels["asked"]),
        before,
        _loss(states["learned"], matrix, labels["learned"]),
        matrix.numel(),
    )


def _state(model: Transformer, vocabulary: Vocabulary, text: str) -> Tensor:
    """Return the average state of a sentence, (D,), float64."""
    ids = [vocabulary.begin_id, *vocabulary.encode(text)][: model.shape.context]
    hidden = model.hidden(torch.tensor([ids], device=model.device))[0]
    return hidden[min(1, len(ids) - 1) :].cpu().double().mean(dim=0)


def _descend(states: Tensor, matrix: Tensor, labels: Tensor) -> None:
    """Lower the loss; the matrix (C, D) is moved."""
    rate = RATE / states.square().sum(dim=1).mean()
    rows = torch.arange(len(states))
    for _ in range(STEPS):
        gradient = (states @ matrix.T).softmax(dim=1)
        gradient[rows, labels] -= 1.0  # p − y
        matrix -= rate * gradient.T @ states / len(states)


def _loss(states: Tensor, matrix: Tensor, labels: Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(states @ matrix.T, labels))


def _told(
    rows: list[list[str]], states: Tensor, matrix: Tensor, labels: Tensor
) -> tuple[LabelledSentence, ...]:
    odds = (states @ matrix.T).softmax(dim=1).gather(1, labels[:, None])[:, 0].tolist()
    return tuple(
        LabelledSentence(text, label, p) for (text, label), p in zip(rows, odds, strict=True)
    )
