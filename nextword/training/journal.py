"""The training log, metrics.jsonl: one JSON event a line, flushed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nextword.base.files import publish, sync_file

METRICS = "metrics.jsonl"
ENDS = ("floor", "ruler", "end")
"""Events of a run's end, which comes again where the run goes on."""


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
        kept = [line for line in self.read() if line["step"] <= step and line["event"] not in ENDS]
        aside = self.file.with_suffix(".aside")
        aside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        publish(aside, self.file)

    def has_ended(self) -> bool:
        """Whether the run came to its end, its last words included."""
        return any(event["event"] == "end" for event in self.read())

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the events; lines that are none (cut short by a crash, damaged) are left out."""
        if not self.file.is_file():
            return
        with open(self.file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                event = _event(line) if line.endswith("\n") else None
                if event is not None:
                    yield event


def _event(line: str) -> dict[str, Any] | None:
    """Read a line, if it is an event."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict):
        return None
    known = isinstance(event.get("event"), str) and type(event.get("step")) is int
    return event if known else None


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
