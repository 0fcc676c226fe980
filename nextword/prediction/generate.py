"""Text generation, one token at a time.

Logits → probabilities → id → piece, and again with that piece read.

A key-value cache makes each new token cost one position's work. Past the context the window moves
on by half: the later half of it is read again into an empty cache, and there is room for as many
tokens once more.
"""

import codecs
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from nextword.model.attention import KeyValueCache
from nextword.model.decode import Decoder
from nextword.model.transformer import Transformer
from nextword.prediction.options import GenerationSettings
from nextword.prediction.sample import choose
from nextword.vocabulary.tokenizer import Vocabulary


class Chosen(NamedTuple):
    """One token as it was chosen."""

    id: int
    text: str
    """What it adds to the text; empty while a character is not complete."""
    logits: torch.Tensor
    """(V,), as the model gave them."""


class Reader:
    """Reads tokens one by one and keeps the logits of what may come next."""

    def __init__(self, model: Transformer) -> None:
        """Start with nothing read.

        Args:
            model: the network.
        """
        self.model = model
        self.context = model.shape.context
        self.window: list[int] = []
        self.cache = KeyValueCache(model.shape, 1, model.device)
        self.decoder = Decoder(model)

    @torch.inference_mode()
    def read(self, ids: Sequence[int]) -> torch.Tensor:
        """Read more tokens; return the logits (V,) after the last."""
        pending = list(ids)
        logits: torch.Tensor | None = None
        while pending:
            if len(self.window) == self.context:
                kept = self.window[-max(self.context // 2, 1) :] if self.context > 1 else []
                self.window, pending = [], kept + pending
                self.cache.length = 0
            room = self.context - len(self.window)
            part, pending = pending[:room], pending[room:]
            if len(part) == 1:
                logits = self.decoder.read(part[0], self.cache)
            else:
                inputs = torch.tensor([part], device=self.model.device)
                hidden = self.model.hidden(inputs, self.cache)[0, -1]
                logits = hidden.float() @ self.model.output_weight.float().T
            self.window.extend(part)
        if logits is None:
            raise ValueError("nothing to read")
        return logits


def generate(
    model: Transformer,
    vocabulary: Vocabulary,
    prompt: str | Sequence[int],
    settings: GenerationSettings,
    *,
    sample: int = 0,
    stop: Sequence[str] = (),
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
    """
    source = torch.Generator(device=model.device)
    source.manual_seed(
        (settings.seed or 0) * 1_000_003 + sample
    ) if settings.seed is not None else source.seed()
    given = vocabulary.encode(prompt) if isinstance(prompt, str) else prompt
    ids = [vocabulary.begin_id, *given]
    reader = Reader(model)
    logits = reader.read(ids)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    held: list[Chosen] = []
    for number in range(settings.max_tokens):
        earlier = (
            torch.tensor(ids, device=model.device) if settings.repetition_penalty != 1 else None
        )
        # A network may have rows for ids that its vocabulary does not hold; none of them is text.
        id_ = choose(logits[: len(vocabulary)], settings, source, earlier)
        if id_ == vocabulary.end_id:
            break
        ids.append(id_)
        held.append(Chosen(id_, decoder.decode(vocabulary.piece_bytes(id_)), logits))
        if stop and _stops(held, stop):
            break
        while held and not _may_stop("".join(chosen.text for chosen in held), stop):
            yield held.pop(0)
        if number + 1 < settings.max_tokens:
            logits = reader.read([id_])
    yield from held


def _may_stop(text: str, stop: Sequence[str]) -> bool:
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
