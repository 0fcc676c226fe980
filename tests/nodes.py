"""Let a machine leave and come back over and over, and see that what is learned stays the same.

    python -m tests.nodes [--changes 20] [--parallel fsdp] [--keep FILE]

Two of torch's agents on this machine stand for two machines (`--nnodes=1:2`). One is killed, with
what it has started; the other goes on alone; an agent comes, and both go on together. The log says
from which step on how many processes trained. Then the same is done undisturbed, with as many
processes from the same steps on, and losses and weights are compared.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from nextword.training.checkpoint import list_checkpoints
from nextword.training.journal import Journal
from tests.elastic import OPTIONS, done_steps, started_by, steps_of, tell
from tests.place import Place
from tests.several import together

SOON = "join_timeout=120,last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=5"
"""How long agents wait for each other; by default a lost one is missed after 15 seconds."""
STEPS = 40
"""Between two changes, at least."""


def agent(place: Place, port: int, words: Sequence[str], said: Path) -> subprocess.Popen:
    """Begin an agent, which begins a process."""
    environment = {
        **place.environment(), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1",
        "--max-restarts=1000", "--rdzv-id=nodes", "--rdzv-backend=c10d", "--monitor-interval=0.1",
        f"--rdzv-endpoint=127.0.0.1:{port}", f"--rdzv-conf={SOON}",
        "-m", "nextword", "train", "--name=nodes", "--again", *words,
    ]  # fmt: skip
    with open(said, "a", encoding="utf-8") as stream:
        return subprocess.Popen(command, cwd=place.folder, env=environment, stderr=stream)


def end(one: subprocess.Popen) -> None:
    """End an agent and what it has started, as a machine ends."""
    processes = [one.pid, *(started_by(one, rank) for rank in range(2))]
    for process in processes:
        if process is not None:
            os.kill(process, signal.SIGKILL)
    one.wait()


def started_at(run: Path) -> list[tuple[int, int]]:
    """Return from which steps on a run went on with how many processes."""
    facts = json.loads((run / "run.json").read_text())
    changes = [(event["step"], event["processes"]) for event in Journal(run).read("processes")]
    return [(0, facts["processes"]), *changes]


def come_and_go(place: Place, *, changes: int, parallel: str) -> dict[str, Any]:
    """Train while machines come and go; then undisturbed with the same order of processes.

    It ends some steps after the last change, by SIGTERM, however fast it went meanwhile.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    words = [*OPTIONS, "--training.steps=100000", f"--machine.parallel={parallel}"]
    said, run = place.folder / "said", place.folder / "runs" / "nodes"
    stays = agent(place, port, words, said)
    _wait(lambda: _listens(port), stays, said)
    comes: subprocess.Popen | None = agent(place, port, words, said)
    lost = 0.0
    try:
        _wait(lambda: started_at(run)[-1][1] == 2, stays, said)
        for _ in range(changes):
            goal = started_at(run)[-1][0] + STEPS
            _wait(lambda goal=goal: done_steps(run) >= goal, stays, said)
            now = time.monotonic()
            if comes is not None:
                end(comes)
                comes = None
            else:
                comes = agent(place, port, words, said)
            count = 1 if comes is None else 2
            _wait(lambda count=count: started_at(run)[-1][1] == count, stays, said)
            at = started_at(run)[-1][0]
            _wait(lambda at=at: done_steps(run) > at, stays, said)
            lost += time.monotonic() - now
        goal = started_at(run)[-1][0] + STEPS
        _wait(lambda: done_steps(run) >= goal, stays, said)
        for one in filter(None, (stays, comes)):
            one.terminate()
        for one in filter(None, (stays, comes)):
            one.wait(timeout=60)
    finally:
        for one in (stays, comes):
            if one is not None and one.poll() is None:
                end(one)
    steps, order = list_checkpoints(run)[-1].step, started_at(run)
    ends = [*(step for step, _ in order[1:]), steps]
    for number, ((_, count), last) in enumerate(zip(order, ends, strict=True)):
        begins = ["--name", "calm", *words] if number == 0 else ["--resume", "calm"]
        ended = together(place, count, ["train", *begins], UPTO=str(last))
        assert list_checkpoints(run.with_name("calm"))[-1].step == last, ended
    losses = [[one["loss"] for one in steps_of(run.with_name(n))] for n in ("calm", "nodes")]
    weights = [
        load_file(list_checkpoints(run.with_name(one))[-1].folder / "model.safetensors")
        for one in ("calm", "nodes")
    ]
    return {
        "parallel": parallel,
        "steps": steps,
        "changes": len(order) - 1,
        "processes": order,
        "seconds_a_change": round(lost / max(changes, 1), 2),
        "same losses": losses[0] == losses[1][:steps] and len(losses[0]) == steps,
        "same weights": all(one.equal(weights[1][name]) for name, one in weights[0].items()),
    }


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def _wait(until: Any, process: subprocess.Popen, said: Path) -> None:
    ends = time.monotonic() + 120
    while not (process.poll() is None and _is(until)):
        assert process.poll() is None, said.read_text()[-9000:]
        assert time.monotonic() < ends, said.read_text()[-9000:]
        time.sleep(0.02)


def _is(until: Any) -> bool:
    try:
        return bool(until())
    except (OSError, ValueError):  # not there yet, or half written
        return False


def main() -> None:
    """Do it, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=20)
    parser.add_argument("--parallel", default="fsdp", help="what each process holds")
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = come_and_go(Place(Path(folder)), changes=given.changes, parallel=given.parallel)
    tell(found, given.keep)


if __name__ == "__main__":
    main()
