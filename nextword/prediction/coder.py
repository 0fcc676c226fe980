"""Range coding with a language model: a token costs −log2 P(token) bits.

P is the model's own, so the file becomes as short as the loss says. To decode one must have the
very same P, to the last bit, and a matrix product's last bits change with its shape. So the
tokens are cut into lanes that are read side by side, one token of each a step, and `Stepper` is the
one place that reads, for both directions.

Entries that spell no bytes (end-of-text, padding, mask) never stand in a file: they get no
probability, and what the others have is scaled up. The bits counted here are those of the scaled
probabilities, so they are never more than the loss over the whole vocabulary says.

Legend of shapes: L lanes, V vocabulary, G groups of entries, W entries of a group, G·W ≥ V.
"""

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import constriction
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from nextword.base.errors import EvaluationError, ModelError, VocabularyError
from nextword.machine.device import settle_functions
from nextword.model.attention import KeyValueCache, cache_bytes
from nextword.model.layers import rotary_tables
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer
from nextword.vocabulary.tokenizer import Vocabulary

MOST_LANES = 32
MOST_CONTEXT = 2048
"""Tokens a lane looks back on at most: the memory of what was read grows with them."""
MOST_CACHE_BYTES = 1 << 31
"""Of all lanes' keys and values; a large model gets fewer lanes."""
CONTEXTS_A_LANE = 4
"""A lane shorter than so many contexts would lose more by its cold start than it wins in speed."""
FLOOR = 2.0**-60
"""Added to every probability: no group may sum to zero. It moves no measurable bit."""
TABLES = ("cosine", "sine")
_AT_ONCE = 1 << 20  # bytes encoded in one go
_SHORT = 32  # characters below which a run that does not come back is written byte by byte
_NOT_UTF8 = re.compile("([\udc80-\udcff]+)")

Ids = NDArray[np.int64]
Progress = Callable[[int, int], None]
"""Told how many tokens are done, and of how many."""


class Spelling:
    """Any bytes as tokens: runs of UTF-8 by the vocabulary, all other bytes one by one."""

    def __init__(self, vocabulary: Vocabulary, entries: int) -> None:
        """Look up what every entry spells.

        Args:
            vocabulary: of the model.
            entries: V, those the model has logits for.

        Raises:
            VocabularyError: some byte has no entry of its own, so not every file can be spelled.
        """
        self.vocabulary = vocabulary
        known = range(min(entries, len(vocabulary)))
        self.pieces = [vocabulary.piece_bytes(id_) for id_ in known]
        self.pieces += [b""] * (entries - len(self.pieces))  # logits without an entry
        self.spells = np.array([bool(piece) for piece in self.pieces])
        """(V,): false for the entries that stand for no bytes."""
        single = {piece: id_ for id_, piece in enumerate(self.pieces) if len(piece) == 1}
        if len(single) < 256:
            raise VocabularyError(
                f"this {vocabulary.kind} vocabulary has entries for {len(single)} of the 256 "
                "bytes, so it cannot spell every file; take a run with --vocabulary.kind bpe, "
                "unigram or byte"
            )
        self._single = [single[bytes([byte])] for byte in range(256)]

    def tokens_of(self, data: bytes) -> Ids:
        """Turn bytes into tokens; `bytes_of` gives exactly these bytes back."""
        ids: list[int] = []
        start = 0
        while start < len(data):
            part = data[start : start + _AT_ONCE]
            if start + _AT_ONCE < len(data):
                part = part[: part.rfind(b"\n") + 1] or part
            start += len(part)
            # Bytes that are not UTF-8 become lone surrogates, which no valid text holds.
            runs = _NOT_UTF8.split(part.decode("utf-8", "surrogateescape"))
            encoded = self.vocabulary.encode_many(runs[::2])
            for place, text in enumerate(runs):
                if place % 2:
                    ids += self._one_by_one(text.encode("utf-8", "surrogateescape"))
                else:
                    ids += self._exact(text, encoded[place // 2])
        return np.array(ids, dtype=np.int64)

    def bytes_of(self, tokens: Sequence[int] | Ids) -> bytes:
        """Return the bytes that tokens spell."""
        return b"".join([self.pieces[id_] for id_ in tokens])

    def _one_by_one(self, raw: bytes) -> list[int]:
        return [self._single[byte] for byte in raw]

    def _exact(self, text: str, ids: list[int]) -> list[int]:
        """Return ids that spell a text: those given, or else those of its halves."""
        raw = text.encode("utf-8")
        if max(ids, default=0) < len(self.pieces) and self.bytes_of(ids) == raw:
            return ids
        if len(text) <= _SHORT:
            return self._one_by_one(raw)
        halves = text[: len(text) // 2], text[len(text) // 2 :]
        return [id_ for half in halves for id_ in self._exact(half, self.vocabulary.encode(half))]


class Lanes(NamedTuple):
    """How tokens are laid out: lane after lane, the first `extra` of them one token longer."""

    number: int
    """L."""
    each: int
    extra: int

    @classmethod
    def of(cls, tokens: int, shape: Shape) -> "Lanes":
        """Choose the lanes for a number of tokens and a network of this shape."""
        context = coding_context(shape)
        fit = MOST_CACHE_BYTES // cache_bytes(shape, context)
        number = max(1, min(MOST_LANES, fit, tokens // (CONTEXTS_A_LANE * context)))
        return cls(number, *divmod(tokens, number))

    @property
    def steps(self) -> int:
        """Count the steps until the longest lane ends."""
        return self.each + bool(self.extra)

    def active(self, step: int) -> int:
        """Count the lanes, from the first on, that have a token at this step."""
        return self.number if step < self.each else self.extra

    def filled(self) -> NDArray[np.bool_]:
        """Return (L, steps), true where there is a token; row by row they are in order."""
        lengths = self.each + (np.arange(self.number) < self.extra)
        filled: NDArray[np.bool_] = np.arange(self.steps) < lengths[:, None]
        return filled


def coding_context(shape: Shape) -> int:
    """Return how far back a lane looks, in tokens: a whole context, up to a limit."""
    return min(shape.context, MOST_CONTEXT)


class Stepper:
    """Reads one token of every lane at a time, always in the same shapes."""

    def __init__(self, model: Transformer, lanes: int, spells: NDArray[np.bool_]) -> None:
        """Start with nothing read.

        Args:
            model: the network, its matrix products in float32.
            lanes: L.
            spells: (V,), the entries that may be coded.
        """
        self.model = model
        self.context = coding_context(model.shape)
        self.kept = max(self.context // 2, 1) if self.context > 1 else 0
        self.cache = KeyValueCache(model.shape, lanes, model.device, self.context)
        self.window = torch.zeros(lanes, self.context, dtype=torch.long, device=model.device)
        self.width = math.isqrt(len(spells) - 1) + 1
        self.groups = -(-len(spells) // self.width)
        self.family = constriction.stream.model.Categorical(perfect=False)
        self.scores = torch.empty(lanes, self.groups * self.width, dtype=torch.float64)
        self.codable = np.zeros(self.scores.shape[1], dtype=np.bool_)
        self.codable[: len(spells)] = spells
        self.barred = torch.from_numpy((~self.codable).nonzero()[0])

    @torch.inference_mode()
    def read(self, ids: Ids) -> torch.Tensor:
        """Read one token of every lane, (L,); return ln P of what comes next, (L, G·W), float64.

        In a full context the later half is read again into an empty cache, as `generate` does.
        """
        pending = torch.from_numpy(ids).to(self.model.device)[:, None]
        if self.cache.length == self.context:
            pending = torch.cat((self.window[:, self.context - self.kept :], pending), dim=1)
            self.cache.length = 0
        start = self.cache.length
        hidden = self.model.hidden(pending, self.cache)[:, -1]
        self.window[:, start : self.cache.length] = pending
        logits = F.linear(hidden.float(), self.model.output_weight.float())
        self.scores[:, : logits.shape[1]] = logits.cpu()
        self.scores[:, self.barred] = -math.inf
        return self.scores.log_softmax(dim=1)

    def odds(self, logarithms: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return P + FLOOR of groups, (L, G), and of entries, (L, G, W); the coder scales them."""
        entries = logarithms.exp().add_(FLOOR).view(-1, self.groups, self.width)
        return entries.sum(dim=2).numpy(), entries.numpy()


class Coded(NamedTuple):
    """Tokens as words of the range coder, and what they should have cost."""

    words: NDArray[np.uint32]
    ideal_bits: float
    """Σ −log2 P(token)."""


def encode(
    model: Transformer,
    tokens: Ids,
    begin_id: int,
    spells: NDArray[np.bool_],
    progress: Progress | None = None,
) -> Coded:
    """Code tokens, each by the odds the model gives it after those before it in its lane.

    Args:
        model: the network.
        tokens: of entries that spell bytes.
        begin_id: stands before the first token of each lane.
        spells: (V,), the entries that may be coded.
        progress: told after each step.

    Raises:
        ModelError: a probability is not a number.
    """
    lanes = Lanes.of(len(tokens), model.shape)
    table = np.full((lanes.number, lanes.steps), begin_id, dtype=np.int64)
    table[lanes.filled()] = tokens
    coder = constriction.stream.queue.RangeEncoder()
    nats, done, before = 0.0, 0, np.full(lanes.number, begin_id, dtype=np.int64)
    with settled(model):
        stepper = Stepper(model, lanes.number, spells)
        for step in range(lanes.steps):
            logarithms = stepper.read(before)
            before = table[:, step].copy()
            rows = np.arange(lanes.active(step))
            chosen = before[: len(rows)]
            nats -= float(logarithms.numpy()[rows, chosen].sum())
            if not math.isfinite(nats):
                raise ModelError("the model's probabilities are not numbers: its weights are bad")
            of_groups, of_entries = stepper.odds(logarithms)
            group, place = np.divmod(chosen.astype(np.int32), np.int32(stepper.width))
            coder.encode(group, stepper.family, of_groups[: len(rows)])
            coder.encode(place, stepper.family, of_entries[rows, group])
            done += len(rows)
            if progress is not None:
                progress(done, len(tokens))
    return Coded(coder.get_compressed(), nats / math.log(2))


def decode(
    model: Transformer,
    words: NDArray[np.uint32],
    count: int,
    begin_id: int,
    spells: NDArray[np.bool_],
    progress: Progress | None = None,
) -> Ids:
    """Return the tokens that `encode` coded with the same model.

    Args:
        model: the network.
        words: of the range coder.
        count: how many tokens they hold.
        begin_id: stands before the first token of each lane.
        spells: (V,), the entries that may be coded.
        progress: told after each step.

    Raises:
        EvaluationError: the words fit no tokens under this model.
    """
    lanes = Lanes.of(count, model.shape)
    table = np.full((lanes.number, lanes.steps), begin_id, dtype=np.int64)
    coder = constriction.stream.queue.RangeDecoder(words)
    done, before = 0, np.full(lanes.number, begin_id, dtype=np.int64)
    with settled(model):
        stepper = Stepper(model, lanes.number, spells)
        for step in range(lanes.steps):
            of_groups, of_entries = stepper.odds(stepper.read(before))
            rows = np.arange(lanes.active(step))
            try:
                group = coder.decode(stepper.family, of_groups[: len(rows)])
                place = coder.decode(stepper.family, of_entries[rows, group])
                chosen = group.astype(np.int64) * stepper.width + place
                if not stepper.codable[chosen].all():
                    raise ValueError("an entry that spells nothing")
            except (AssertionError, ValueError):
                raise EvaluationError(f"the coded words end in nonsense at token {done}") from None
            before = np.full(lanes.number, begin_id, dtype=np.int64)
            before[: len(rows)] = table[: len(rows), step] = chosen
            done += len(rows)
            if progress is not None:
                progress(done, count)
    tokens: Ids = table[lanes.filled()]
    return tokens


@contextlib.contextmanager
def settled(model: Transformer) -> Iterator[None]:
    """Let the network answer to the last bit as it will in another process.

    Matrix products are put to float32 for the while, and the tables of rotation computed again: a
    model may have been built before `settle_functions` was called.
    """
    settle_functions()
    shape, precision = model.shape, model.precision
    tables = rotary_tables(shape.context, shape.head_dim, shape.rope_theta)
    for name, table in zip(TABLES, tables, strict=True):
        model.model.get_buffer(name).copy_(table[:, None])
    model.set_precision(torch.float32)
    try:
        yield
    finally:
        model.set_precision(precision)
