"""Kill one of several processes over and over, and see that what is learned stays the same.

    python -m tests.elastic [--kills 20] [--processes 3] [--parallel fsdp]

A run is trained undisturbed by so many processes; then once more under `--restarts`, while one of
them, another each time, is killed after some steps. Losses and weights of both are compared.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from nextword.training.checkpoint import list_checkpoints
from tests.place import Place

OPTIONS = (
    "--corpus.stories", "120", "--vocabulary.kind", "byte", "--model.hidden-size", "32",
    "--model.depth", "1", "--model.context", "64", "--training.batch-tokens", "768",
    "--training.checkpoint-every", "5", "--machine.device", "cpu", "--quiet",
)  # fmt: skip


def started_by(process: subprocess.Popen, rank: int) -> int | None:
    """Return one of the processes that another has started, by its own environment."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            names = (place / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if parent == process.pid and f"RANK={rank}".encode() in names:
            return int(place.name)
    return None


def start(place: Place, name: str, *words: str, by: Sequence[str]) -> subprocess.Popen:
    """Begin a training by several processes."""
    environment = {**place.environment(), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", *by, "--name", name, *OPTIONS, *words],
        cwd=place.folder, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def launcher(processes: int, restarts: int, *, torchrun: bool) -> list[str]:
    """Return a command that lets several processes train, and begin again."""
    if not torchrun:
        return ["nextword", "train", f"--processes={processes}", f"--restarts={restarts}"]
    of = [f"--nproc-per-node={processes}", f"--max-restarts={restarts}"]
    return ["torch.distributed.run", "--standalone", *of, "-m", "nextword", "train"]


def steps_of(run: Path) -> list[dict[str, Any]]:
    """Read the steps in a run's log, as far as they are whole."""
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event["event"] == "step":
            found.append(event)
    return found


def done_steps(run: Path) -> int:
    """Return how many steps a run's log holds."""
    steps = steps_of(run)
    return int(steps[-1]["step"]) if steps else 0


def disturb(
    place: Place,
    *,
    kills: int,
    processes: int,
    steps: int,
    torchrun: bool = False,
    parallel: str = "ddp",
) -> dict[str, Any]:
    """Train twice, once disturbed; return what was found. A run called `calm` is taken as it is."""
    last = ("--training.steps", str(steps), "--machine.parallel", parallel)
    name = "again" if torchrun else "hit"
    if not (place.folder / "runs" / "calm").exists():
        calm = start(place, "calm", *last, by=launcher(processes, 0, torchrun=False))
        said = calm.communicate(timeout=600)[1]
        assert calm.returncode == 0, said
    process = start(place, name, *last, by=launcher(processes, kills, torchrun=torchrun))
    run, dice, done = place.folder / "runs" / name, random.Random(0), 0
    began, before = time.monotonic(), set[int | None]()
    for number in range(kills):
        # Some steps after the one where it fell before, so that it does come to its end.
        goal = (number + 1) * steps // (kills + 1)
        victim = None
        while victim is None or done_steps(run) < goal:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() - began < 300 * (number + 1)
            found = victim or started_by(process, number % processes)
            victim = None if found in before else found
            time.sleep(0.005 * dice.random())
        before = {started_by(process, rank) for rank in range(processes)}
        os.kill(victim, signal.SIGKILL)
        done += 1
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said
    told = ("0", "nan", "0")  # torchrun itself says nothing of it
    if not torchrun:
        words = r"^restarts +(\d+); ([\d.]+) s in all .* and ([\d,]+) steps"
        (told,) = re.findall(words, said, re.M)
    weights = [
        load_file(list_checkpoints(run.with_name(one))[-1].folder / "model.safetensors")
        for one in ("calm", name)
    ]
    losses = [[step["loss"] for step in steps_of(run.with_name(one))] for one in ("calm", name)]
    return {
        "processes": processes,
        "parallel": parallel,
        "steps": len(losses[1]),
        "kills": done,
        "restarts": int(told[0]),
        "seconds_until_training_went_on": float(told[1]),
        "seconds_a_failure": round(float(told[1]) / max(done, 1), 2),
        "steps_done_again": int(told[2].replace(",", "")),
        "same losses": losses[0] == losses[1] and len(losses[0]) == steps,
        "same weights": all(one.equal(weights[1][name]) for name, one in weights[0].items()),
    }


def main() -> None:
    """Do it, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--parallel", default="ddp", help="what each process holds")
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = disturb(
            Place(Path(folder)),
            kills=given.kills,
            processes=given.processes,
            steps=given.steps,
            parallel=given.parallel,
        )
    tell(found, given.keep)


def tell(found: Mapping[str, Any], keep: Path | None) -> None:
    """Print what was found, keep it if asked to, and end: well, if nothing has changed."""
    text = json.dumps({"date": time.strftime("%Y-%m-%d"), **found}, indent=2)
    print(text)
    if keep is not None:
        keep.write_text(text + "\n")
    sys.exit(not (found["same losses"] and found["same weights"]))


if __name__ == "__main__":
    main()
