"""One command, several processes: the first speaks, all end together."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed
from safetensors.torch import load_file

from nextword.base.errors import is_left_alone
from nextword.training.checkpoint import list_checkpoints, remove_checkpoints
from nextword.training.vouched import find_damage
from tests.elastic import disturb, started_by
from tests.place import Place
from tests.training.test_bad_weather import log

OPTIONS = (
    "--corpus.stories", "120", "--vocabulary.kind", "byte", "--model.hidden-size", "32",
    "--model.depth", "1", "--model.context", "64", "--training.batch-tokens", "512",
    "--machine.device", "cpu", "--machine.precision", "float32",
)  # fmt: skip


def started(place, *words, processes=2, options=OPTIONS):
    environment = {**place.environment(), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "nextword", "train", "--processes", str(processes)]
    return subprocess.Popen(
        [*command, *options, *words],
        cwd=place.folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


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


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A place where three processes are, or have been, undisturbed once."""
    return Place(tmp_path_factory.mktemp("calm"))


def losses_of(place, run):
    return [event["loss"] for event in log(place.folder / "runs" / run) if "loss" in event]


def test_a_run_goes_on_with_another_number_of_processes(place):
    """Also one that does not divide its rows: the mean is over tokens, however they are shared."""
    exact = ("--training.steps", "6", "--training.optimizer", "adamw", "--training.keep-last", "9")
    words = ("--name", "one", "--training.checkpoint-every", "2", *exact)
    alone = place.nextword("train", *OPTIONS, *words)
    assert alone.returncode == 0, alone.stderr
    runs = place.folder / "runs"
    shutil.copytree(runs / "one", runs / "other")
    for at, processes in ((2, 3), (4, 2)):
        process = started(place, "--resume", f"other@{at}", processes=processes, options=())
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
        assert f"processes were 1 and are {processes} now: each step reads the same rows" in said
    assert losses_of(place, "other") == pytest.approx(losses_of(place, "one"), abs=1e-5)
    last = "checkpoints/step-000006/model.safetensors"
    one, other = (load_file(runs / name / last) for name in ("one", "other"))
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, atol=1e-4, rtol=0)
    # Longer rows, of which a step reads fewer.
    long = tuple("256" if word == "64" else word for word in OPTIONS)
    alone = place.nextword("train", *long, "--name", "long", "--training.steps", "2")
    assert alone.returncode == 0, alone.stderr
    words = ("--resume", "long", "--training.steps", "4")
    process = started(place, *words, processes=3, options=())
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 2
    assert "reads 2 rows, which 3 processes cannot share; start 2 at most" in said


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds it in /proc")
def test_who_is_killed_over_and_over_learns_the_same(calm):
    """`python -m tests.elastic` does it twenty times."""
    report = disturb(calm, kills=1, processes=3, steps=300)
    assert report["restarts"] == 1
    assert report["same losses"]
    assert report["same weights"]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds it in /proc")
def test_torchrun_itself_lets_it_begin_again(calm):
    report = disturb(calm, kills=1, processes=3, steps=300, torchrun=True)
    assert report["same losses"]
    assert report["same weights"]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds it in /proc")
def test_restarts_have_an_end_and_what_is_wrong_is_not_tried_again(place):
    process = started(place, "--name", "hit", "--training.steps", "4000", "--restarts", "1")
    for attempt in range(2):
        wait_for_steps(place, "hit", 3)
        rank = 1 - attempt
        until = time.monotonic() + 60
        while (found := started_by(process, rank)) is None and time.monotonic() < until:
            time.sleep(0.1)
        os.kill(found, signal.SIGKILL)
        while started_by(process, rank) == found:
            time.sleep(0.05)
        if not attempt:
            (place.folder / "runs" / "hit" / "metrics.jsonl").write_text("")
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGKILL
    assert said.count("(restart 1 of 1)") == 1
    assert "process 0 of 2 has ended with signal 9" in said
    process = started(place, "--name", "odd", "--restarts", "3", "--training.optimizer", "none")
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 2
    assert "restart" not in said
    assert place.nextword("train", "--restarts", "-1").returncode == 2


def forget_the_end(run):
    """Leave a run as it is where somebody ended it after its first checkpoint."""
    remove_checkpoints(list_checkpoints(run)[1:], keep=())
    log = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert '"end"' in log[-1]
    (run / "metrics.jsonl").write_text("".join(log[:-1]))


def test_whom_torchrun_starts_again_goes_on_with_its_run(place, monkeypatch):
    words = ("train", *OPTIONS, "--training.steps", "4", "--training.checkpoint-every", "2")
    assert place.nextword(*words, "--name", "it").returncode == 0
    run = place.folder / "runs" / "it"
    forget_the_end(run)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setenv("WORLD_SIZE", "1")
    done = place.nextword(*words, "--name", "it")
    assert done.returncode == 0, done.stderr
    assert [one.step for one in list_checkpoints(run)] == [2, 4]
    done = place.nextword(*words, "--name", "it")
    assert (done.returncode, done.stderr) == (0, "it has done all its steps\n")
    done = place.nextword(*words)
    assert done.returncode == 2
    assert "a training that may be restarted is given a --name, to find it again" in done.stderr


def test_a_job_that_is_begun_again_goes_on_with_its_run(place):
    """As a cluster does, whose launcher knows nothing of the time before."""
    words = ("train", *OPTIONS, "--training.steps", "4", "--training.checkpoint-every", "2")
    words = (*words, "--name", "it", "--again")
    assert place.nextword(*words).returncode == 0
    run = place.folder / "runs" / "it"
    for more in (), ("--processes", "2"):
        forget_the_end(run)
        process = place.process(*words, *more)
        assert process.returncode == 0, process.stderr
        assert [one.step for one in list_checkpoints(run)] == [2, 4], (more, process.stderr)
        done = place.process(*words, *more)
        assert done.returncode == 0
        assert done.stderr == "it has done all its steps\n"
    done = place.nextword("train", *OPTIONS, "--again")
    assert "is given a --name" in done.stderr


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
