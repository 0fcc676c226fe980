"""The training log, metrics.jsonl: one JSON event a line, flushed.

Steps only grow from line to line, but for damage; so what was written last is found from the end,
however long the log has become.
"""

import json
import math
import mmap
import os
import re
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec
from msgspec import Meta, Struct

from nextword.base.files import sync_file

METRICS = "metrics.jsonl"
ENDS = ("floor", "ruler", "end")
"""Events of a run's end, which comes again where the run goes on."""
WISHES = ("rate",)
"""Events that somebody asked for, which change what comes after."""
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


class _Line(_StepDone, gc=False):
    """Any line, as far as a curve of the loss needs it."""


class _Evaluation(_Event):
    nats_per_token: _Number = None
    partial_nats_per_token: _Number = None
    sample: str = ""


class _Pin(Struct):
    nats: list[_Number]
    likeliest: list[str]
    likeliest_probability: list[_Number]
    others: list[list[tuple[str, float]]] = []


class _Replay(_Event):
    pins: list[_Pin]
    seconds: float = 0.0


class _Pace(_Event):
    steps: _Step


class _Rate(_Event):
    scale: Annotated[float, Meta(ge=1e-6, le=1)]


class _Rollback(_Event):
    left_out: _Step


class _MicroBatch(_Event):
    rows: Annotated[int, Meta(ge=1, le=1 << 31)]


class _Spike(_Event):
    gradient_norm: _Number = None
    usual: _Number = None
    parts: dict[str, _Number] = {}


class _Floor(_Event):
    nats_per_token: _Number = None


class _Mark(Struct):
    name: str
    bits: _Number = None


class _Ruler(_Event):
    tokens: Annotated[int, Meta(ge=0)] = 0
    marks: list[_Mark] = []


_KINDS: dict[str, type[_Event]] = {
    "step": _StepDone,
    "evaluation": _Evaluation,
    "replay": _Replay,
    "pace": _Pace,
    "rate": _Rate,
    "rollback": _Rollback,
    "micro_batch": _MicroBatch,
    "spike": _Spike,
    "floor": _Floor,
    "ruler": _Ruler,
}
"""Events that are read again; a line that is not what its kind must be counts as damaged."""


_DAMAGE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_LINE_END = ord("\n")


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
        """Drop what was written after a step, or of an end: a resumed run goes that way again.

        But for what somebody wished on the way, which it is to come to again.
        """
        if not self.file.is_file():
            return
        size = self.file.stat().st_size
        kept: list[bytes] = []
        for place, line in self._backwards():
            event = _event(line)
            if event is not None and event["step"] <= step and event["event"] not in ENDS:
                break
            if event is not None and event["event"] in WISHES:
                kept.insert(0, line.rstrip(b"\n") + b"\n")
            size = place
        wishes = b"".join(kept)
        if size + len(wishes) < self.file.stat().st_size:
            with open(self.file, "rb+") as stream:  # they are among what they are written over
                stream.seek(size)
                stream.write(wishes)
                stream.truncate()
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
        with open(self.file, "rb") as stream:
            for line in _lines_with(stream, kinds) if kinds else stream:
                event = _event(line)
                if event is not None and (not kinds or event["event"] in kinds):
                    yield event

    def curve(self, last: float = math.inf) -> "tuple[array[int], array[float], float]":
        """Return steps, their training loss, and the seconds that all of them took.

        Clocks begin anew where training was resumed; their parts are added up.

        Args:
            last: step up to which.
        """
        steps, losses, total, before = array("q"), array("d"), 0.0, 0.0
        if not self.file.is_file():
            return steps, losses, 0.0
        decode, errors = msgspec.json.Decoder(_Line).decode, _DAMAGE
        with open(self.file, "rb") as lines:
            for text in lines:
                try:
                    line = decode(text)
                except errors:
                    continue
                if line.event != "step" or text[-1] != _LINE_END or line.step > last:
                    continue
                now = line.seconds
                total, before = (total + before, now) if now < before else (total, now)
                if line.loss is not None:
                    steps.append(line.step)
                    losses.append(line.loss)
        return steps, losses, total + before

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


def _lines_with(stream: BinaryIO, kinds: tuple[str, ...]) -> Iterator[bytes]:
    """Yield the lines that name one of these kinds, which may be few among very many."""
    named = re.compile(b"|".join(re.escape(json.dumps(kind).encode()) for kind in kinds))
    if not os.fstat(stream.fileno()).st_size:
        return
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
        place = 0
        while found := named.search(view, place):
            begin = view.rfind(b"\n", 0, found.start()) + 1
            place = view.find(b"\n", found.end()) + 1 or len(view)
            yield view[begin:place]


def _event(line: bytes) -> dict[str, Any] | None:
    """Read a line, if it is a whole event."""
    if not line.endswith(b"\n"):
        return None
    try:
        event: dict[str, Any] = msgspec.json.decode(line)
        known = msgspec.convert(event, _Event)
        if (kind := _KINDS.get(known.event)) is not None:
            msgspec.convert(event, kind)
    except _DAMAGE:
        return None
    return event


def read_event(line: bytes) -> dict[str, Any] | None:
    """Read a line without its end; None where it is not what an event of its kind must be."""
    return _event(line + b"\n")


def is_judged(replay: Mapping[str, Any]) -> bool:
    """Whether each piece of each sentence of a replay has its numbers."""
    return all(
        len(pin["nats"]) == len(pin["likeliest"]) == len(pin["likeliest_probability"])
        and None not in pin["nats"]
        and None not in pin["likeliest_probability"]
        and len(pin.get("others") or pin["nats"]) == len(pin["nats"])
        for pin in replay["pins"]
    )


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
