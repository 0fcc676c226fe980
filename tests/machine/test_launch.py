"""One command, several processes: the first speaks, all end together."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed

from nextword.base.errors import is_left_alone
from nextword.training.checkpoint import find_damage, list_checkpoints
from tests.training.test_bad_weather import log

OPTIONS = (
    "--corpus.stories", "120", "--vocabulary.kind", "byte", "--model.hidden-size", "32",
    "--model.depth", "1", "--model.context", "64", "--training.batch-tokens", "512",
    "--machine.device", "cpu", "--machine.precision", "float32",
)  # fmt: skip


def started(place, *words):
    environment = {**place.environment(), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "nextword", "train", "--processes", "2", *OPTIONS, *words],
        cwd=place.folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def started_by(process, rank):
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


def wait_for_steps(place, run, steps):
    folder, until = place.folder / "runs" / run, time.monotonic() + 120
    while time.monotonic() < until:
        is_there = (folder / "metrics.jsonl").exists()
        if is_there and sum("loss" in event for event in log(folder)) >= steps:
            return
        time.sleep(0.1)
    raise AssertionError("it does not train")


def test_two_processes_learn_what_one_does_and_one_of_them_speaks(place):
    exact = ("--training.steps", "6", "--training.optimizer", "adamw")
    process = started(place, "--name", "two", *exact)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    alone = place.nextword("train", *OPTIONS, "--name", "one", *exact)
    assert alone.returncode == 0, alone.stderr
    assert said.count("runs/two") == alone.stderr.count("runs/one")
    losses = [
        [event["loss"] for event in log(place.folder / "runs" / run) if "loss" in event]
        for run in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_what_is_wrong_is_said_once(place):
    process = started(place, "--name", "odd", "--training.steps", "6", "--model.depth", "0")
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 2
    assert said.count("model.depth") == 1
    assert "Traceback" not in said
    assert not (place.folder / "runs" / "odd").exists()
    assert place.nextword("train", "--processes", "0").returncode == 2
    assert place.nextword("train", "--processes", "2", "--dry-run").returncode == 2


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds it in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_is_killed_ends_all_and_is_named(place, rank):
    process = started(place, "--name", "hit", "--training.steps", "4000")
    wait_for_steps(place, "hit", 3)
    os.kill(started_by(process, rank), signal.SIGKILL)
    killed = time.monotonic()
    said = process.communicate(timeout=60)[1]
    assert time.monotonic() - killed < 30
    assert process.returncode == 128 + signal.SIGKILL
    assert f"process {rank} of 2 has ended with signal 9" in said
    assert "Traceback" not in said
    assert "mistake of the program" not in said


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_told_to_stop_they_save_and_go_on_later(place):
    process = started(place, "--name", "told", "--training.steps", "4000")
    wait_for_steps(place, "told", 3)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM, said
    (saved,) = list_checkpoints(place.folder / "runs" / "told")
    assert not find_damage(saved.folder, whole=True)
    assert "--resume told" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (RuntimeError("[/a/gloo/transport/tcp/pair.cc:537] Connection reset by peer."), True),
        (torch.distributed.DistNetworkError("the server cannot be reached"), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("gloo/transport"), False),
    ],
)
def test_who_is_left_alone_is_told_so_and_not_of_a_mistake(error, is_it):
    assert is_left_alone(error) is is_it
