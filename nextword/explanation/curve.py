"""What a run's own curve says of a larger network."""

from collections.abc import Sequence

LAYER_BY_QUARTER = 1.5
"""What a third layer brings, in units of what the last quarter of the steps brought two layers: 1.5
to 1.6 on 300 kB of plays, manuals, verse and quotations, where that was 0.9 to 2.6 %; 0.8 and 1.3
on 100 kB (EXPERIMENTS.md; `benchmarks/gains.py` measures it)."""
NEAR = 0.1
"""Of the run, by which a moment may be off three quarters of it."""


def last_quarter(curve: Sequence[tuple[int, float]]) -> float | None:
    """Return the share by which a loss fell over the last quarter of a run.

    Args:
        curve: (step, loss on the part of the hold-out that is scored on the way), in order.

    Returns:
        a share, below 0 where it rose; None where nothing was scored about there.
    """
    if not curve:
        return None
    end, last = curve[-1]
    step, before = min(curve, key=lambda one: abs(one[0] - 0.75 * end))
    if abs(step - 0.75 * end) > NEAR * end or not before > 0:
        return None
    return 1 - last / before


def gain_of_a_layer(fell: float) -> float:
    """Return the share by which one more layer should lower the loss.

    Args:
        fell: as `last_quarter` gives it.
    """
    return max(LAYER_BY_QUARTER * fell, 0.0)
