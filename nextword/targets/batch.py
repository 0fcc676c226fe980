"""Batches: inputs and targets, the same tokens shifted by one.

Every position is a lesson, so every context length is trained.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nextword.targets.windows import Mixture, Windows

IGNORED = -100
"""A target that asks for nothing: padding."""


class Tokens(Protocol):
    """A sequence of tokens that can be read in parts; position −1 holds end-of-text."""

    def __len__(self) -> int:
        """Count the tokens."""

    def read(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return tokens start to stop."""


class Batch(NamedTuple):
    """What the model reads and what it is asked there, both (B, T)."""

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    """The right ids; IGNORED where nothing is asked."""
    documents: NDArray[np.int64] | None = None
    """(B, T): numbers that are equal where positions may see each other, where ids do not say."""
    positions: NDArray[np.int64] | None = None
    """(B, T): each token's place in its own document, where rows hold several from place 0."""
    soft: NDArray[np.float32] | None = None
    """(B, T, V): what is added to the ones at the right tokens, where targets are soft; each row's
    sum is 0."""
    kept: NDArray[np.float32] | None = None
    """(B, L, 2, S, D): by what a network multiplies what each half of its L layers adds, span by
    span of positions (dropout)."""

    @property
    def num_targets(self) -> int:
        """Count the targets that ask for something."""
        return int((self.targets != IGNORED).sum())


class Lesson(NamedTuple):
    """One thing the text teaches: after this context comes this target."""

    context: Sequence[int]
    target: int


def shift(window: NDArray[np.int64]) -> Batch:
    """Split (B, T + 1) into inputs (all but the last token) and targets (all but the first)."""
    return Batch(window[:, :-1], window[:, 1:])


def joined(one: Batch, two: Batch) -> Batch:
    """Return two batches of text as one; where targets are soft in one of them, in all."""
    soft = None
    if one.soft is not None or two.soft is not None:
        size = next(part.soft.shape[-1] for part in (one, two) if part.soft is not None)
        parts = [
            np.zeros((*part.targets.shape, size), dtype=np.float32)
            if part.soft is None
            else part.soft
            for part in (one, two)
        ]
        soft = np.concatenate(parts)
    inputs, targets = (np.concatenate(pair) for pair in zip(one[:2], two[:2], strict=True))
    return Batch(inputs, targets, soft=soft)


def batch_of(
    tokens: NDArray[np.integer[Any]], rows: int, context: int, step: int, *, seed: int = 0
) -> Batch:
    """Return a step's batch of one sequence of tokens, as training reads it.

    An epoch visits each window once, in an order that is a pure function of the seed.

    Args:
        tokens: (N,), at least `context` of them; may be a memory map.
        rows: B.
        context: T.
        step: from 0.
        seed: of the order.

    Returns:
        inputs and targets, (B, T) each; a target is the token after its input. Round the end, the
        first token follows the last.

    Raises:
        CorpusError: the tokens do not fill one context.
    """
    windows = Windows(len(tokens), context, rows, seed)
    return read_batch([_InMemory(tokens)], windows, step)


class _InMemory:
    """An array as tokens that can be read in parts."""

    def __init__(self, tokens: NDArray[np.integer[Any]]) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.tokens)

    def read(self, start: int, stop: int) -> NDArray[np.int64]:
        places = np.arange(start, stop) % len(self.tokens)
        return self.tokens[places].astype(np.int64)


def read_batch(
    streams: Sequence[Tokens],
    windows: Windows | Mixture,
    step: int,
    rows: slice = slice(None),
) -> Batch:
    """Read some rows of one step's batch, to predict at every position what comes next."""
    return shift(read_windows(streams, windows, step, rows))


def read_windows(
    streams: Sequence[Tokens],
    windows: Windows | Mixture,
    step: int,
    rows: slice = slice(None),
) -> NDArray[np.int64]:
    """Read some of one step's windows, (B, T + 1): each with the token before it.

    Args:
        streams: the training tokens, one stream a text of a mixture.
        windows: which windows belong to which step.
        step: the step, from 0.
        rows: which of its rows: a process or a part of an accumulation takes its share.
    """
    texts, chosen = [], windows.rows_of(step)[rows]
    for which, stream in enumerate(streams):
        ask_ahead = getattr(stream, "ask_ahead", None)
        if ask_ahead is not None:
            ask_ahead(_ranges((s for w, s in chosen if w == which), windows.context, len(stream)))
    for which, start in chosen:
        stream, stop = streams[which], start + windows.context
        text = stream.read(start - 1, min(stop, len(stream)))
        if stop > len(stream):
            # Round the end: the stream ends with end-of-text and goes on at its first token.
            text = np.concatenate([text, stream.read(0, stop - len(stream))])
        texts.append(text)
    return np.stack(texts)


def _ranges(starts: Iterable[int], context: int, length: int) -> Iterator[tuple[int, int]]:
    """Yield what is read of a stream for windows, round its end too."""
    for start in starts:
        yield start - 1, min(start + context, length)
        if start + context > length:
            yield 0, start + context - length


def lessons(ids: Sequence[int]) -> Iterator[Lesson]:
    """Yield the lessons that a text gives itself.

    For each token but the first, all before it → itself.
    """
    for place in range(1, len(ids)):
        yield Lesson(ids[:place], ids[place])
