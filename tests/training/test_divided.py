"""Weights divided among processes: the same training, and checkpoints that know nothing of it."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nextword.machine.copies import Copies
from nextword.machine.parts import Part, rows_of
from nextword.prediction.loading import open_model
from nextword.training.checkpoint import find_damage, list_checkpoints
from tests.place import Place

ROOT = Path(__file__).parents[2]
PROGRAM = f"""
import contextlib, errno, json, os, sys
sys.path.insert(0, {str(ROOT)!r})
import torch
from nextword.cli import main
from nextword.machine import copies
from nextword.training.optimizers import muon

torch.set_num_threads(1)
muon.has_bfloat16 = lambda device: False  # whose rounding would hide what is looked for
write_rows, written = copies.Copies.write_rows, []

def written_or_not(self, *given):
    written.append(self)
    if os.environ["RANK"] == "1" and len(written) == int(os.environ.get("AT", 0)):
        if os.environ["HOW"] == "dies":
            os._exit(9)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    write_rows(self, *given)

copies.Copies.write_rows = written_or_not
status = 0
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as left:
        status = status or left.code
sys.stderr.flush()
os._exit(status or 0)
"""
SMALL = [
    "--training.steps=20", "--training.evaluate-every=10", "--training.batch-tokens=512",
    "--training.micro-batch-tokens=100", "--training.clip-norm=0.5", "--model.depth=2",
    "--model.hidden-size=48", "--model.context=32", "--corpus.stories=120",
    "--machine.precision=float32", "--evaluation.batch-tokens=300", "--training.keep-last=3",
]  # fmt: skip
KINDS = {
    "causal-muon": ["--training.optimizer=muon"],
    "causal-adamw": ["--training.optimizer=adamw"],
    "masked-muon": ["--objective.name=masked", "--training.optimizer=muon"],
    "masked-adamw": ["--objective.name=masked", "--training.optimizer=adamw"],
}
WAYS = {"ddp 2": (2, 2), "fsdp 2": (2, 2), "fsdp 4": (4, 4), "hsdp 4": (4, 2)}
"""Name → processes, and how many of them are said to be on one machine."""


def together(place, count, *commands, on_machine=None, **more):
    """Do some commands one after the other in as many processes; return how each ended."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    base = {
        **place.environment(), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
        "LOCAL_WORLD_SIZE": str(on_machine or count), **more,
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROGRAM, json.dumps(commands)],
            cwd=place.folder, env={**base, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip
    said = [process.communicate(timeout=400)[1] for process in processes]
    return [(process.returncode, words) for process, words in zip(processes, said, strict=True)]


def all_well(ended):
    assert [status for status, _ in ended] == [0] * len(ended), "\n\n".join(w for _, w in ended)
    return ended[0][1]


def run_of(place, name):
    return place.folder / "runs" / name


def events(place, name, kind):
    lines = (run_of(place, name) / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def last_of(place, name):
    return list_checkpoints(run_of(place, name))[-1].folder


def apart(one, other):
    """The most by which two files of tensors differ, which must hold the same ones."""
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    assert first
    return max(float((value - second[name]).abs().max()) for name, value in first.items())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Each kind of training by one process and by several, however they divide the weights."""
    place = Place(tmp_path_factory.mktemp("divided"))
    alone = [["train", "--name", kind, *SMALL, *more] for kind, more in KINDS.items()]
    all_well(together(place, 1, *alone))
    said = {}
    for way, (count, on_machine) in WAYS.items():
        name = way.replace(" ", "-")
        commands = [
            ["train", "--name", f"{kind}-{name}", f"--machine.parallel={way[:4].strip()}", *SMALL, *more]
            for kind, more in KINDS.items()
        ]  # fmt: skip
        said[way] = all_well(together(place, count, *commands, on_machine=on_machine))
    return place, said


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_what_one_process_does(trained, kind, way):
    place, said = trained
    name = f"{kind}-{way.replace(' ', '-')}"
    for one, other in zip(
        events(place, kind, "step"), events(place, name, "step"), strict=True
    ):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-4)
    mine, theirs = last_of(place, kind), last_of(place, name)
    assert apart(mine / "model.safetensors", theirs / "model.safetensors") < 1e-4
    state = "training/optimizer.safetensors"
    assert apart(mine / state, theirs / state) < 1e-4
    for event in ("evaluation", "replay"):
        assert len(events(place, kind, event)) == len(events(place, name, event))
    for one, other in zip(
        events(place, kind, "evaluation"), events(place, name, "evaluation"), strict=True
    ):
        assert one["nats"] == pytest.approx(other["nats"], rel=1e-5)
        assert one["sample"] == other["sample"]
    words = {"ddp": "each holds all", "fsdp": "they divide", "hsdp": "those of each machine divide"}
    assert f"processes   {WAYS[way][0]}: {words[way[:4].strip()]}" in said[way]
