"""Processes of one of Slurm's steps, by variables as srun 22.05 sets them."""

import socket
import subprocess
import sys

import pytest

from nextword.machine.slurm import as_torchrun_would, first_host, tasks_on_each

STEP = {
    "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "11",
    "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_NODEID": "2", "SLURM_NTASKS": "11",
    "SLURM_STEP_NODELIST": "gpu[03-04,9],cpu1", "SLURM_STEP_TASKS_PER_NODE": "4(x2),3",
}  # fmt: skip


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("vm", "vm"), ("a,b", "a"), ("gpu[03-07,12],cpu1", "gpu03"), ("n[1,5-7]", "n1"),
        ("rack-2-node[001-128]-ib", "rack-2-node001-ib"), ("r[1-2]n[04-09]", "r1n04"),
        ("10.0.0.7", "10.0.0.7"),
    ],
)  # fmt: skip
def test_the_first_host(hosts, first):
    assert first_host(hosts) == first


def test_how_many_on_each():
    assert tasks_on_each("2") == [2]
    assert tasks_on_each("4(x2),3") == [4, 4, 3]
    assert tasks_on_each("1(x3)") == [1, 1, 1]


def test_a_step_is_told_as_torchrun_would():
    told = as_torchrun_would(STEP)
    assert told == {
        "WORLD_SIZE": "11", "RANK": "9", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3",
        "MASTER_ADDR": "gpu03", "MASTER_PORT": str(20_000 + (31 * 4711 + 2) % 10_000),
    }  # fmt: skip
    others = as_torchrun_would({**STEP, "SLURM_PROCID": "0", "SLURM_NODEID": "0"})
    assert {others[key] for key in ("MASTER_ADDR", "MASTER_PORT")} == {
        told[key] for key in ("MASTER_ADDR", "MASTER_PORT")
    }
    assert as_torchrun_would({**STEP, "MASTER_PORT": "5"})["MASTER_PORT"] == "5"


def test_nothing_is_told_where_one_process_is_alone_or_another_launcher_has_spoken():
    script = {name: STEP[name] for name in ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_NTASKS")}
    assert as_torchrun_would(script) == {}
    assert as_torchrun_would({**STEP, "SLURM_STEP_NUM_TASKS": "1"}) == {}
    assert as_torchrun_would({**STEP, "WORLD_SIZE": "2"}) == {}
    assert as_torchrun_would({}) == {}


def test_two_processes_of_a_step_train_together(place):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    step = {
        **STEP, "SLURM_STEP_NUM_TASKS": "2", "SLURM_NODEID": "0", "MASTER_PORT": str(port),
        "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_STEP_TASKS_PER_NODE": "2",
    }  # fmt: skip
    words = [
        "train", "--name", "it", "--corpus.stories=120", "--model.depth=1", "--model.context=32",
        "--model.hidden-size=32", "--training.steps=3", "--training.batch-tokens=128",
        "--machine.parallel=fsdp", "--vocabulary.kind=byte",
    ]  # fmt: skip
    base = {**place.environment(), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **step}

    def both(words):
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "nextword", *words], cwd=place.folder,
                env={**base, "SLURM_PROCID": rank, "SLURM_LOCALID": rank},
                stderr=subprocess.PIPE, text=True,
            )
            for rank in "01"
        ]  # fmt: skip
        said = [process.communicate(timeout=120)[1] for process in processes]
        return [process.returncode for process in processes], said

    statuses, said = both(words)
    assert statuses == [0, 0], said
    assert "processes   2: they divide the weights among them" in said[0]
    assert said[1].count("Done in") == 0
    # A job that is begun again goes on with its run, and has nothing left to do here.
    statuses, said = both([*words, "--again"])
    assert statuses == [0, 0]
    assert said[0] == "it has done all its steps\n"
    (place.folder / "few.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    statuses, said = both(["finetune", "it", "few.jsonl"])
    assert statuses == [2, 2]
    assert "finetune runs in one process" in said[0]
