"""What a run is foreseen to take and to come to."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

ABOVE_FLOOR = (1.015, 1.018, 1.022)
"""What the default needs on stories, in units of the least possible (`benchmarks/odds.py`)."""
TYPICAL: tuple[tuple[float, float, float], ...] = (
    (4.0, 0.96, 0.06),
    (5.0, 0.957, 0.045),
    (5.5, 0.95, 0.05),
    (6.0, 0.91, 0.05),
)
"""(log10 of the text's bytes, what the default needs in units of what the 5-gram does, how far that
has been off either way): at 10 and 100 kB nine texts (`benchmarks/results/own_text.json` and
EXPERIMENTS.md; C headers of 10 kB lie below), at 300 kB and a megabyte one or two, so there it is a
guess."""


@dataclass(frozen=True)
class Forecast:
    """What a run will take, and what it should come to."""

    parameters: int
    steps: int
    tokens: int
    readings: float
    step_seconds: float
    """Of one step, the median of those that were timed."""
    seconds: float
    """From the first step to the end."""
    memory_bytes: int | None
    """The most held at once: of the process, or on the accelerator."""
    disk_bytes: int
    """Of the run's folder at most: the best checkpoint and the last, and the log."""
    flops: float
    """Of all steps."""
    expected: tuple[float, float, float] | None
    """Bits a byte on the hold-out: the least, the likeliest, the most; None where not known."""
    counted: float | None
    """Bits a byte of counting (the 5-gram), which the expectation goes by."""
    teachers: int = 0
    """Networks that are trained before it and teach it; seconds, disk and flops are with theirs."""
    floor: float | None = None
    """The least bits a byte possible, where that is known; then the expectation goes by it."""

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return dict(vars(self))


def expectation(counted: float, num_bytes: int) -> tuple[float, float, float]:
    """Return what the default should come to, in bits a byte: least, likeliest, most.

    Args:
        counted: bits a byte of the 5-gram on the hold-out.
        num_bytes: of the whole text.
    """
    sizes, factors, spreads = zip(*TYPICAL, strict=True)
    size = math.log10(max(num_bytes, 1))
    factor, spread = (float(np.interp(size, sizes, row)) for row in (factors, spreads))
    return counted * (factor - spread), counted * factor, counted * (factor + spread)
