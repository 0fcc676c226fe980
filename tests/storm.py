"""A storm of kills over training runs, and the verdict: are they what undisturbed ones are?

    python -m tests.storm --kills 200 (or --runs 15)

A small run is started, killed (-9) at a moment of a chosen phase, gone on with, killed again, until
it is done; then the next. Each finished run must hold, bit for bit, what a run has that nobody
killed: weights, optimizer state, and a log with each step once (all but the clocks). Every child is
a process of its own, forked before anything is computed, that kills itself where it was told to:
between two steps, in the middle of a file, before a rename, after it, in the middle of going on.
Prints the kills by phase.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors.torch import load_file

PHASES = (
    "preparing", "begin", "first", "step", "log", "evaluation", "write", "fsync", "rename",
    "pruning", "resume", "ending",
)  # fmt: skip
CALLS = {
    "begin": (0, 1), "first": (0, 4), "step": (4, 20), "log": (2, 20), "fsync": (0, 12),
    "resume": (0, 1), "ending": (0, 1),
}  # fmt: skip
"""Which call of a phase kills, where it is not one of the first three."""
OPTIONS = [
    "--corpus.stories", "40", "--vocabulary.kind", "byte", "--model.depth", "1",
    "--model.hidden-size", "32", "--model.context", "32", "--training.batch-tokens", "128",
    "--training.steps", "24", "--training.evaluate-every", "6", "--training.checkpoint-every", "4",
    "--machine.threads", "1", "--machine.device", "cpu", "--quiet",
]  # fmt: skip
LEAST = 5
"""Kills of each phase in a storm that is worth its name."""
LAST = "step-000024"
DIRECT = getattr(os, "O_DIRECT", 0)
CLOCKS = {"seconds", "tokens_per_second"}


def die() -> None:
    """End at once, as a machine that loses its power."""
    os.kill(os.getpid(), signal.SIGKILL)


class Killer:
    """Puts what kills this process into the place that a phase goes through."""

    def __init__(self, phase: str, dice: random.Random, folder: Path) -> None:
        """Throw the dice: the so-many-th call of the phase, before it or after it."""
        self.after, self.dice, self.folder = dice.random() < 0.5, dice, folder
        self.left = dice.randrange(*CALLS.get(phase, (0, 3)))
        getattr(self, f"in_{phase}")()

    def is_due(self) -> bool:
        """Count a call."""
        self.left -= 1
        return self.left < 0

    def at(self, owner: object, name: str, fits: Callable[..., bool] = lambda *_: True) -> None:
        """Die at a call that fits, before it or after it."""
        real = getattr(owner, name)

        def wrapped(*args: object, **kwargs: object) -> object:
            is_due = fits(*args) and self.is_due()
            if is_due and not self.after:
                die()
            result = real(*args, **kwargs)
            if is_due:
                die()
            return result

        setattr(owner, name, wrapped)

    def in_preparing(self) -> None:
        """Die while text is prepared, at a file that gets its name."""
        from nextword.base import files

        cache = self.folder / "cache"
        self.at(files.os, "replace", lambda _, final: Path(final).is_relative_to(cache))

    def in_begin(self) -> None:
        """Die when the run's folder gets its name."""
        from nextword.base import files

        run = self.folder / "runs" / "it"
        self.at(files.os, "replace", lambda _, final: Path(final) == run)

    def in_step(self) -> None:
        """Die at a step of the optimizers."""
        from nextword.training import loop

        self.at(loop, "move")

    in_first = in_step

    def in_log(self) -> None:
        """Die in the middle of a line of the log."""
        from nextword.training.journal import Journal

        real = Journal.write

        def half(journal: Journal, event: dict) -> None:
            if not self.is_due():
                return real(journal, event)
            with open(journal.file, "a") as stream:
                stream.write(json.dumps(event)[:17])
            return die()

        Journal.write = half

    def in_evaluation(self) -> None:
        """Die while held-out text is scored."""
        from nextword.prediction import evaluate

        self.at(evaluate, "_score")

    def in_write(self) -> None:
        """Die in the middle of a checkpoint's file."""
        from nextword.machine.copies import Copies

        real = Copies.write

        def torn(copies: Copies, file: Path, metadata: dict | None = None) -> str:
            digest = real(copies, file, metadata)
            if self.is_due():
                os.truncate(file, file.stat().st_size // 2)
                die()
            return digest

        Copies.write = torn

    def in_fsync(self) -> None:
        """Die where bytes are waited for."""
        from nextword.base import files

        self.at(files.os, "fsync")

    def in_rename(self) -> None:
        """Die when a checkpoint gets its name."""
        from nextword.training import checkpoint

        self.at(checkpoint, "publish")

    def in_pruning(self) -> None:
        """Die when half of an old checkpoint is deleted."""
        from nextword.training import checkpoint

        real = checkpoint.shutil.rmtree

        def some(place: Path, **kwargs: object) -> None:
            if Path(place).suffix == ".gone" and self.is_due():
                for file in sorted(Path(place).rglob("*.safetensors")):
                    file.unlink()
                die()
            real(place, **kwargs)

        checkpoint.shutil.rmtree = some

    def in_resume(self) -> None:
        """Die in the middle of going on."""
        from nextword import callbacks, fit, run
        from nextword.training import journal

        places = [
            (fit, "go_back"), (run, "mend_checkpoints"), (journal, "sync_file"),
            (callbacks, "Journal"),
        ]  # fmt: skip
        self.at(*self.dice.choice(places))

    def in_ending(self) -> None:
        """Die after the last step, where the loss is compared and told of."""
        from nextword import language_modeling

        self.at(language_modeling, self.dice.choice(["floor_of", "measure_ruler", "describe_end"]))


def attempt(phase: str | None, seed: int, folder: Path, *, past: bool = False) -> int:
    """Start the run, or go on with it, in a child; return its status, negative where killed.

    Args:
        phase: in which it is killed.
        seed: of the moment.
        folder: where the run lies.
        past: whether its small files go past the page cache, as those of large models do.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 70
    try:
        from nextword.cli import main

        os.chdir(folder)
        os.environ.update(NEXTWORD_RUNS=str(folder / "runs"), NEXTWORD_CACHE=str(folder / "cache"))
        words = open(folder / "said.txt", "a")  # noqa: SIM115 - this process is about to die
        os.dup2(words.fileno(), 1)
        os.dup2(words.fileno(), 2)
        if past:
            write_past(folder)
        begins = not (folder / "runs" / "it" / "run.json").is_file()
        if phase is not None:
            Killer(phase, random.Random(seed), folder)
        main(["train", *(["--name", "it", *OPTIONS] if begins else ["--resume", "it", "--quiet"])])
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 70
    finally:
        os._exit(status)


def write_past(folder: Path) -> None:
    """Let this process' checkpoints go past the page cache, and note each file that did."""
    from nextword.machine import copies

    copies.WORTH_GOING_PAST = 0
    real = copies._write

    def noted(file: Path, flags: int, *rest: object) -> None:
        real(file, flags, *rest)
        if flags & DIRECT:
            with open(folder / "past.txt", "a") as notes:
                print(file.name, file=notes)

    copies._write = noted


def can_go_past(folder: Path) -> bool:
    """Whether the disk of a folder takes memory past the page cache."""
    if not DIRECT:
        return False
    try:
        os.close(os.open(folder / "try", os.O_WRONLY | os.O_CREAT | DIRECT))
    except OSError:
        return False
    return True


def whole_log(run: Path) -> list[dict]:
    """Return a run's log without its clocks."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines]


def differences(run: Path, reference: Path) -> list[str]:
    """Say in what a run is not what the undisturbed one is."""
    found = []
    if whole_log(run) != whole_log(reference):
        found.append("metrics.jsonl")
    kept = [
        sorted(file.name for file in (one / "checkpoints").iterdir()) for one in (run, reference)
    ]
    if kept[0] != kept[1]:
        found.append(f"checkpoints {kept[0]}, not {kept[1]}")
        return found
    for part in ("model.safetensors", "training/optimizer.safetensors"):
        one, two = (load_file(place / "checkpoints" / LAST / part) for place in (run, reference))
        if one.keys() != two.keys() or not all(one[name].equal(two[name]) for name in one):
            found.append(part)
    return found


@contextlib.contextmanager
def storm_folder() -> Iterator[Path]:
    """A folder for all of it, on a disk in memory where there is one."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as place:
        yield Path(place)


def storm(kills: int, seed: int = 0, runs: int | None = None) -> dict:
    """Kill so often; return the kills by phase, the runs that were finished and what differs.

    Args:
        kills: how many.
        seed: of the moments.
        runs: stop after so many finished runs, if that comes first.
    """
    dice, counted = random.Random(seed), collections.Counter()
    wrong: list[str] = []
    finished = past = 0
    with storm_folder() as place:
        reference = place / "reference"
        reference.mkdir()
        if (status := attempt(None, 0, reference)) != 0:
            raise SystemExit(f"{status}: {(reference / 'said.txt').read_text()}")
        while sum(counted.values()) < kills and (runs is None or finished < runs):
            folder = place / f"storm-{finished}"
            folder.mkdir()
            for _ in range(60):
                phase = min(dice.sample(PHASES, 3), key=lambda one: counted[one])
                if sum(counted.values()) >= kills:
                    phase = None
                goes_past = finished % 2 == 1
                status = attempt(phase, dice.randrange(1 << 30), folder, past=goes_past)
                if status == -signal.SIGKILL:
                    counted[phase] += 1
                    continue
                break
            else:
                status = attempt(None, 0, folder)
            if status != 0:
                wrong.append(
                    f"run {finished}: {status}: {(folder / 'said.txt').read_text()[-2000:]}"
                )
            else:
                found = differences(folder / "runs" / "it", reference / "runs" / "it")
                wrong += [f"run {finished}: {one}" for one in found]
            finished += 1
            past += (folder / "past.txt").is_file()
            shutil.rmtree(folder)
    return {"kills": dict(counted), "runs": finished, "past": past, "wrong": wrong}


def main() -> None:
    """Let it storm, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--runs", type=int, help="so many runs instead, however often killed")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began = time.monotonic()
    kills = given.kills if given.runs is None else 1 << 60
    found = storm(kills, given.seed, given.runs)
    few = [phase for phase in PHASES if found["kills"].get(phase, 0) < LEAST]
    for phase in PHASES:
        print(f"{phase:<12}{found['kills'].get(phase, 0):>6}")
    seconds = time.monotonic() - began
    print(f"{found['runs']} runs finished in {seconds:.0f} s, {found['past']} past the page cache")
    print("\n".join(found["wrong"]) or "all of them are bit for bit what an undisturbed run is")
    if few and given.runs is None and kills >= 2 * LEAST * len(PHASES):
        found["wrong"].append(f"fewer than {LEAST} kills in {', '.join(few)}")
        print(found["wrong"][-1])
    sys.exit(bool(found["wrong"]))


if __name__ == "__main__":
    main()
