"""Several processes train one run: saved by the first, gone back and gone on with by all."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from nextword.training.checkpoint import find_damage, list_checkpoints
from tests.training.test_bad_weather import OPTIONS, log

POISONED = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from nextword.cli import main
from tests.training.poisoned import poison

poison({{int(sys.argv[1])}})
main(sys.argv[2:])
sys.stderr.flush()
os._exit(0)  # gloo's threads may still be ending, which aborts an orderly exit now and then
"""


def by_two(place, poisoned, *words):
    """Run a command in two processes, a batch of one step being poisoned; return what was said."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    base = {
        **place.environment(), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", POISONED, str(poisoned), *words],
            cwd=place.folder, env={**base, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return said[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="gloo's processes are tried where these are")
def test_two_processes_save_go_back_and_go_on(place):
    asked = [*OPTIONS, "--training.on-nan", "rollback", "--training.checkpoint-every", "10"]
    said = by_two(place, 24, "train", "--name", "it", *asked)
    assert "the last good checkpoint is it@20: it goes on from there" in said
    run = place.folder / "runs" / "it"
    assert [(event["step"], event["left_out"]) for event in log(run, "rollback")] == [(20, 24)]
    assert [event["step"] for event in log(run, "step")] == list(range(1, 41))
    assert [point.step for point in list_checkpoints(run)] == [10, 20, 30, 40]
    assert not [one for one in list_checkpoints(run) if find_damage(one.folder, whole=True)]
    shutil.copytree(run, run.with_name("again"))
    by_two(place, -1, "train", "--resume", "again@20")
    last = "checkpoints/step-000040/model.safetensors"
    whole, again = (load_file(run.with_name(name) / last) for name in ("it", "again"))
    # The batch that was left out is left out again, though nothing is wrong with it now.
    assert all(weight.equal(again[name]) for name, weight in whole.items())
    assert log(run, "step") == log(run.with_name("again"), "step")
