"""Command line: one training by several processes, which begin again where one fails."""

import itertools
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nextword.base.errors import SettingsError
from nextword.cli.program import GIVEN, leave, say
from nextword.machine.slurm import as_torchrun_would

WRONG = 2
"""Status of what the user can mend, and another trial cannot."""
LOOK_SECONDS = 0.1
DIVIDING = ("machine.parallel", "machine.tensor", "machine.context")
"""Options that say how several processes divide the work."""


class Several(NamedTuple):
    """What was asked for."""

    processes: int | None
    restarts: int
    name: str | None
    resume: str | None
    steps: int | None
    again: bool
    """Whether to go on with the run of this name, where there is one."""


def in_processes(
    asked: Several, paths: Sequence[str], builtin: str, *, dry_run: bool
) -> str | None:
    """Let several processes do what was asked, and end as they do; return in each of them.

    Args:
        asked: how many, how often they may begin again, and which run it is.
        paths: of the text, by which the run is named where nothing else is said.
        builtin: the same, where there is none.
        dry_run: whether nothing is to be trained.

    Returns:
        the run to go on with, if any.

    Raises:
        SettingsError: it cannot be done so.
    """
    count = 1 if asked.processes is None else asked.processes
    if count < 1 or (dry_run and asked.processes is not None):
        raise SettingsError("--processes is at least 1, and not with --dry-run, which is for one")
    if asked.restarts < 0:
        raise SettingsError("--restarts is at least 0")
    os.environ.update(as_torchrun_would(os.environ))
    if "WORLD_SIZE" in os.environ or (count == 1 and not asked.restarts):
        return _goes_on_with(asked)
    from nextword.machine.launch import launch

    run, command = _run_of(asked, paths, builtin)
    lost = _Lost(run)
    ended = launch(command, count)
    for number in range(1, asked.restarts + 1):
        if not ended.failed or ended.status == WRONG:
            break
        say(f"{ended.failed}; {lost.begins_again()} (restart {number} of {asked.restarts})")
        ended = launch(_again(asked, run, command), count)
        lost.has_gone_on()
    if words := lost.words():
        say(words)
    if ended.words:
        leave(ended.words, ended.status)
    sys.exit(ended.status)


def _goes_on_with(asked: Several) -> str | None:
    """Return the run to go on with: also where torchrun has started it once more.

    What is begun again after its end has nothing to do, and ends well.

    Raises:
        SettingsError: it would begin another one.
    """
    begun_again = asked.again or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if asked.resume is not None or not begun_again:
        return asked.resume
    if asked.name is None:
        raise SettingsError("a training that may be restarted is given a --name, to find it again")
    if not _is_there(asked.name):
        return None
    if _is_done(asked.name, asked.steps):
        say(f"{asked.name} has done all its steps")
        sys.exit(0)
    return asked.name


def _is_there(name: str) -> bool:
    from nextword.prediction.loading import FACTS, runs_folder

    return (runs_folder() / name / FACTS).is_file()


def _is_done(name: str, steps: int | None) -> bool:
    """Whether a run has come to its end, its last words included, and no step more is asked for."""
    from nextword.prediction.loading import find_run
    from nextword.training.journal import Journal

    log = Journal(find_run(name))
    return log.has_ended() and (
        steps is None or steps <= max(log.curve(float("inf"))[0], default=0)
    )


def _run_of(asked: Several, paths: Sequence[str], builtin: str) -> tuple[Path, list[str]]:
    """Return the run's folder, and the command that trains it under this name."""
    from nextword.prediction.loading import find_run
    from nextword.run import new_folder

    if asked.resume is not None:
        return find_run(asked.resume.partition("@")[0]), list(GIVEN)
    if asked.again and asked.name is not None and _is_there(asked.name):
        return find_run(asked.name), list(GIVEN)
    folder = new_folder(asked.name, paths, builtin)
    return folder, [*GIVEN, *(["--name", folder.name] if asked.name is None else [])]


def _again(asked: Several, run: Path, command: Sequence[str]) -> list[str]:
    """Return the command that goes on with a run, or begins it where there is none yet."""
    from nextword.prediction.loading import FACTS

    if not (run / FACTS).is_file():
        return list(command)
    told = [word for word in command if word in ("--quiet", "--json", "--watch")]
    trackers = [f"--track={tool}" for tool in _values(command, "--track")]
    steps = (
        [] if asked.steps is None or asked.resume is None else [f"--training.steps={asked.steps}"]
    )
    ways = [
        f"{option}={_values(command, option)[-1]}"
        for option in (f"--{name}" for name in DIVIDING)
        if _values(command, option)
    ]
    return [command[0], "--resume", str(run), *steps, *ways, *trackers, *told]


def _values(command: Sequence[str], option: str) -> list[str]:
    """Return what was given for an option that may be repeated."""
    found = [word.partition("=")[2] for word in command if word.startswith(f"{option}=")]
    pairs = itertools.pairwise(command)
    return found + [value for word, value in pairs if word == option]


class _Lost:
    """Counts what failures cost: steps that are done again, and time until training goes on."""

    def __init__(self, run: Path) -> None:
        self.run, self.steps, self.seconds, self.times = run, 0, 0.0, 0
        self._thread: threading.Thread | None = None

    def begins_again(self) -> str:
        """Note a failure; say where it goes on from."""
        from nextword.training.checkpoint import list_checkpoints
        from nextword.training.journal import METRICS, Journal

        self.times += 1
        is_there = (self.run / METRICS).is_file()
        steps = Journal(self.run).curve(float("inf"))[0] if is_there else []
        done = steps[-1] if steps else 0
        saved = list_checkpoints(self.run) if is_there else []
        begins = saved[-1].step if saved else 0
        self.steps += max(done - begins, 0)
        self._thread = threading.Thread(target=self._look, args=(time.monotonic(),), daemon=True)
        self._is_over = threading.Event()
        self._thread.start()
        return f"after step {done:,} all go on from step {begins:,}"

    def _look(self, since: float) -> None:
        """Wait until the log is written anew."""
        from nextword.training.journal import METRICS

        def written() -> int:
            try:
                return (self.run / METRICS).stat().st_mtime_ns
            except OSError:
                return 0

        before = written()
        while written() == before and not self._is_over.wait(LOOK_SECONDS):
            pass
        self.seconds += time.monotonic() - since

    def has_gone_on(self) -> None:
        """Look no longer, whether or not it did."""
        assert self._thread is not None
        self._is_over.set()
        self._thread.join()

    def words(self) -> str:
        """Say what was lost, if anything."""
        if not self.times:
            return ""
        return (
            f"restarts    {self.times}; {self.seconds:.1f} s in all until training went on, and "
            f"{self.steps:,} steps were done again"
        )
