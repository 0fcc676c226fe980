"""What docs/processes.md gives to a cluster, tried as far as one machine can."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nextword.training.checkpoint import list_checkpoints
from tests.elastic import started_by

PAGE = (Path(__file__).parents[2] / "docs" / "processes.md").read_text(encoding="utf-8")
SMALL = [
    "--corpus.stories=120", "--model.depth=1", "--model.context=32", "--model.hidden-size=32",
    "--training.steps=400", "--training.batch-tokens=128", "--training.checkpoint-every=100",
    "--vocabulary.kind=byte",
]  # fmt: skip


def block(kind):
    """The page's one block of a kind of code."""
    (found,) = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    return found


def documents():
    yaml = pytest.importorskip("yaml", reason="Kubernetes' schemas are not installed")
    return list(yaml.safe_load_all(block("yaml")))


def environment(place, **more):
    root = str(Path(__file__).parents[2])
    own = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": root}
    return {**place.environment(), **own, **more}


def run_of(place):
    return place.folder / "runs" / "mine"


def test_kubernetes_takes_the_file():
    check = pytest.importorskip(
        "kubernetes_validate", reason="Kubernetes' schemas are not installed"
    )
    service, job = documents()
    for one in service, job:
        check.validate(one, "1.30", strict=True)
    job["spec"]["completionModes"] = "Indexed"
    with pytest.raises(check.ValidationError):
        check.validate(job, "1.30", strict=True)
    # Pods find the first one: by the Job's name and its number, under the Service's name.
    name, below = service["metadata"]["name"], job["spec"]["template"]["spec"]["subdomain"]
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"--rdzv-endpoint={job['metadata']['name']}-0.{below}:29400" in arguments
    assert below == name
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert f"--nnodes={job['spec']['completions']}" in arguments
    gpus = job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert f"--nproc-per-node={gpus['nvidia.com/gpu']}" in arguments


def test_what_its_pods_do(place):
    """Two of torch's agents on this machine in place of four pods; then all of them once more."""
    _, job = documents()
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["torchrun"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    instead = {
        "--nnodes=4": ["--nnodes=2"], "--nproc-per-node=8": ["--nproc-per-node=1"],
        "--rdzv-endpoint=nextword-0.nextword:29400": [f"--rdzv-endpoint=127.0.0.1:{port}"],
        "/data/shards": [],
    }  # fmt: skip
    words = [word for given in container["args"] for word in instead.pop(given, [given])]
    assert not instead

    told = {one["name"]: one["value"] for one in container["env"]}
    told = environment(place, **{name: told[name] for name in told if "/data" not in told[name]})

    def pods(meanwhile=lambda both: None):
        command = [sys.executable, "-m", "torch.distributed.run", *words, *SMALL]
        both = [
            subprocess.Popen(command, cwd=place.folder, env=told, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        meanwhile(both)
        said = "".join(process.communicate(timeout=200)[1] for process in both)
        assert [process.returncode for process in both] == [0, 0], said
        return said

    def kill_one(both):
        """The second's process, as soon as there is something to go on from."""
        until = time.monotonic() + 120
        while not (run_of(place).exists() and list_checkpoints(run_of(place))):
            assert time.monotonic() < until
            time.sleep(0.05)
        found = [started_by(agent, rank) for agent in both for rank in range(2)]
        os.kill([one for one in found if one is not None][-1], signal.SIGKILL)

    said = pods(kill_one)
    assert said.count("processes   2: each holds all weights") == 2  # begun again
    assert [one.step for one in list_checkpoints(run_of(place))][-1] == 400
    assert "mine has done all its steps" in pods()


SRUN = """#!/bin/sh
# As srun does on one machine, with two processes.
shift  # --kill-on-bad-exit
export SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST=127.0.0.1 SLURM_STEP_TASKS_PER_NODE=2
export SLURM_NODEID=0 SLURM_JOB_ID=$$ SLURM_STEP_ID=0
SLURM_PROCID=1 SLURM_LOCALID=1 "$@" $MORE &
SLURM_PROCID=0 SLURM_LOCALID=0 "$@" $MORE
status=$?
wait $! && exit $status
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no such shell")
def test_what_slurms_job_does(place):
    tools = place.folder / "tools"
    tools.mkdir()
    ours = f'#!/bin/sh\nshift\nexec "{sys.executable}" -m nextword train "$@"\n'
    for name, words in ("srun", SRUN), ("nextword", ours):
        (tools / name).write_text(words)
        (tools / name).chmod(0o755)
    job = place.folder / "job.sh"
    script = block("bash")
    assert " shards " in script
    job.write_text(script.replace(" shards ", " "))
    told = environment(place, PATH=f"{tools}:{os.environ['PATH']}", MORE=" ".join(SMALL))
    for words in "Done in", "mine has done all its steps":
        done = subprocess.run(
            ["bash", str(job)], cwd=place.folder, env=told, capture_output=True, text=True,
            timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert words in done.stderr
    assert [one.step for one in list_checkpoints(run_of(place))][-1] == 400
    lines = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    assert len(lines) == 6
