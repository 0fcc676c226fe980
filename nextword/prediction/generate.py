"""Text generation, one token at a time.

Logits → probabilities → id → piece, and again with that piece read.

A key-value cache makes each new token cost one position's work. Past the context the window moves
on by half: the later half of it is read again into an empty cache, and there is room for as many
tokens once more.
"""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

import torch

from nextword.machine.parts import agreed, is_divided
from nextword.model.attention import Attention, KeyValueCache
from nextword.model.decode import Decoder
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer
from nextword.prediction.options import GenerationSettings
from nextword.prediction.sample import choose
from nextword.vocabulary.tokenizer import Vocabulary

Piece = TypeVar("Piece")

SIDE_BY_SIDE = 32
"""Texts written at once, each of which keeps its own keys and values."""


class Chosen(NamedTuple):
    """One token as it was chosen."""

    id: int
    text: str
    """What it adds to the text; empty while a character is not complete."""
    logits: torch.Tensor
    """(V,), as the model gave them."""


class Reader:
    """Reads tokens one by one and keeps the logits of what may come next.

    One text, or after `branch` several of one length side by side, which share each reading of the
    weights.
    """

    def __init__(self, model: Transformer) -> None:
        """Start with nothing read.

        Args:
            model: the network.
        """
        self.model = model
        self.context = model.shape.context
        self.windows: list[list[int]] = [[]]
        self.cache = KeyValueCache(_as_here(model), 1, model.device)
        self.decoder = None if is_divided(model) else Decoder(model)
        """What reads one token faster; it needs the weights whole."""

    def read(self, ids: Sequence[int]) -> torch.Tensor:
        """Read more tokens of the one text; return the logits (V,) after the last."""
        return self._read([list(ids)])[0]

    def read_each(self, ids: Sequence[int]) -> torch.Tensor:
        """Read one more token of each text; return the logits (B, V) after them."""
        return self._read([[id_] for id_ in ids])

    def select(self, texts: Sequence[int]) -> None:
        """Go on with these texts only, in this order; one that is named twice goes on as two."""
        self.windows = [list(self.windows[text]) for text in texts]
        self.cache.select(texts)

    @torch.inference_mode()
    def _read(self, pending: list[list[int]]) -> torch.Tensor:
        logits: torch.Tensor | None = None
        while pending[0]:
            if len(self.windows[0]) == self.context:
                half = max(self.context // 2, 1) if self.context > 1 else 0
                kept = [window[self.context - half :] for window in self.windows]
                pending = [old + new for old, new in zip(kept, pending, strict=True)]
                self.windows = [[] for _ in pending]
                self.cache.length = 0
            room = self.context - len(self.windows[0])
            part = [ids[:room] for ids in pending]
            pending = [ids[room:] for ids in pending]
            if len(part[0]) == 1 and self.decoder is not None:
                logits = self.decoder.read([ids[0] for ids in part], self.cache)
            else:
                inputs = torch.tensor(part, device=self.model.device)
                hidden = self.model.hidden(inputs, self.cache)[:, -1]
                logits = hidden.float() @ self.model.output_weight.float().T
                logits = agreed(logits, self.model)
            for window, ids in zip(self.windows, part, strict=True):
                window.extend(ids)
        if logits is None:
            raise ValueError("nothing to read")
        return logits


def _as_here(model: Transformer) -> Shape:
    """Return a network's sizes with as many heads as this process has of it."""
    attention = model.get_submodule("model.layers.0.self_attn")
    assert isinstance(attention, Attention)
    return replace(model.shape, num_key_value_heads=attention.heads[1])


class _Text:
    """One text that is being written: its choices, and what a stop string may yet take back."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt: Sequence[int],
        settings: GenerationSettings,
        sample: int,
        stop: Sequence[str],
        device: torch.device,
    ) -> None:
        self.vocabulary, self.settings, self.stop = vocabulary, settings, stop
        self.source = torch.Generator(device=device)
        if settings.seed is None:
            self.source.seed()
        else:
            self.source.manual_seed(settings.seed * 1_000_003 + sample)
        self.ids = list(prompt)
        self.left = settings.max_tokens
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.held: list[Chosen] = []

    def choose(self, logits: torch.Tensor) -> Iterator[Chosen]:
        """Choose the next token by logits (V,); yield what is certain to stand in the text."""
        settings, earlier = self.settings, None
        if settings.repetition_penalty != 1:
            earlier = torch.tensor(self.ids, device=logits.device)
        # A network may have rows for ids that its vocabulary does not hold; none of them is text.
        id_ = choose(logits[: len(self.vocabulary)], settings, self.source, earlier)
        self.left -= 1
        if self.vocabulary.ends_writing(id_):
            self.left = 0
        else:
            self.ids.append(id_)
            piece = self.decoder.decode(self.vocabulary.piece_bytes(id_))
            self.held.append(Chosen(id_, piece, logits))
            if self.stop and _stops(self.held, self.stop):
                self.left = 0
        while self.held and (
            not self.left or not may_stop("".join(one.text for one in self.held), self.stop)
        ):
            yield self.held.pop(0)


def generate(
    model: Transformer,
    vocabulary: Vocabulary,
    prompt: str | Sequence[int],
    settings: GenerationSettings,
    *,
    sample: int = 0,
    stop: Sequence[str] = (),
    begins: bool = True,
) -> Iterator[Chosen]:
    """Yield the tokens that continue a prompt, until end-of-text, a stop string or the most tokens.

    Args:
        model: the network, in float32.
        vocabulary: of the same model.
        prompt: read from a text's beginning on; may be empty. As ids where it holds what text
            cannot spell, as the end of an answer.
        settings: how to choose, and how long; of 0 tokens nothing is yielded.
        sample: number of this text, which with the seed decides the choices.
        stop: strings that end the text; none of a stop string is yielded.
        begins: put what a text begins with before the prompt; not where its ids are whole.
    """
    for _, chosen in _write(model, vocabulary, prompt, settings, [sample], stop, begins):
        if chosen is not None:
            yield chosen


def generate_several(
    model: Transformer,
    vocabulary: Vocabulary,
    prompt: str | Sequence[int],
    settings: GenerationSettings,
    *,
    stop: Sequence[str] = (),
) -> Iterator[tuple[int, Chosen | None]]:
    """Yield the tokens of `settings.samples` texts, each with its text's number, from 0.

    Where a text ends its number comes with None.

    They are written side by side, at most 32 at once, and the prompt is read once: a step of the
    network costs little more for several texts than for one. Each text is the one that `generate`
    writes for its number, as long as rounding decides no choice.

    Args:
        model: as `generate` takes it.
        vocabulary: of the same model.
        prompt: as `generate` takes it.
        settings: how to choose, how long, and how many.
        stop: strings that end a text.
    """
    for first in range(0, settings.samples, SIDE_BY_SIDE):
        samples = range(first, min(first + SIDE_BY_SIDE, settings.samples))
        yield from _write(model, vocabulary, prompt, settings, samples, stop)


def in_order(
    pieces: Iterable[tuple[int, Piece | None]], texts: int
) -> Iterator[tuple[int, Piece | None]]:
    """Yield pieces of texts that grow side by side text after text, the first as it grows.

    Args:
        pieces: each with its text's number; None where a text ends.
        texts: how many there are.
    """
    waiting: list[list[Piece | None]] = [[] for _ in range(texts)]
    current = 0
    for text, piece in pieces:
        waiting[text].append(piece)
        while current < texts and waiting[current]:
            arrived, waiting[current] = waiting[current], []
            yield from ((current, one) for one in arrived)
            current += arrived[-1] is None


def _write(
    model: Transformer,
    vocabulary: Vocabulary,
    prompt: str | Sequence[int],
    settings: GenerationSettings,
    samples: Sequence[int],
    stop: Sequence[str],
    begins: bool = True,
) -> Iterator[tuple[int, Chosen | None]]:
    """Yield the tokens of several texts, each with its text's number, and None at its end."""
    given = vocabulary.encode(prompt) if isinstance(prompt, str) else prompt
    ids = [vocabulary.begin_id, *given] if begins else [*given]
    reader = Reader(model)
    logits = reader.read(ids).expand(len(samples), -1)
    texts = [_Text(vocabulary, ids, settings, one, stop, model.device) for one in samples]
    writing = dict(zip(samples, texts, strict=True))
    if not settings.max_tokens:
        yield from ((sample, None) for sample in samples)
        return
    is_one = len(samples) > 1  # all go on from the prompt, which was read once
    while writing:
        for (sample, text), row in zip(writing.items(), logits, strict=True):
            for chosen in text.choose(row):
                yield sample, chosen
            if not text.left:
                yield sample, None
        going_on = [row for row, text in enumerate(writing.values()) if text.left]
        writing = {sample: text for sample, text in writing.items() if text.left}
        if writing:
            if is_one or len(going_on) < len(logits):
                reader.select([0 if is_one else row for row in going_on])
                is_one = False
            logits = reader.read_each([text.ids[-1] for text in writing.values()])


def may_stop(text: str, stop: Sequence[str]) -> bool:
    """Whether the text's end is the beginning of a stop string."""
    return any(text.endswith(string[:size]) for string in stop for size in range(1, len(string)))


def _stops(held: list[Chosen], stop: Sequence[str]) -> bool:
    """Cut what is held at the first stop string, if one is complete."""
    text = "".join(chosen.text for chosen in held)
    places = [place for string in stop if (place := text.find(string)) >= 0]
    if not places:
        return False
    left = min(places)
    for position, chosen in enumerate(held):
        held[position] = chosen._replace(text=chosen.text[:left])
        left -= min(left, len(chosen.text))
    held[:] = [chosen for chosen in held if chosen.text]
    return True
