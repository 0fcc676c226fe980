"""What a run has written down on the way, and must know again when it goes on."""

from pathlib import Path

from nextword.training.journal import Journal
from nextword.training.loop import REMEMBERED_NORMS
from nextword.training.schedule import Pace


def halved_by(journal: Journal, step: int) -> int | None:
    """Return the rows that a run holds at once since its memory did not suffice; None if it did."""
    events = journal.read("micro_batch")
    return next((event["rows"] for event in events if event["step"] <= step), None)


def norms_of(journal: Journal, step: int) -> list[float]:
    """Return the lengths of the gradients that a run remembers at a step."""
    norms: list[float] = []
    for event in journal.latest("step"):
        norm = event.get("gradient_norm")
        if event["step"] <= step and norm is not None:
            norms.append(float(norm))
        if len(norms) == REMEMBERED_NORMS:
            break
    return norms[::-1]


def note_processes(journal: Journal, step: int, begun: int, now: int) -> None:
    """Write down that a run goes on with another number of processes than it had.

    Args:
        journal: of the run, up to that step.
        step: done before.
        begun: with how many it began.
        now: with how many it goes on.
    """
    known = [event["processes"] for event in journal.read("processes")]
    if [begun, *known][-1] != now:
        journal.write({"event": "processes", "step": max(step, 0), "processes": now})


def left_out_by(journal: Journal, step: int) -> set[int]:
    """Return the steps whose batches a run has left out since it went back to a step or before."""
    back = journal.read("rollback")
    return {event["left_out"] for event in back if event["step"] <= step}


def follow_journal(pace: Pace, folder: Path, step: int) -> None:
    """Change a pace as a run's log says that it had changed up to a step."""
    for event in Journal(folder).read("pace"):
        if event["step"] <= step:
            pace.change(event["step"], event["steps"])


def follow_rates(pace: Pace, folder: Path) -> None:
    """Lower the rate as a run's log says that it was lowered, before this step and after it.

    Somebody's wish is part of the run: who goes the same way again comes to it again.
    """
    for event in Journal(folder).read("rate"):
        pace.slow_down(event["step"], event["scale"])
