"""The training log, metrics.jsonl: one JSON event a line, flushed."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


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

    def forget_after(self, step: int) -> None:
        """Drop what was written after a step: a resumed run goes that way again."""
        if not self.file.is_file():
            return
        kept = [line for line in self.read() if line.get("step", 0) <= step]
        aside = self.file.with_suffix(".aside")
        aside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        os.replace(aside, self.file)

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the events; a last line cut short by a crash is left out."""
        if not self.file.is_file():
            return
        with open(self.file, encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)


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
