"""What a server has done so far, as Prometheus reads it."""

import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping

BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds of the histogram's steps."""


class Metrics:
    """Counts, and how long first tokens took."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._within = [0] * len(BOUNDS)
        self._waits, self._waited = 0, 0.0

    def count(self, what: str, number: int = 1) -> None:
        """Count something."""
        with self._lock:
            self._counts[what] += number

    def first_token(self, seconds: float) -> None:
        """Note how long after its request a text's first token came."""
        with self._lock:
            self._waits += 1
            self._waited += seconds
            for place, bound in enumerate(BOUNDS):
                self._within[place] += seconds <= bound

    def lines(self, model: str, now: Mapping[str, int]) -> list[str]:
        """Return lines of Prometheus' text format.

        Args:
            model: its name.
            now: what is under way.
        """
        name = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        label = f'{{model="{name}"}}'
        with self._lock:
            found = [f"nextword_{key}_total{label} {n}" for key, n in sorted(self._counts.items())]
            found += [f"nextword_{key}{label} {number}" for key, number in now.items()]
            series = "nextword_time_to_first_token_seconds"
            for bound, number in zip((*BOUNDS, "+Inf"), (*self._within, self._waits), strict=True):
                found.append(f'{series}_bucket{{model="{name}",le="{bound}"}} {number}')
            found.append(f"{series}_sum{label} {self._waited:.6f}")
            found.append(f"{series}_count{label} {self._waits}")
        return found


def exposition(lines: Iterable[str]) -> str:
    """Bring the lines of all models together, each figure's under what kind it is.

    Args:
        lines: as `Metrics.lines` returns them.
    """
    families: dict[str, list[str]] = {}
    for line in lines:
        name = line.partition("{")[0]
        family = name if name.endswith("_total") else _PART.sub("", name)
        families.setdefault(family, []).append(line)
    found = []
    for family, members in families.items():
        kind = "counter" if family.endswith("_total") else "gauge"
        kind = "histogram" if any("_bucket{" in line for line in members) else kind
        found += [f"# TYPE {family} {kind}", *members]
    return "\n".join(found) + "\n"


_PART = re.compile(r"(?<=_seconds)_(bucket|sum|count)$")
