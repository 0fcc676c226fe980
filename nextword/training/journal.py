"""The training log, metrics.jsonl: one JSON event a line, flushed.

Steps only grow from line to line, but for damage; so what was written last is found from the end,
however long the log has become.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from nextword.base.files import sync_file

METRICS = "metrics.jsonl"
ENDS = ("floor", "ruler", "end")
"""Events of a run's end, which comes again where the run goes on."""
BLOCK = 1 << 16
"""Bytes read at once from the end."""
_Step = Annotated[int, Meta(ge=0, le=1 << 53)]
_Number = float | None
"""What is no finite number stands as null."""


class _Event(Struct):
    """What every event has."""

    event: str
    step: _Step


class _StepDone(_Event):
    loss: _Number = None
    seconds: float = 0.0
    gradient_norm: _Number = None


class _Evaluation(_Event):
    nats_per_token: _Number = None
    partial_nats_per_token: _Number = None
    sample: str = ""


class _Pin(Struct):
    nats: list[_Number]
    likeliest: list[str]
    likeliest_probability: list[_Number]


class _Replay(_Event):
    pins: list[_Pin]
    seconds: float = 0.0


class _Pace(_Event):
    steps: _Step


class _Rollback(_Event):
    left_out: _Step


_KINDS: dict[str, type[_Event]] = {
    "step": _StepDone,
    "evaluation": _Evaluation,
    "replay": _Replay,
    "pace": _Pace,
    "rollback": _Rollback,
}
"""Events that are read again; a line that is not what its kind must be counts as damaged."""


class Journal:
    """Appends events to a run's metrics.jsonl."""

    def __init__(self, folder: Path) -> None:
        """Name the file; it is opened at each event, so nothing is held back.

        Args:
            folder: of the run.
        """
        self.file = folder / METRICS

    def write(self, event: dict[str, Any]) -> None:
        """Append one event and flush it; what is not a finite number is written as null."""
        with open(self.file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({key: _finite(value) for key, value in event.items()}) + "\n")
            stream.flush()

    def sync(self) -> None:
        """Wait until all that was written has reached the disk; a checkpoint relies on it."""
        if self.file.is_file():
            sync_file(self.file)

    def forget_after(self, step: int) -> None:
        """Drop what was written after a step, or of an end: a resumed run goes that way again."""
        if not self.file.is_file():
            return
        size = self.file.stat().st_size
        for place, line in self._backwards():
            event = _event(line)
            if event is not None and event["step"] <= step and event["event"] not in ENDS:
                break
            size = place
        if size < self.file.stat().st_size:
            os.truncate(self.file, size)
            self.sync()

    def has_ended(self) -> bool:
        """Whether the run came to its end, its last words included."""
        return next((event["event"] == "end" for event in self.latest()), False)

    def read(self, *kinds: str) -> Iterator[dict[str, Any]]:
        """Yield the events; lines that are none (cut short by a crash, damaged) are left out.

        Args:
            *kinds: events of these alone, which is much faster where they are few; default all.
        """
        if not self.file.is_file():
            return
        names = [json.dumps(kind).encode() for kind in kinds]
        with open(self.file, "rb") as lines:
            for line in lines:
                if names and not any(name in line for name in names):
                    continue
                event = _event(line)
                if event is not None and (not kinds or event["event"] in kinds):
                    yield event

    def latest(self, *kinds: str) -> Iterator[dict[str, Any]]:
        """Yield the events from the last to the first, all or of some kinds."""
        for _, line in self._backwards():
            event = _event(line)
            if event is not None and (not kinds or event["event"] in kinds):
                yield event

    def _backwards(self) -> Iterator[tuple[int, bytes]]:
        """Yield the lines from the last to the first, each with the place where it begins."""
        if not self.file.is_file():
            return
        with open(self.file, "rb") as stream:
            place = stream.seek(0, os.SEEK_END)
            rest = b""
            while place:
                size = min(BLOCK + len(rest), place)  # of a line that is longer, more each time
                place = stream.seek(place - size)
                block = stream.read(size) + rest
                first = block.find(b"\n") + 1 if place else 0
                if place and not first:
                    rest = block
                    continue
                yield from _lines_backwards(block[first:], place + first)
                rest = block[:first]


def _lines_backwards(block: bytes, place: int) -> Iterator[tuple[int, bytes]]:
    end = len(block)
    while end:
        begin = block.rfind(b"\n", 0, end - 1) + 1
        yield place + begin, block[begin:end]
        end = begin


def _event(line: bytes) -> dict[str, Any] | None:
    """Read a line, if it is a whole event."""
    if not line.endswith(b"\n"):
        return None
    try:
        event: dict[str, Any] = msgspec.json.decode(line)
        known = msgspec.convert(event, _Event)
        if (kind := _KINDS.get(known.event)) is not None:
            msgspec.convert(event, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return event


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return (
        None
        if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf")))
        else value
    )


def curve_of(events: Iterable[dict[str, Any]]) -> tuple[list[tuple[int, float]], float]:
    """Return steps with their training loss, and the seconds that all of them took.

    Clocks begin anew where training was resumed; their parts are added up.
    """
    curve, total, before = [], 0.0, 0.0
    for event in events:
        now = event.get("seconds", 0.0)
        total, before = (total + before, now) if now < before else (total, now)
        if (loss := event.get("loss")) is not None:
            curve.append((event["step"], loss))
    return curve, total + before
