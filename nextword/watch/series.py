"""A run's journal as numbers, read on as it grows: curves for any screen, however long the run."""

import os
import threading
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from nextword.training.journal import METRICS, is_judged, read_event

NAMES = ("loss", "gradient_norm", "rate_factor", "tokens_per_second", "seconds")
"""Of each step, what is drawn."""
EVENTS = (
    *("evaluation", "spike", "rollback", "ruler", "floor", "end"),
    *("pace", "rate", "pause", "unpause", "order"),
)
"""Rare events, which are kept whole; replays are kept apart, for they are large."""
_DAMAGE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, OverflowError)
BLOCK = 1 << 22
"""Bytes read at once."""


class _Line(Struct, gc=False):
    event: str
    step: int
    loss: float | None = None
    gradient_norm: float | None = None
    rate_factor: float | None = None
    tokens_per_second: float | None = None
    seconds: float | None = None


class Series:
    """What a journal says, kept as columns; `update` reads what was added."""

    def __init__(self, run: Path) -> None:
        """Begin with nothing read.

        Args:
            run: its folder.
        """
        self.file = run / METRICS
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self.place, self.rest, self.identity = 0, b"", (0, 0)
        self.damaged = 0
        """Lines that were left out."""
        self.steps: array[int] = array("q")
        self.columns: dict[str, array[float]] = {name: array("d") for name in NAMES}
        self.events: list[dict[str, Any]] = []
        self.moments: list[dict[str, Any]] = []
        self._passed, self._before = 0.0, 0.0

    def update(self) -> bool:
        """Read what was added; return whether there is anything new.

        A journal that has become shorter, as when a run goes on from an earlier step, is read anew.
        """
        with self._lock:
            return self._update()

    def _update(self) -> bool:
        try:
            with open(self.file, "rb") as stream:
                known = os.fstat(stream.fileno())
                identity = (known.st_dev, known.st_ino)
                if known.st_size < self.place + len(self.rest) or identity != self.identity:
                    if self.place or self.rest:
                        self._clear()
                    self.identity = identity
                if known.st_size == self.place + len(self.rest):
                    return False
                stream.seek(self.place + len(self.rest))
                while block := stream.read(BLOCK):
                    self._take(self.rest + block)
        except OSError:
            return False
        return True

    def _take(self, block: bytes) -> None:
        end = block.rfind(b"\n") + 1
        self.place += end
        self.rest = block[end:]
        decode = _decoder.decode
        for raw in block[:end].splitlines():
            try:
                line = decode(raw)
                if line.event == "step":
                    self._add(line)
                elif line.event == "replay" or line.event in EVENTS:
                    self._keep(raw)
            except _DAMAGE:
                self.damaged += 1

    def _keep(self, raw: bytes) -> None:
        """Keep a rare event, if it is what its kind must be; count it as damaged if not."""
        event = read_event(raw)
        if event is None or (event["event"] == "replay" and not is_judged(event)):
            self.damaged += 1
        else:
            (self.moments if event["event"] == "replay" else self.events).append(event)

    def _add(self, line: _Line) -> None:
        # Clocks begin anew where training was resumed; their parts are added up.
        now = line.seconds or 0.0
        if now < self._before:
            self._passed += self._before
        self._before = now
        self.steps.append(line.step)
        for name in NAMES:
            value = getattr(line, name)
            self.columns[name].append(np.nan if value is None else value)
        self.columns["seconds"][-1] = self._passed + now

    def thinned(self, points: int, first: int = 0, last: int | None = None) -> dict[str, Any]:
        """Return curves of at most so many points.

        Of each stretch of steps the least, the mean and the most, so that no spike is lost.

        Args:
            points: of a curve, about as many as a screen has columns.
            first: step from which on.
            last: step up to which; default: all.
        """
        with self._lock:  # no column may grow while it is looked at as numbers
            return self._thinned(points, first, last)

    def _thinned(self, points: int, first: int, last: int | None) -> dict[str, Any]:
        steps = np.frombuffer(self.steps, dtype=np.int64) if self.steps else np.zeros(0, np.int64)
        begin = int(np.searchsorted(steps, first))
        end = len(steps) if last is None else int(np.searchsorted(steps, last, side="right"))
        size = max(1, -(-(end - begin) // max(points, 1)))
        starts = np.arange(begin, end, size)
        found: dict[str, Any] = {"step": steps[np.minimum(starts + size // 2, end - 1)].tolist()}
        for name in NAMES:
            column = np.frombuffer(self.columns[name], dtype=np.float64) if self.steps else steps
            found[name] = _stretches(column[:end], starts)
        return found

    def latest(self) -> dict[str, Any]:
        """Return the last step's numbers."""
        if not self.steps:
            return {}
        last = {name: self.columns[name][-1] for name in NAMES}
        return {"step": self.steps[-1], **{key: _number(value) for key, value in last.items()}}

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Return all events of a kind."""
        return [event for event in self.events if event["event"] == kind]


_decoder = msgspec.json.Decoder(_Line)


def _stretches(column: NDArray[Any], starts: NDArray[Any]) -> Mapping[str, list[float | None]]:
    """Return the least, mean and most of each stretch; None where there are no numbers."""
    if not len(starts):
        return {"least": [], "mean": [], "most": []}
    known = ~np.isnan(column)
    counts = np.add.reduceat(known.astype(np.int64), starts)
    sums = np.add.reduceat(np.where(known, column, 0.0), starts)
    least = np.minimum.reduceat(np.where(known, column, np.inf), starts)
    most = np.maximum.reduceat(np.where(known, column, -np.inf), starts)
    means = sums / np.maximum(counts, 1)
    return {
        name: [None if not n else float(v) for n, v in zip(counts, values, strict=True)]
        for name, values in (("least", least), ("mean", means), ("most", most))
    }


def _number(value: float) -> float | None:
    return None if value != value else value
