"""One text that is read and written for somebody: what was asked, and how far it has come.

Legend of shapes: V vocabulary.
"""

import codecs
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from nextword.prediction.generate import may_stop
from nextword.prediction.options import SamplingSettings
from nextword.vocabulary.tokenizer import Vocabulary

END, FULL, LATE, FAILED, UNSOUND = "stop", "length", "timeout", "failed", "unsound"
"""Why a text ended: what it says itself, its most tokens, its time, a mistake of the program's, a
model whose scores are no numbers."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked for: one text."""

    ids: tuple[int, ...]
    """To be read first, as they are; at least one."""
    most: int
    """Tokens to be written."""
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    seed: int | None = None
    number: int = 0
    """Of several texts with one seed."""
    stop: tuple[str, ...] = ()
    bias: tuple[tuple[int, float], ...] = ()
    """Added to the logits of some ids."""
    presence: float = 0.0
    """Taken from the logit of whatever this text has written already."""
    frequency: float = 0.0
    """The same, as often as it was written."""
    top: int | None = None
    """Candidates whose log-probability is told beside each token's; None: nothing is told."""
    judges_prompt: bool = False
    """Whether the log-probabilities of what is read are told, too."""
    deadline: float = float("inf")
    """By `time.monotonic`."""


class Judged(NamedTuple):
    """A token and what the model thought of it, before temperature, bias and penalties."""

    id: int
    log_probability: float | None
    """Natural logarithm; None of the first token, which nothing stands before."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest ids with their log-probabilities, the likeliest first."""


class Piece(NamedTuple):
    """A token that was written, and what it adds to the text."""

    text: str
    judged: Judged


class Event(NamedTuple):
    """What has become certain of a text."""

    pieces: tuple[Piece, ...] = ()
    prompt: tuple[Judged, ...] = ()
    reason: str | None = None
    """Why it ended, if it has."""


class Growing:
    """A text on its way."""

    def __init__(
        self, wish: Wish, vocabulary: Vocabulary, deliver: Callable[["Growing", Event], None]
    ) -> None:
        """Begin.

        Args:
            wish: what is asked for.
            vocabulary: of the model.
            deliver: is called with what becomes certain.
        """
        self.wish, self.vocabulary, self.deliver = wish, vocabulary, deliver
        seed = None if wish.seed is None else f"{wish.seed} {wish.number}"
        self.source: random.Random = random.SystemRandom() if seed is None else random.Random(seed)
        self.read = 0
        """Ids of the prompt that were read."""
        self.reused = 0
        """Of these, those that another text's reading gave."""
        self.written: list[int] = []
        self.counts: Counter[int] = Counter()
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.held: list[Piece] = []
        self.prompt: list[Judged] = [Judged(wish.ids[0], None)] if wish.judges_prompt else []
        self.cancelled = threading.Event()
        self.slot = -1

    @property
    def place(self) -> int:
        """Positions that were read."""
        return self.read + max(len(self.written) - 1, 0)

    def biased(self, logits: Tensor) -> Tensor:
        """Apply this text's biases and penalties to logits (V,)."""
        wish = self.wish
        is_penalized = self.counts and (wish.presence or wish.frequency)
        if not (wish.bias or is_penalized or wish.settings.repetition_penalty != 1):
            return logits
        logits = logits.clone()
        for id_, value in wish.bias:
            logits[id_] += value
        if is_penalized:
            ids = torch.tensor(list(self.counts), device=logits.device)
            often = torch.tensor(list(self.counts.values()), device=logits.device)
            logits[ids] -= wish.presence + wish.frequency * often
        if (penalty := wish.settings.repetition_penalty) != 1:
            seen = torch.tensor(sorted({*wish.ids, *self.written}), device=logits.device)
            values = logits[seen]
            logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
        return logits

    def add(self, id_: int, logits: Tensor) -> Event:
        """Take one more token, chosen by logits (V,); say what has become certain."""
        wish = self.wish
        judged = Judged(id_, None) if wish.top is None else judge(logits, id_, wish.top)
        self.written.append(id_)
        self.counts[id_] += 1
        is_end = self.vocabulary.ends_writing(id_)
        text = "" if is_end else self.decoder.decode(self.vocabulary.piece_bytes(id_))
        self.held.append(Piece(text, judged))
        reason = END if is_end else FULL if len(self.written) >= wish.most else None
        if not is_end and wish.stop and self._meets_stop():
            reason = END
        if reason and (rest := self.decoder.decode(b"", True)):  # half of a character at the end
            self.held[-1] = self.held[-1]._replace(text=self.held[-1].text + rest)
        return Event(tuple(self._certain(reason is not None)), (), reason)

    def _certain(self, has_ended: bool) -> list[Piece]:
        """Return the pieces that no stop string can take back."""
        texts = [piece.text for piece in self.held]
        count = 0
        while count < len(texts) and (
            has_ended or not may_stop("".join(texts[count:]), self.wish.stop)
        ):
            count += 1
        certain, self.held = self.held[:count], self.held[count:]
        return certain

    def _meets_stop(self) -> bool:
        """Cut what is held at the first stop string, if one is complete."""
        text = "".join(piece.text for piece in self.held)
        places = [place for one in self.wish.stop if (place := text.find(one)) >= 0]
        if not places:
            return False
        left, kept = min(places), []
        for piece in self.held:
            if left > 0:
                kept.append(piece._replace(text=piece.text[:left]))
            left -= len(piece.text)
        self.held = kept
        self.decoder.reset()
        return True


def judge(logits: Tensor, id_: int, top: int) -> Judged:
    """Return a token's log-probability by logits (V,), and those of the likeliest."""
    return judge_each(logits[None], [id_], top)[0]


def judge_each(logits: Tensor, ids: Sequence[int], top: int) -> list[Judged]:
    """Do the same for several positions: logits (N, V), an id for each."""
    logs = logits.double().log_softmax(-1)
    right = torch.tensor(list(ids), device=logs.device)
    found = logs.gather(1, right[:, None])[:, 0].tolist()
    if not top:
        return [Judged(id_, value) for id_, value in zip(ids, found, strict=True)]
    values, places = logs.topk(min(top, logs.shape[1]))
    likeliest = zip(places.tolist(), values.tolist(), strict=True)
    return [
        Judged(id_, value, tuple(zip(*best, strict=True)))
        for id_, value, best in zip(ids, found, likeliest, strict=True)
    ]
