"""Who is read and written when: continuous batching over the slots of one model.

One thread works on one model. Before each step texts that wait take slots that are free; in a step
every text that is being written gets one more token, and blocks of prompts are read (so that a long
one holds nobody up for long). A prompt that begins as another did takes over what was read of it.
Nothing that a text is told depends on who else is there.

Legend of shapes: N tokens, D width, V vocabulary.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import torch
from torch import Tensor

from nextword.base.errors import EvaluationError, ServingError
from nextword.machine.memory import free_memory
from nextword.model.attention import cache_bytes
from nextword.model.slots import BLOCK, Part, Slots
from nextword.prediction.loading import Opened
from nextword.prediction.sample import choose_each
from nextword.serve.errors import ApiError
from nextword.serve.growing import FAILED, LATE, UNSOUND, Event, Growing, Wish, judge_each
from nextword.serve.metrics import Metrics

READ_AT_ONCE = 256
"""Tokens of prompts that are read between two steps of what is being written."""
MOST_SLOTS = 64
FREE_SHARE = 0.25
"""Of the free memory, that keys and values may take where nothing else is said."""
Result = TypeVar("Result")
_LOG = logging.getLogger("nextword.serve")


class QueueFullError(ServingError):
    """More texts wait than may."""


class Engine:
    """Reads and writes texts for whoever asks, with one model."""

    def __init__(self, opened: Opened, slots: int | None = None, queue: int = 256) -> None:
        """Reserve room and begin to work.

        Args:
            opened: the model; one that writes no text still turns texts into vectors.
            slots: texts that are written side by side; default: by what memory is free.
            queue: texts that may wait.
        """
        self.opened, self.vocabulary, self.queue = opened, opened.vocabulary, queue
        self.cannot_write = opened.objective.cannot.get("generate")
        """Why it writes no text, if so."""
        count = 0 if self.cannot_write else slots or _affordable(opened)
        self.slots = Slots(opened.model, count, READ_AT_ONCE)
        self.context = opened.model.shape.context
        self.metrics = Metrics()
        self._waiting: deque[Growing] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._reading: list[Growing] = []
        self._writing: list[Growing] = []
        self._free = list(range(self.slots.count))
        """Slots that nobody holds, the one that has been free for the longest first."""
        self._kept: list[tuple[int, ...]] = [() for _ in self._free]
        """Of each slot: the whole blocks of a prompt whose keys and values stand there."""
        self._changed = threading.Condition()
        self._ends = False
        self.ends_at = math.inf
        """By the monotonic clock: when the server ends, whatever is under way then."""
        self._thread = threading.Thread(target=self._work, name="nextword-engine", daemon=True)
        self._thread.start()

    def submit(self, *wishes: Wish, deliver: Callable[[Growing, Event], None]) -> list[Growing]:
        """Let texts wait for their turn.

        Args:
            wishes: what is asked for.
            deliver: called from the engine's thread with what becomes certain of a text.

        Raises:
            QueueFullError: there is no room for all of them; none waits then.
        """
        texts = [Growing(wish, self.vocabulary, deliver) for wish in wishes]
        with self._changed:
            room = self.queue + len(self._free) - len(self._waiting)
            if len(texts) > room or self._ends:
                self.metrics.count("requests_refused")
                raise QueueFullError
            self._waiting.extend(texts)
            self._changed.notify()
        self.metrics.count("texts", len(texts))
        return texts

    def cancel(self, text: Growing) -> None:
        """Let a text go, for whom it was written has gone."""
        text.cancelled.set()
        with self._changed:
            self._changed.notify()

    def call(self, work: Callable[[], Result]) -> "Future[Result]":
        """Let something else be computed with the model between two steps."""
        future: Future[Result] = Future()
        with self._changed:
            self._calls.append((work, future))
            self._changed.notify()
        return future

    def look_at_the_clock(self, deadline: float) -> None:
        """Go on if there is time left.

        Raises:
            ApiError: the deadline, or the server's end, has passed.
        """
        now = time.monotonic()
        if now > self.ends_at:
            raise ApiError("the server has ended; ask again", status=503, code="server_ended")
        if now > deadline:
            raise ApiError("this took longer than it may", status=408, code="timeout")

    def close(self) -> None:
        """Stop working; what is under way is left."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        self._thread.join()

    @property
    def load(self) -> dict[str, int]:
        """Return how many texts are being written, read and waited for."""
        return {
            "writing": len(self._writing),
            "reading": len(self._reading),
            "waiting": len(self._waiting),
            "slots": self.slots.count,
        }

    def _work(self) -> None:
        torch.set_flush_denormal(True)  # of this thread
        while True:
            with self._changed:
                while not (self._ends or self._has_work()):
                    self._changed.wait()
                if self._ends:
                    return
            try:
                self._turn()
            except Exception:
                _LOG.exception("a step failed; what was under way is given up")
                for text in [*self._reading, *self._writing]:
                    self._wipe(text.slot)  # nobody has looked at what it wrote there last
                    self._end(text, Event(reason=FAILED))

    def _has_work(self) -> bool:
        return bool(self._waiting or self._reading or self._writing or self._calls)

    def _turn(self) -> None:
        """Do a little of everything that is to be done."""
        while self._calls:
            work, future = self._calls.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except Exception as error:
                    future.set_exception(error)
        self._drop()
        self._admit()
        self._advance()

    def _drop(self) -> None:
        """Let those go for whom nobody waits any more, and those whose time is over."""
        now = time.monotonic()
        for text in [*self._waiting, *self._reading, *self._writing]:
            if text.cancelled.is_set() or now > min(text.wish.deadline, self.ends_at):
                self.metrics.count("texts_cancelled" if text.cancelled.is_set() else "texts_late")
                if text.slot >= 0 and not text.written:  # nobody has looked at its scores yet
                    self._wipe(text.slot)
                self._end(text, Event(reason=LATE))

    def _admit(self) -> None:
        """Give free slots to those who wait, in the order in which they came."""
        while self._waiting and self._free:
            text = self._waiting.popleft()
            slot, source, positions = self._best_slot(text.wish)
            self._free.remove(slot)
            text.slot, text.read, text.reused = slot, positions, positions
            self._reading.append(text)  # first of all: whoever is in no list would be forgotten
            kept = self._kept[source][:positions]
            self._kept[slot] = ()
            if positions and source != slot:
                self.slots.copy(source, slot, positions)
            self._kept[slot] = kept
            self.metrics.count("prompt_tokens", len(text.wish.ids))
            self.metrics.count("prompt_tokens_reused", positions)

    def _best_slot(self, wish: Wish) -> tuple[int, int, int]:
        """Return a free slot, the slot whose prompt began alike, and for how many positions."""
        most = 0 if wish.judges_prompt else (len(wish.ids) - 1) // BLOCK * BLOCK
        alike = [min(_shared(kept, wish.ids), most) for kept in self._kept]
        best = max(range(len(alike)), key=lambda slot: (alike[slot], slot in self._free))
        if not alike[best]:
            return self._free[0], self._free[0], 0
        return (best if best in self._free else self._free[0]), best, alike[best]

    def _advance(self) -> None:
        """Read blocks of prompts, and write one more token of each text, in one go."""
        writing = sorted(self._writing, key=lambda text: text.slot)
        reading = self._blocks()
        written, read = self.slots.advance(
            [text.slot for text in writing],
            [text.written[-1] for text in writing],
            [text.place for text in writing],
            [part for _, part in reading],
        )
        if writing:
            self.metrics.count("steps")
        begun = [
            (text, hidden[-1:])
            for (text, part), hidden in zip(reading, read, strict=True)
            if self._has_read(text, part, hidden)
        ]
        texts = [*writing, *(text for text, _ in begun)]
        if texts:
            self._choose(texts, self._logits(torch.cat([written, *(last for _, last in begun)])))

    def _blocks(self) -> list[tuple[Growing, Part]]:
        """Return what is read next of prompts, all of the one that came first before others."""
        left = READ_AT_ONCE
        found: list[tuple[Growing, Part]] = []
        for text in self._reading:
            ids = text.wish.ids
            for start in range(text.read, len(ids), BLOCK):
                if left <= 0:
                    return found
                found.append((text, Part(text.slot, ids[start : start + BLOCK], start)))
                left -= BLOCK
        return found

    def _has_read(self, text: Growing, part: Part, hidden: Tensor) -> bool:
        """Note that a part, with hidden states (T, D), was read; say whether to write now."""
        if text.slot < 0:  # it was given up after a part before this one
            return False
        ids = text.wish.ids
        text.read = part.end
        if not _are_numbers(hidden[-1:]).all():  # the last sees whatever is before it
            self._give_up(text)
            return False
        if len(part.ids) == BLOCK:
            self._kept[text.slot] = ids[: text.read]
        if text.wish.judges_prompt:
            following = ids[part.start + 1 : part.end + 1]
            logits = self._logits(hidden[: len(following)])
            text.prompt += judge_each(logits, following, text.wish.top or 0)
        if text.read < len(ids):
            return False
        self._reading.remove(text)
        if text.prompt:
            text.deliver(text, Event((), tuple(text.prompt)))
        if not text.wish.most:
            self._end(text, Event(reason="length"))
            return False
        self._writing.append(text)
        return True

    def _logits(self, hidden: Tensor) -> Tensor:
        # A network may have rows for ids that its vocabulary does not hold; none of them is text.
        return self.slots.logits(hidden)[:, : len(self.vocabulary)]

    @torch.inference_mode()
    def _choose(self, texts: list[Growing], logits: Tensor) -> None:
        """Choose the next token of each text by logits (N, V), and tell whom it concerns."""
        sound: list[bool] = _are_numbers(logits).tolist()
        if not all(sound):
            for text, is_sound in zip(texts, sound, strict=True):
                if not is_sound:
                    self._give_up(text)
            texts = [text for text, is_sound in zip(texts, sound, strict=True) if is_sound]
            logits = logits[sound]
            if not texts:
                return
        biased = [text.biased(row) for text, row in zip(texts, logits, strict=True)]
        asked = logits
        if any(one.data_ptr() != row.data_ptr() for one, row in zip(biased, logits, strict=True)):
            asked = torch.stack(biased)
        settings = [text.wish.settings for text in texts]
        draws = [text.source.random() for text in texts]
        self.metrics.count("generated_tokens", len(texts))
        chosen = choose_each(asked, settings, draws)
        for text, id_, row in zip(texts, chosen, logits, strict=True):
            event = text.add(id_, row)
            if event.reason:
                self._end(text, event)
            elif event.pieces:
                text.deliver(text, event)

    def _give_up(self, text: Growing) -> None:
        """End a text that the model has no scores for; those beside it go on."""
        self._wipe(text.slot)
        self._end(text, Event(reason=UNSOUND))

    def _wipe(self, slot: int) -> None:
        """Keep nothing of what a slot holds, for it may be no number."""
        self._kept[slot] = ()
        self.slots.clean(slot)

    def _end(self, text: Growing, event: Event) -> None:
        """Give a text's slot back, and say that it has ended."""
        for those in (self._waiting, self._reading, self._writing):
            if text in those:
                those.remove(text)
        if text.slot >= 0:
            self.slots.leave(text.slot, len(self._kept[text.slot]))
            self._free.append(text.slot)
            text.slot = -1
        text.deliver(text, event)


def _are_numbers(rows: Tensor) -> Tensor:
    """Say of each of some rows (N, …) whether all in it are numbers: (N,)."""
    return rows.sum(-1).isfinite()


def _shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Count the positions, in whole blocks, in which two prompts begin alike."""
    most = min(len(one), len(other)) // BLOCK * BLOCK
    same = 0
    while same < most and one[same : same + BLOCK] == other[same : same + BLOCK]:
        same += BLOCK
    return same


def _affordable(opened: Opened) -> int:
    """Return for how many texts there is room."""
    free = free_memory(opened.model.device)
    if free is None:
        return MOST_SLOTS // 4
    shape = opened.model.shape
    each = cache_bytes(shape, -(-shape.context // BLOCK) * BLOCK)
    count = int(free * FREE_SHARE / each)
    if count < 1:
        raise EvaluationError(
            f"{opened.name}: the keys and values of one text take {each / 1e9:.1f} GB, of which a "
            f"quarter of the free memory, {free / 1e9:.1f} GB, holds none; --slots 1 tries it"
        )
    return min(MOST_SLOTS, count)
