"""Several processes train one run: saved by the first, gone back and gone on with by all."""

import os
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nextword.base.errors import LEFT_ALONE
from nextword.prediction.evaluate import evaluate
from nextword.prediction.loading import open_model, prepared_folder, run_facts
from nextword.settings import read_recipe, resolve
from nextword.training import live
from nextword.training.checkpoint import list_checkpoints
from nextword.training.vouched import find_damage
from nextword.vocabulary.prepared import open_prepared
from tests.forked import fork_server
from tests.training.test_bad_weather import OPTIONS, log


def two(place, *words, poisoned=-1, stopped=0):
    """Start a command in two processes.

    Args:
        place: where.
        *words: of the command.
        poisoned: step whose batch gives no number.
        stopped: evaluation, from 1, in whose midst the first process is told to stop.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    base = {
        **place.environment(), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip
    does = [str(poisoned), str(stopped), *words]
    return [
        fork_server().watch(
            "tests.two", does, place.folder, {**base, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(2)
    ]


def of_steps(number):
    """The options for another number of steps."""
    options = dict(zip(OPTIONS[::2], OPTIONS[1::2], strict=True))
    options |= {"--training.steps": str(number), "--training.evaluate-every": str(number)}
    return [word for option in options.items() for word in option]


def by_two(place, *words, poisoned=-1):
    """Run a command in two processes to its end; return what the first said."""
    processes = two(place, *words, poisoned=poisoned)
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return said[0]


def wait_for(happened, processes):
    """Wait until something is so, while the processes go on."""
    until = time.monotonic() + 120
    while not happened():
        ended = [process.communicate()[1] for process in processes if process.poll() is not None]
        assert not ended
        assert time.monotonic() < until
        time.sleep(0.05)


def scored_alone(run):
    """What this process says of the whole hold-out, with as many threads as each of two had."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        holdout = open_prepared(prepared_folder(run, run_facts(run))).holdout
        # In batches small enough that both have some.
        settings = resolve(read_recipe(run / "settings.toml")).evaluation
        found = evaluate(open_model(str(run)).model, holdout, settings)
    finally:
        torch.set_num_threads(threads)
    assert found.tokens > 4 * settings.batch_tokens
    return found.nats


@pytest.mark.skipif(not hasattr(os, "fork"), reason="gloo's processes are tried where these are")
def test_two_processes_save_go_back_and_go_on(place):
    asked = [
        *OPTIONS,
        "--evaluation.batch-tokens",
        "300",
        "--training.on-nan",
        "rollback",
        "--training.checkpoint-every",
        "10",
    ]
    said = by_two(place, "train", "--name", "it", *asked, poisoned=24)
    assert "the last good checkpoint is it@20: it goes on from there" in said
    run = place.folder / "runs" / "it"
    assert [(event["step"], event["left_out"]) for event in log(run, "rollback")] == [(20, 24)]
    assert [event["step"] for event in log(run, "step")] == list(range(1, 41))
    assert [point.step for point in list_checkpoints(run)] == [10, 20, 30, 40]
    assert not [one for one in list_checkpoints(run) if find_damage(one.folder, whole=True)]
    # Products of MKL may differ by where in memory their numbers lie.
    assert log(run, "evaluation")[-1]["nats"] == pytest.approx(scored_alone(run), rel=1e-9)
    shutil.copytree(run, run.with_name("again"))
    by_two(place, "train", "--resume", "again@20")
    last = "checkpoints/step-000040/model.safetensors"
    whole, again = (load_file(run.with_name(name) / last) for name in ("it", "again"))
    # The batch that was left out is left out again, though nothing is wrong with it now.
    assert all(weight.equal(again[name]) for name, weight in whole.items())
    assert log(run, "step") == log(run.with_name("again"), "step")


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there is no such signal")
def test_whichever_of_two_is_told_both_do_it(place):
    """One that stopped, waited or slowed down alone would be waited for, or go astray."""
    options = dict(zip(OPTIONS[::2], OPTIONS[1::2], strict=True)) | {
        "--training.steps": "100000", "--training.evaluate-every": "100000",
        "--training.decay-share": "0", "--training.warmup-steps": "0", "--training.keep-last": "9",
    }  # fmt: skip
    endless = [word for option in options.items() for word in option]
    processes = two(place, "train", "--name", "it", *endless)
    run = place.folder / "runs" / "it"

    def told(kind):
        return log(run, kind) if (run / "metrics.jsonl").is_file() else []

    try:
        wait_for(lambda: len(told("step")) > 3, processes)
        processes[1].send_signal(signal.SIGUSR1)
        wait_for(lambda: list_checkpoints(run), processes)
        live.ask(run, scale=0.5)
        wait_for(lambda: told("rate"), processes)
        live.ask(run, paused=True)
        wait_for(lambda: told("pause"), processes)
        stood = len(told("step"))
        time.sleep(0.5)
        assert len(told("step")) == stood
        live.ask(run, paused=False)
        wait_for(lambda: len(told("step")) > stood + 3, processes)
        processes[1].send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [143, 143], said
    saved, stopped = list_checkpoints(run)
    steps, (lowered,) = told("step"), told("rate")
    assert lowered["step"] > saved.step
    assert len(steps) == stopped.step
    assert steps[lowered["step"]]["rate_factor"] == 0.5
    # A process that had not slowed down would have given the other's batches another loss.
    shutil.copytree(run, run.with_name("again"))
    again = run.with_name("again")
    by_two(place, "train", "--resume", f"again@{saved.step}", "--training.steps", str(stopped.step))  # fmt: skip  # noqa: E501
    assert [one["loss"] for one in log(again, "step")] == [one["loss"] for one in steps]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="gloo's processes are tried where these are")
def test_who_prepares_for_long_is_waited_for(place, monkeypatch):
    """Longer than anybody is waited for in the middle of a step."""
    monkeypatch.setenv("PATIENCE", "12")
    monkeypatch.setenv("PREPARES", "16")
    by_two(place, "train", "--name", "it", *of_steps(2))
    assert len(log(place.folder / "runs" / "it", "step")) == 2


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no such signal")
@pytest.mark.parametrize("rank", [0, 1])
def test_who_does_not_answer_is_given_up(place, monkeypatch, rank):
    monkeypatch.setenv("PATIENCE", "12")
    processes = two(place, "train", "--name", "it", *of_steps(100_000))
    run = place.folder / "runs" / "it"
    try:
        wait_for(lambda: (run / "metrics.jsonl").is_file() and len(log(run, "step")) > 3, processes)
        processes[rank].send_signal(signal.SIGSTOP)
        began = time.monotonic()
        said = processes[1 - rank].communicate(timeout=60)[1]
        assert time.monotonic() - began < 50
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[1 - rank].returncode == LEFT_ALONE
    assert "another of the processes has ended or does not answer; `--resume` goes on" in said
    assert "Traceback" not in said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="gloo's processes are tried where these are")
@pytest.mark.parametrize(("at", "statuses"), [(1, [143, 143]), (2, [143, 143])])
def test_a_stop_in_an_evaluation_leaves_nobody_waiting(place, at, statuses):
    """All evaluate, and leave that together: in the midst of a run and at its end."""
    options = dict(zip(OPTIONS[::2], OPTIONS[1::2], strict=True))
    options |= {"--training.steps": "8", "--training.evaluate-every": "4"}
    words = [word for option in options.items() for word in option]
    processes = two(place, "train", "--name", "it", *words, stopped=at)
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == statuses, said
    run = place.folder / "runs" / "it"
    assert list_checkpoints(run)[-1].step == 4 * at
    assert list_checkpoints(run)[-1].is_unfinished
    by_two(place, "train", "--resume", "it")
    assert [event["step"] for event in log(run, "evaluation")] == [4, 8]
    assert [event["step"] for event in log(run, "step")] == list(range(1, 9))
