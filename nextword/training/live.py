"""What a training and its live page tell each other, through two files in the run's folder.

The page asks for the weights of this moment, or for a pause, in `asked.json`; between two steps the
training looks whether that file has changed, which costs some microseconds. Weights are copied and
written by a thread into `live/`, an ordinary model folder without the optimizer's state. Neither
changes what is learned. A lower rate does; it is written into the log, for whoever goes on.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import asdict

from nextword.base.errors import RunError
from nextword.base.files import write_json
from nextword.base.records import Count, read_record
from nextword.base.signals import stopped_by
from nextword.machine.ranks import Ranks
from nextword.model.folder import Snapshot
from nextword.model.transformer import Transformer
from nextword.training.checkpoint import write_folder
from nextword.training.journal import Journal
from nextword.training.loop import Callback, TrainerState
from nextword.training.saver import Saver
from nextword.training.schedule import Pace
from nextword.vocabulary.tokenizer import Vocabulary

ASKED, LIVE, WHEN = "asked.json", "live", "live.json"
SHARE = 0.01
"""Of its time, that a training spends at most on handing its weights over."""
PAUSE_SECONDS = 0.2
"""Between two looks while it pauses."""


class Wishes(Struct):
    """What the page asks of a training."""

    weights: Count = 0
    """How often it has asked for them: one more is a new wish."""
    paused: bool = False
    scale: Annotated[float, Meta(ge=1e-6, le=1)] | None = None
    """By what the rate is to be multiplied; None where nobody has said."""
    orders: Count = 0
    """How often it was told to save or to stop, by a signal beside this."""
    order: Annotated[str, Meta(max_length=20)] = ""
    """The last of these."""


class Handed(Struct):
    """Whose weights lie there, and of which step."""

    step: Count
    process: Count
    weights: Count
    """The wish that they answer."""


def read_wishes(run: Path) -> Wishes:
    """Return what is asked of a run; nothing where the file is missing or damaged."""
    try:
        return read_record(run / ASKED, Wishes, RunError)
    except RunError:
        return Wishes()


def ask(
    run: Path,
    *,
    weights: bool = False,
    paused: bool | None = None,
    scale: float | None = None,
    order: str | None = None,
) -> Wishes:
    """Ask a run for something; return all that is asked now."""
    now = read_wishes(run)
    now.weights += weights
    now.paused = now.paused if paused is None else paused
    now.scale = now.scale if scale is None else scale
    if order is not None:
        now.orders, now.order = now.orders + 1, order
    write_json(run / ASKED, asdict(now))
    return now


def handed(run: Path) -> Handed | None:
    """Say which weights lie in the run's `live/`, if any."""
    try:
        return read_record(run / LIVE / WHEN, Handed, RunError)
    except RunError:
        return None


def listen(
    run: Path, model: Transformer, vocabulary: Vocabulary, pace: Pace, ranks: Ranks
) -> Callback:
    """Return what looks between steps whether the page has asked for something.

    Of several processes the first looks, and all do what it found.

    Args:
        run: the run's folder; what was asked of an earlier training is forgotten.
        model: the network.
        vocabulary: of the same model.
        pace: of the run, whose rate may be lowered.
        ranks: the processes, which all call this.
    """
    if ranks.is_first:
        (run / ASKED).unlink(missing_ok=True)
    return Callback(1, _Listener(run, model, vocabulary, pace, ranks).look, when="at once")


class _Listener:
    def __init__(
        self, run: Path, model: Transformer, vocabulary: Vocabulary, pace: Pace, ranks: Ranks
    ) -> None:
        self.run, self.model, self.vocabulary, self.pace = run, model, vocabulary, pace
        self.ranks = ranks
        self.journal, self.saver = Journal(run), Saver[Snapshot]()
        self.changed, self.wanted, self.answered, self.orders = 0, 0, 0, 0
        self.rest = 0.0
        """Until when no weights are handed over."""

    def look(self, state: TrainerState) -> None:
        if state.is_last:
            if self.ranks.is_first:
                self.saver.finish()
                shutil.rmtree(self.run / LIVE, ignore_errors=True)  # its checkpoint is as new
                (self.run / ASKED).unlink(missing_ok=True)
            return
        news = self.news(state) if self.ranks.is_first else None
        if news is None and self.ranks.size == 1:
            return
        state.settle()
        asked = news or Wishes()
        scale, pauses = self.ranks.most(asked.scale or 0.0, asked.paused)
        if scale not in (0.0, self.pace.scale(state.step)):
            self.pace.slow_down(state.step, scale)
            self.note({"event": "rate", "step": state.step, "scale": scale})
        if pauses:
            self.pause(state.step)

    def news(self, state: TrainerState) -> Wishes | None:
        """Hand over weights, and note an order, where they were asked for; None if nothing was."""
        changed = _changed(self.run)
        if changed == self.changed and self.wanted == self.answered:
            return None
        state.settle()
        asked = read_wishes(self.run)
        self.changed, self.wanted = changed, asked.weights
        rested = time.monotonic() >= self.rest and self.saver.is_idle
        if (
            self.ranks.divides_weights
        ):  # each holds a share of them: checkpoints are what can be asked
            self.answered = self.wanted
        elif self.wanted != self.answered and rested:
            self.hand_over(state.step)
        if asked.orders != self.orders:  # the signal beside it is heard at this step's end
            self.orders = asked.orders
            self.note({"event": "order", "step": state.step, "what": asked.order})
        return asked

    def note(self, event: dict[str, Any]) -> None:
        """Write into the log, which is the first process's."""
        if self.ranks.is_first:
            self.journal.write(event)

    def pause(self, step: int) -> None:
        """Wait until the page lets it go on, or a signal asks one of the processes to stop."""
        began = time.monotonic()
        self.note({"event": "pause", "step": step})
        while True:
            paused = self.ranks.is_first and read_wishes(self.run).paused
            waits, stops = self.ranks.most(paused, stopped_by() is not None)
            if stops or not waits:
                break
            time.sleep(PAUSE_SECONDS)
        waited = round(time.monotonic() - began, 3)
        self.note({"event": "unpause", "step": step, "waited": waited})

    def hand_over(self, step: int) -> None:
        began = time.monotonic()
        self.answered = self.wanted
        what = Handed(step, os.getpid(), self.wanted)
        self.saver.save(
            lambda room: Snapshot.of(self.model, room), _writer(self.run, self.vocabulary, what)
        )
        spent = time.monotonic() - began
        self.rest = began + spent / SHARE


def _changed(run: Path) -> int:
    try:
        return (run / ASKED).stat().st_mtime_ns
    except OSError:
        return 0


def _writer(run: Path, vocabulary: Vocabulary, what: Handed) -> Callable[[Snapshot], int]:
    """Return what writes weights aside and puts them in place, whole."""

    def write(taken: Snapshot) -> int:
        aside, old = (run / f".{LIVE}.{word}" for word in ("aside", "old"))
        try:
            for folder in (aside, old):
                shutil.rmtree(folder, ignore_errors=True)
            aside.mkdir()
            write_folder(aside, taken, vocabulary)
            words = {"step": what.step, "process": what.process, "weights": what.weights}
            write_json(aside / WHEN, words)
            if (run / LIVE).exists():
                (run / LIVE).rename(old)
            aside.rename(run / LIVE)
        except Exception:  # as a full disk: who watches gets no weights, and training goes on
            shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        return 0

    return write
