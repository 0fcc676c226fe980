"""Predictions on pinned sentences over the course of training, from step 0 to the last.

    pins.json                  the sentences and their ids, chosen when the run begins
    metrics.jsonl, "replay"    at each moment, for each of their pieces: −ln P in nats, the
                               likeliest pieces and their probabilities

Legend of shapes: B rows, T positions, V vocabulary.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nextword.base.display import Displayable
from nextword.base.errors import RunError
from nextword.base.files import write_json
from nextword.base.records import Id, read_record
from nextword.explanation.options import ExplanationSettings
from nextword.explanation.previews import WORKED_SENTENCE, at_full_precision
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer
from nextword.prediction.scoring import states_of_each
from nextword.training.journal import Journal, is_judged
from nextword.vocabulary.prepared import Prepared
from nextword.vocabulary.shards import TokenStream
from nextword.vocabulary.tokenizer import Vocabulary

PINS = "pins.json"
FROM_HOLDOUT = 3
PIN_TOKENS, FEWEST_PIN_TOKENS = 24, 8
REPLAYS = 40
"""Moments at which the pins are judged, where nothing else is said."""
JUDGED_AT_ONCE, LOGITS_AT_ONCE = 2048, 1 << 23
"""Positions of one batch, and numbers of the logits held at a time."""
OTHERS = 4
"""Pieces that are kept beside the likeliest."""
FEWEST_STEPS = 5
"""Between two moments, in a short run."""


@dataclass(frozen=True)
class Pin:
    """A sentence that is judged again and again."""

    source: str
    """Where it comes from, in a few words."""
    text: str
    ids: tuple[Id, ...]
    pieces: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """One sentence as the model saw it at one moment, piece by piece."""

    nats: tuple[float, ...]
    likeliest: tuple[str, ...]
    likeliest_probability: tuple[float, ...]
    others: tuple[tuple[tuple[str, float], ...], ...] = ()
    """For each piece those that come next, and their probabilities to four digits."""

    @property
    def loss(self) -> float:
        """Average mistake, in nats."""
        return math.fsum(self.nats) / len(self.nats)

    @property
    def probabilities(self) -> tuple[float, ...]:
        """P(target) of each piece."""
        return tuple(math.exp(-nats) for nats in self.nats)


@dataclass(frozen=True)
class Replay(Displayable):
    """All sentences at all moments."""

    run: str
    pins: tuple[Pin, ...]
    steps: tuple[int, ...]
    judged: tuple[tuple[Judged, ...], ...]
    """By moment, then by sentence."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as --json prints them."""
        return {
            "run": self.run,
            "pins": [vars(pin) for pin in self.pins],
            "moments": [
                {"step": step, "pins": [vars(one) | {"loss": one.loss} for one in moment]}
                for step, moment in zip(self.steps, self.judged, strict=True)
            ],
        }


def choose_pins(prepared: Prepared, settings: ExplanationSettings, context: int) -> list[Pin]:
    """Choose the sentences: those asked for, or the worked example and three from the hold-out.

    Args:
        prepared: whose vocabulary and hold-out are used.
        settings: may name sentences.
        context: no sentence is longer than the model reads at once.
    """
    vocabulary, longest = prepared.vocabulary, min(PIN_TOKENS, context)
    named = settings.pin or (WORKED_SENTENCE,)
    source = "asked for" if settings.pin else "the worked example"
    pins = [_named(source, vocabulary.encode(text), vocabulary, context) for text in named]
    if not settings.pin:
        pins += [
            _pin("held out", _to_a_sentences_end(ids, vocabulary), vocabulary)
            for ids in _from_holdout(prepared.holdout, longest)
        ]
    return [pin for pin in pins if pin.ids]


def _named(source: str, ids: list[int], vocabulary: Vocabulary, context: int) -> Pin:
    """Pin as much of a sentence as the model reads at once, and say so where it is not all."""
    cut = f", its first {context} of {len(ids)} pieces" if len(ids) > context else ""
    return _pin(source + cut, ids[:context], vocabulary)


def _pin(source: str, ids: Sequence[int], vocabulary: Vocabulary) -> Pin:
    pieces = tuple(vocabulary.piece(id_) for id_ in ids)
    return Pin(source, vocabulary.decode(list(ids)), tuple(ids), pieces)


def _from_holdout(holdout: TokenStream, longest: int) -> list[list[int]]:
    """Take the beginnings of texts far apart; of fewer texts than three, places far apart."""
    count = holdout.num_documents
    if count >= FROM_HOLDOUT:
        numbers = [count * share // FROM_HOLDOUT for share in range(FROM_HOLDOUT)]
        found = [holdout.document(number)[:longest].tolist() for number in numbers]
    else:
        starts = [len(holdout) * share // FROM_HOLDOUT for share in range(FROM_HOLDOUT)]
        found = [holdout.read(start, start + longest).tolist() for start in starts]
    return [[id_ for id_ in ids if id_ != holdout.end_id] for ids in found]


def _to_a_sentences_end(ids: list[int], vocabulary: Vocabulary) -> list[int]:
    """Cut where a sentence ends, if one does after a few words."""
    for place in range(FEWEST_PIN_TOKENS, len(ids)):
        if vocabulary.piece(ids[place]).rstrip().endswith((".", "!", "?")):
            return ids[: place + 1]
    return ids


@torch.inference_mode()
def judge_pins(
    model: Transformer, vocabulary: Vocabulary, pins: Sequence[Pin]
) -> tuple[Judged, ...]:
    """Judge every piece of every sentence at full precision.

    Short sentences go in one batch; long ones each alone, that memory may not grow with their
    number.

    Args:
        model: the network; its precision is put back afterwards.
        vocabulary: of the same model.
        pins: each follows end-of-text.
    """
    width = max((len(pin.ids) for pin in pins), default=0)
    at_once = max(1, JUDGED_AT_ONCE // max(width, 1))
    return tuple(
        judged
        for start in range(0, len(pins), at_once)
        for judged in _judge(model, vocabulary, pins[start : start + at_once])
    )


def _judge(model: Transformer, vocabulary: Vocabulary, pins: Sequence[Pin]) -> list[Judged]:
    width = max(len(pin.ids) for pin in pins)
    rows = torch.full((len(pins), width + 1), vocabulary.end_id, dtype=torch.long)
    for row, pin in enumerate(pins):
        rows[row, 1 : len(pin.ids) + 1] = torch.tensor(pin.ids)
    with at_full_precision(model):
        hidden = _states(model, vocabulary, pins, rows).float()
    weight, known = model.output_weight.float(), len(vocabulary)
    nats = torch.empty(len(pins), width, dtype=torch.float64)
    kept = min(1 + OTHERS, known)
    best, odds = (torch.empty(len(pins), width, kept, dtype=torch.float64) for _ in range(2))
    step = max(1, LOGITS_AT_ONCE // (len(weight) * len(pins)))
    for start in range(0, width, step):
        part = slice(start, start + step)
        logits = F.linear(hidden[:, part], weight).cpu().double()
        norm = logits.logsumexp(-1)
        nats[:, part] = norm - logits.gather(2, rows[:, 1:, None][:, part])[..., 0]
        top = logits[..., :known].topk(kept)
        best[:, part], odds[:, part] = top.indices, (top.values - norm[..., None]).exp()
    judged = []
    for row, pin in enumerate(pins):
        size = len(pin.ids)
        names = [[vocabulary.piece(int(id_)) for id_ in ids] for ids in best[row, :size].tolist()]
        chances = odds[row, :size].tolist()
        judged.append(
            Judged(
                tuple(nats[row, :size].tolist()),
                tuple(one[0] for one in names),
                tuple(one[0] for one in chances),
                tuple(
                    tuple((name, _short(odd)) for name, odd in zip(one[1:], more[1:], strict=True))
                    for one, more in zip(names, chances, strict=True)
                ),
            )
        )
    return judged


def _short(probability: float) -> float:
    return float(f"{probability:.4g}")


def _states(
    model: Transformer, vocabulary: Vocabulary, pins: Sequence[Pin], rows: Tensor
) -> Tensor:
    """Return the states that answer for each piece, (B, T, D)."""
    if model.shape.causal:
        return model.hidden(rows[:, :-1].to(model.device))
    states = [states_of_each(model, vocabulary, list(pin.ids)).states for pin in pins]
    return torch.nn.utils.rnn.pad_sequence(states, batch_first=True)


def replay_every(settings: ExplanationSettings, steps: int) -> int:
    """Return the steps between two judgements in a run of so many steps."""
    return settings.replay_every or max(FEWEST_STEPS, -(-steps // REPLAYS))


def write_pins(run: Path, pins: Iterable[Pin]) -> None:
    """Write the sentences of a run down."""
    write_json(run / PINS, [vars(pin) for pin in pins])


def read_pins(run: Path, shape: Shape | None = None) -> list[Pin]:
    """Read the sentences of a run; none where it has written none.

    Args:
        run: its folder.
        shape: of the network that is to read them.

    Raises:
        RunError: the file is damaged.
    """
    file = run / PINS
    if not file.is_file():
        return []
    pins = read_record(file, list[Pin], RunError)
    for pin in pins:
        fits = shape is None or (
            len(pin.ids) <= shape.context and max(pin.ids, default=0) < shape.vocab_size
        )
        if len(pin.ids) != len(pin.pieces) or not pin.ids or not fits:
            raise RunError(f"{file}: damaged: {pin.text[:40]!r} is no sentence of this model's")
    return pins


def as_event(step: int, judged: Iterable[Judged], seconds: float) -> dict[str, Any]:
    """Return one moment as the journal writes it."""
    return {
        "event": "replay",
        "step": step,
        "seconds": round(seconds, 5),
        "pins": [vars(one) for one in judged],
    }


def read_replay(run: Path) -> Replay:
    """Read how a run's sentences were judged.

    Raises:
        RunError: the run has written nothing of it.
    """
    pins = read_pins(run)
    lengths = [len(pin.ids) for pin in pins]
    events = {
        event["step"]: event
        for event in Journal(run).read("replay")
        if [len(pin["nats"]) for pin in event["pins"]] == lengths and is_judged(event)
    }
    if not pins or not events:
        raise RunError(
            f"{run}: no sentences were judged while it learned; train it again to see them"
        )
    steps = sorted(events)
    return Replay(
        run.name,
        tuple(pins),
        tuple(steps),
        tuple(tuple(_judged(entry) for entry in events[step]["pins"]) for step in steps),
    )


def _judged(entry: Mapping[str, Any]) -> Judged:
    others = tuple(tuple(map(tuple, each)) for each in entry.get("others", ()))
    return Judged(
        tuple(entry["nats"]),
        tuple(entry["likeliest"]),
        tuple(entry["likeliest_probability"]),
        others,  # runs of before kept none
    )
