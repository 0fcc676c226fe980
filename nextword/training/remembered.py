"""What a run has written down on the way, and must know again when it goes on."""

from nextword.training.journal import Journal
from nextword.training.loop import REMEMBERED_NORMS


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


def left_out_by(journal: Journal, step: int) -> set[int]:
    """Return the steps whose batches a run has left out since it went back to a step or before."""
    back = journal.read("rollback")
    return {event["left_out"] for event in back if event["step"] <= step}
