"""What tasks of others said of a run's model, kept beside the run for its report and its card.

RUN/benchmarks.json   one entry a task and a checkpoint; asked again, the newer one stays
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from nextword.base.errors import RunError
from nextword.base.files import write_json
from nextword.base.records import Count, read_record

BENCHMARKS = "benchmarks.json"


class Leaked(Struct, frozen=True):
    """How much of a task's texts stands, nearly, in what the run has read."""

    share: float
    """Of the tokens that could be compared."""
    texts: Count
    compared: Count
    """Tokens; of texts too short to tell a copy from chance none are."""


class Benchmark(Struct, frozen=True):
    """One task and its figures."""

    task: str
    step: Count | None
    version: str
    documents: Count
    fewshot: Count
    metrics: dict[str, float]
    errors: dict[str, float] = {}
    """Standard errors, by the metric's name, where the harness gives one."""
    leaked: Leaked | None = None
    """None where it was not looked for."""
    harness: str = ""


def read_benchmarks(run: Path) -> list[Benchmark]:
    """Read what was measured of a run; nothing where nothing was.

    Raises:
        RunError: the file is damaged.
    """
    file = run / BENCHMARKS
    return read_record(file, list[Benchmark], RunError) if file.is_file() else []


def keep_benchmarks(run: Path, found: Iterable[Benchmark]) -> None:
    """Write figures down beside those that are there; of the same task and step the newer stays.

    Raises:
        RunError: the file is damaged, or cannot be written.
    """
    known = {_key(one): one for one in read_benchmarks(run)}
    known |= {_key(one): one for one in found}
    whole = [msgspec.to_builtins(known[key]) for key in sorted(known)]
    try:
        write_json(run / BENCHMARKS, whole)
    except OSError as error:
        raise RunError(f"{run / BENCHMARKS}: cannot be written ({error.strerror})") from None


def _key(one: Benchmark) -> tuple[str, int, int, int]:
    return one.task, -1 if one.step is None else one.step, one.fewshot, one.documents
