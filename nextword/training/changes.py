"""What has changed since a run began: its machine, its text, the clock."""

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from nextword.machine.about import versions
from nextword.machine.device import Machine
from nextword.training.journal import METRICS


def changes_since(
    folder: Path, facts: Mapping[str, Any], machine: Machine, processes: int = 1
) -> Iterator[str]:
    """Say what is not as it was when a run began, a line each.

    Args:
        folder: of the run.
        facts: that it wrote down.
        machine: that it goes on with.
        processes: that it goes on with.
    """
    yield from _machine(facts, machine)
    if (before := facts.get("processes", 1)) != processes:
        yield (
            f"processes were {before} and are {processes} now: each step reads the same rows, and "
            "its sums are rounded otherwise"
        )
    yield from _weather(folder, facts)


def other_writer(facts: Mapping[str, Any]) -> str | None:
    """Return the version of this program that wrote a run, where it is another one."""
    written: str = facts["versions"]["nextword"]
    return None if written == versions()["nextword"] else written


def _machine(facts: Mapping[str, Any], machine: Machine) -> Iterator[str]:
    """Say what has changed since the run began, so that the rest cannot be the same bit for bit."""
    now = {
        **versions(),
        **{key: machine.describe()[key] for key in ("threads", "name", "precision")},
    }
    then = {
        **facts["versions"],
        **{key: facts["hardware"][key] for key in ("threads", "name", "precision")},
    }
    for key in ("torch", "threads", "name", "precision"):
        if now[key] != then[key]:
            yield (
                f"{key} was {then[key]} and is {now[key]} now: "
                "the rest will not be the same bit for bit"
            )


def _weather(folder: Path, facts: Mapping[str, Any]) -> Iterator[str]:
    """Say what has become of a run's text, and of the clock, while it stood still."""
    log = folder / METRICS
    ahead = log.stat().st_mtime - time.time() if log.is_file() else 0.0
    if ahead > CLOCK_SECONDS:
        yield (
            f"this machine's clock stands {ahead / 3600:,.1f} hours before the run's last word: it "
            "was set back, and nothing here depends on it"
        )
    if "prepared" not in facts:
        return  # examples are compared by their digests
    try:
        began = datetime.strptime(str(facts.get("started")), "%Y-%m-%dT%H:%M:%S%z").timestamp()
    except ValueError:
        began = float("inf")
    for name in facts["paths"]:
        path = Path(name)
        if path.is_absolute() and not path.exists():
            yield f"{name} is gone; the run goes on with what was prepared of it"
        elif path.is_file() and path.stat().st_mtime > began + 1:
            yield f"{name} was written to since; the run goes on with what was prepared of it"


CLOCK_SECONDS = 60.0
"""By which a clock may stand behind a file's without a word."""
