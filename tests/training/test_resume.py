"""N steps = k + restart + N − k, bit for bit.

Also mid-epoch, mid-decay, with accumulation, and after Ctrl-C.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

OPTIONS = [
    "--corpus.stories", "300", "--training.evaluate-every", "5", "--training.checkpoint-every", "5",
    "--training.batch-tokens", "512", "--training.micro-batch-tokens", "256",
    "--training.steps", "15", "--model.context", "64",
]  # fmt: skip
CLOCKS = {"seconds", "tokens_per_second"}


def metrics(run: Path):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines]


def assert_same(one: Path, two: Path):
    assert metrics(one) == metrics(two)
    for part in ("model.safetensors", "training/optimizer.safetensors"):
        first, second = (
            load_file(run / "checkpoints" / "step-000015" / part) for run in (one, two)
        )
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert value.equal(second[name]), name


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_resuming_gives_the_same_run_bit_for_bit(place, trained, optimizer):
    options = [*OPTIONS, *([] if optimizer == "muon" else ["--training.optimizer", optimizer])]
    trained.copy_to(place, "train", "--name", "whole", *options)
    runs = place.folder / "runs"
    shutil.copytree(runs / "whole", runs / "parts")
    resume = place.process if optimizer == "muon" else place.nextword
    done = resume("train", "--resume", "parts@5")
    assert done.returncode == 0, done.stderr
    assert "bit for bit" not in done.stderr
    assert_same(runs / "whole", runs / "parts")


def interrupted(place, run, *words):
    """Train, press Ctrl-C after two steps of a run; return the status and what was said."""
    process = subprocess.Popen(
        [sys.executable, "-m", "nextword", "train", *words],
        cwd=place.folder, env=place.environment(), stderr=subprocess.PIPE, text=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )  # fmt: skip
    log = place.folder / "runs" / run / "metrics.jsonl"
    while not (log.is_file() and log.read_text().count("\n") >= 2):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    return process.returncode, said


def test_ctrl_c_saves_and_says_how_to_go_on(place, trained):
    trained.copy_to(place, "train", "--name", "whole", *OPTIONS)
    status, said = interrupted(place, "parts", "--name", "parts", *OPTIONS)
    assert status == 130
    assert "nextword train --resume parts" in said
    done = place.nextword("train", "--resume", "parts")
    assert done.returncode == 0, done.stderr
    assert_same(place.folder / "runs" / "whole", place.folder / "runs" / "parts")


def test_a_resume_may_train_longer(place, trained):
    trained.copy_to(place, "train", "--name", "whole", *OPTIONS)
    done = place.nextword("train", "--resume", "whole")
    assert done.returncode == 2
    assert "has done 15 of 15 steps" in done.stderr
    assert place.nextword("train", "--resume", "whole", "--training.steps", "18").returncode == 0
    assert (place.folder / "runs" / "whole" / "checkpoints" / "step-000018").is_dir()


def test_other_threads_are_said(place, trained):
    trained.copy_to(place, "train", "--name", "whole", *OPTIONS)
    facts = place.folder / "runs" / "whole" / "run.json"
    values = json.loads(facts.read_text())
    values["hardware"]["threads"] = 77
    facts.write_text(json.dumps(values))
    done = place.nextword("train", "--resume", "whole@10")
    assert "threads was 77" in done.stderr
    assert "not be the same bit for bit" in done.stderr


def test_another_torch_and_another_processor_are_said(place, trained):
    trained.copy_to(place, "train", "--name", "whole", *OPTIONS)
    facts = place.folder / "runs" / "whole" / "run.json"
    values = json.loads(facts.read_text())
    values["versions"]["torch"] = "2.0.1"
    values["hardware"]["name"] = "Abacus"
    facts.write_text(json.dumps(values))
    done = place.nextword("train", "--resume", "whole@10")
    assert "torch was 2.0.1 and is" in done.stderr
    assert "name was Abacus and is" in done.stderr
    assert done.stderr.count("the rest will not be the same bit for bit") == 2


def test_a_changed_checkpoint_is_not_resumed(place, trained):
    trained.copy_to(place, "train", "--name", "whole", *OPTIONS)
    file = (
        place.folder
        / "runs"
        / "whole"
        / "checkpoints"
        / "step-000010"
        / "training"
        / "optimizer.safetensors"
    )
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    done = place.nextword("train", "--resume", "whole@10")
    assert done.returncode == 2
    assert "changed since it was saved" in done.stderr


def test_a_loss_that_is_not_a_number_stops_the_run(place):
    done = place.nextword(
        "train",
        "--name",
        "a",
        *OPTIONS,
        "--training.learning-rate",
        "1e30",
        "--training.clip-norm",
        "0",
    )
    assert done.returncode == 2
    assert "step" in done.stderr.splitlines()[-1]
    assert "checkpoint" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
