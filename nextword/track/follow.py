"""Reads a run's journal as it grows and tells a tracker; remembers what it has told.

    RUN/tracked/TOOL.json   how far the journal was handed on, and the tool's own name of the run

Steps that a resumed run goes a second time are told once. What a run goes over differently, after a
rollback or on another machine, is told anew where the tool can forget (TensorBoard); elsewhere the
first stays.
"""

import contextlib
import math
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import xxhash
from filelock import Timeout
from msgspec import Struct

from nextword.base.errors import NextwordError, RunError
from nextword.base.files import write_json
from nextword.base.records import Count, read_record
from nextword.base.writer import lock_at, take_lock
from nextword.explanation.replay import Judged, Pin, read_pins
from nextword.prediction.loading import run_facts
from nextword.rendering.replay import moment_html, moment_markdown
from nextword.settings import all_options, read_recipe, resolve
from nextword.track.tracker import Known, Tracker, Value, opener
from nextword.training.journal import METRICS

TRACKED = "tracked"
"""Folder in the run's own."""
LOOK_SECONDS = 1.0
TAIL = 1 << 16
"""Bytes before a place in the journal, by which it is known again."""
STEP_NUMBERS = ("loss", "gradient_norm", "rate_factor", "tokens_per_second")
TOLD_IN_WORDS = ("spike", "rollback", "rate", "pace", "pause", "unpause")
_PRIVATE = ("prepared", "key", "warm_start")
"""Facts that name places of this machine, which are nobody's business."""
_DAMAGE = (msgspec.MsgspecError, RecursionError, KeyError, TypeError, ValueError, OverflowError)


class _Told(Struct):
    """How far a tracker was told, as it stands on the disk."""

    id: str | None = None
    where: str = ""
    """How the tool's page is opened."""
    place: Count = 0
    """Bytes of the journal."""
    tail: str = ""
    """Digest of what stands before it."""
    last: dict[str, Count] = {}
    """Step up to which events of each kind were."""
    passed: float = 0.0
    """Seconds that training took by then, what came before the last start counted."""
    before: float = 0.0


class Follower:
    """Hands a run's journal on to one tracker."""

    def __init__(self, run: Path, tool: str) -> None:
        """Read how far it was told; it is opened when there is something to tell.

        Args:
            run: its folder.
            tool: the tracker's name.

        Raises:
            NextwordError: the tool is not installed, or somebody else tells it of this run.
        """
        self._opens = opener(tool)
        self.run, self.tool = run, tool
        folder = run / TRACKED
        folder.mkdir(exist_ok=True)
        self._file = folder / f"{tool}.json"
        self._lock = lock_at(folder / f"{tool}.lock")
        try:
            take_lock(self._lock, 0.0)
        except Timeout:
            raise RunError(f"{run.name}: another process tells {tool} of it already") from None
        known = self._file.is_file()
        self._told = read_record(self._file, _Told, RunError) if known else _Told()
        self._known = known_of(run)
        self._tracker: Tracker | None = None
        self._pins: list[Pin] | None = None
        self._ended = False
        self.count = 0
        """Events that were told."""

    @property
    def tracker(self) -> Tracker:
        """The tool's side; the run that it knows already is gone on with."""
        if self._tracker is None:
            folder = self.run / TRACKED / self.tool
            self._tracker = self._opens(self._known, folder, self._told.id)
            self._told.id, self._told.where = self._tracker.id, self._tracker.where
        return self._tracker

    @property
    def where(self) -> str:
        """How the tool's page is opened."""
        return self._told.where or self.tracker.where

    def follow(self, until: threading.Event | None = None) -> None:
        """Tell what is there and, where `until` is given, what is added before it is set."""
        while True:
            last_look = until is None or until.is_set()
            self._catch_up()
            if last_look:
                return
            assert until is not None
            until.wait(LOOK_SECONDS)

    def _catch_up(self) -> None:
        for line in self._new_lines():
            self._tell(line)
            self._told.place += len(line)
        if self._tracker is not None and (self.run / METRICS).is_file():
            self._tracker.flush()
            with open(self.run / METRICS, "rb") as stream:
                self._told.tail = _digest_before(stream, self._told.place)
            write_json(self._file, msgspec.to_builtins(self._told))

    def _new_lines(self) -> Iterator[bytes]:
        """Yield whole lines after the place; from the first again where the journal went back."""
        with contextlib.suppress(FileNotFoundError), open(self.run / METRICS, "rb") as stream:
            # Whether it still holds, where this one stopped, what it held.
            place = self._told.place
            if place and _digest_before(stream, place) != self._told.tail:
                self._told.place = 0
                self._told.passed = self._told.before = 0.0
                if self.tracker.forget():
                    self._told.last = {}
            stream.seek(self._told.place)
            for line in stream:
                if not line.endswith(b"\n"):
                    return  # not even its rest, should that have come meanwhile: both come later
                yield line

    def _tell(self, line: bytes) -> None:
        try:
            event = msgspec.json.decode(line)
            kind, step = str(event["event"]), int(event["step"])
        except _DAMAGE:
            return
        when = self._when(event)
        self._ended = kind == "end"
        if step > self._told.last.get(kind, -1):
            self._hand_on(kind, step, when, event)
            self._told.last[kind] = step
            self.count += 1

    def _when(self, event: Mapping[str, Any]) -> float:
        """Return the time of an event: clocks begin anew where training was resumed."""
        seconds = event.get("seconds")
        if event["event"] == "step" and isinstance(seconds, int | float):
            if seconds < self._told.before:
                self._told.passed += self._told.before
            self._told.before = float(seconds)
        return self._known.began + self._told.passed + self._told.before

    def _hand_on(self, kind: str, step: int, when: float, event: Mapping[str, Any]) -> None:
        values = dict(_numbers_of(kind, event))
        if values:
            self.tracker.numbers(step, when, values)
        if isinstance(sample := event.get("sample"), str) and sample:
            self.tracker.words(step, when, "it writes", sample)
        if kind == "replay":
            self._hand_on_sentences(step, when, event)
        if kind in TOLD_IN_WORDS:
            told = {key: value for key, value in event.items() if key != "event"}
            self.tracker.words(step, when, f"events/{kind}", msgspec.json.encode(told).decode())

    def _hand_on_sentences(self, step: int, when: float, event: Mapping[str, Any]) -> None:
        if self._pins is None:
            self._pins = read_pins(self.run)
        try:
            judged = msgspec.convert(event["pins"], list[_Judged])
        except (msgspec.MsgspecError, KeyError):
            return
        if [len(one.nats) for one in judged] != [len(pin.ids) for pin in self._pins]:
            return
        found = [
            Judged(tuple(one.nats), tuple(one.likeliest), tuple(one.likeliest_probability))
            for one in judged
        ]
        losses = {f"sentences/{number + 1}": one.loss for number, one in enumerate(found)}
        self.tracker.numbers(step, when, losses)
        self.tracker.page(
            *(step, when, "sentences", moment_html(self._pins, found)),
            moment_markdown(self._pins, found),
        )

    def close(self) -> None:
        """End what the tracker does, and let others tell it of this run."""
        try:
            if self._tracker is not None:
                self._tracker.close(ended=self._ended)
        finally:
            self._lock.release()


class _Judged(Struct):
    nats: list[float]
    likeliest: list[str]
    likeliest_probability: list[float]


def _numbers_of(kind: str, event: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield an event's figures by the names under which trackers show them."""
    found: Iterable[tuple[str, Any]] = ()
    if kind == "step":
        found = ((f"train/{name}", event.get(name)) for name in STEP_NUMBERS)
    elif kind == "evaluation":
        found = ((f"holdout/{name}", value) for name, value in event.items() if name != "step")
    elif kind == "floor":
        found = [("floor/nats_per_token", event.get("nats_per_token"))]
    elif kind == "ruler":
        marks = event.get("marks")
        found = (
            (f"ruler/{mark.get('name')}", mark.get("value"))
            for mark in (marks if isinstance(marks, list) else ())
            if isinstance(mark, dict)
        )
    for name, value in found:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield name, float(value)


def _digest_before(stream: BinaryIO, place: int) -> str:
    begin = max(place - TAIL, 0)
    stream.seek(begin)
    return xxhash.xxh3_64(stream.read(place - begin)).hexdigest()


def known_of(run: Path) -> Known:
    """Gather what a tracker is told of a run when it begins.

    Raises:
        RunError: the run says nothing readable of itself.
    """
    facts = run_facts(run)
    settings: dict[str, Value] = {}
    with contextlib.suppress(NextwordError, OSError):  # of a version that knew other options
        resolved = resolve(read_recipe(run / "settings.toml"))
        for option in all_options():
            value = getattr(getattr(resolved, option.room), option.name)
            is_plain = value is None or isinstance(value, str | int | float | bool)
            settings[option.path] = value if is_plain else ", ".join(map(str, value))
        if source := settings.get("vocabulary.source"):
            settings["vocabulary.source"] = Path(str(source)).name
    for name, value in {**facts, **(facts.get("corpus") or {})}.items():
        if isinstance(value, str | int | float) and name not in _PRIVATE:
            settings.setdefault(f"run.{name}", value)
    for room in ("shape", "plan", "versions", "hardware"):
        for name, value in (facts.get(room) or {}).items():
            if isinstance(value, str | int | float):
                settings[f"{room}.{name}"] = value
    return Known(run, run.name, _began(facts), settings)


def _began(facts: Mapping[str, Any]) -> float:
    with contextlib.suppress(TypeError, ValueError):
        return datetime.strptime(str(facts.get("started")), "%Y-%m-%dT%H:%M:%S%z").timestamp()
    return 0.0
