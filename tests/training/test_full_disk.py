"""A disk that is full, a real one: a file system in memory, mounted where that is allowed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.test_reliability import OPTIONS, assert_same

SHARES = [0.05, 0.5, 0.95]
"""Of a checkpoint, for which there is room."""
IN_A_SMALL_DISK = """
import os, shutil, subprocess, sys
from tests.children import child, run_verb
import nextword.cli, nextword.pretrain, nextword.prediction.loading, torch
torch.set_num_threads(1)
disk, kept, *shares = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], check=True)
os.environ["NEXTWORD_RUNS"] = os.path.join(disk, "runs")
run = os.path.join(disk, "runs", "it")
last = os.path.join(run, "checkpoints", "step-000012")
for share in shares:
    shutil.copytree(os.path.join(kept, "runs"), os.path.join(disk, "runs"))
    files = [os.path.join(at, name) for at, _, names in os.walk(last) for name in names]
    size = sum(os.path.getsize(file) for file in files)
    shutil.rmtree(last)
    free = os.statvfs(disk)
    with open(os.path.join(disk, "filler"), "wb") as filler:
        filler.write(bytes(free.f_bavail * free.f_frsize - int(float(share) * size)))
    status, said = child(lambda: run_verb(("train", "--resume", "it")), limited=False)
    assert status == 2, said
    assert "No space left" in said, said
    assert "nextword train --resume it" in said, said
    left = sorted(os.listdir(os.path.join(run, "checkpoints")))
    assert left == ["step-000004", "step-000008"], left
    status, said = child(lambda: run_verb(("predict", "it", "We")), limited=False)
    assert status == 0, said
    os.remove(os.path.join(disk, "filler"))
    status, said = child(lambda: run_verb(("train", "--resume", "it", "--quiet")), limited=False)
    assert status == 0, said
    shutil.move(run, os.path.join(kept, "after", share))
    shutil.rmtree(os.path.join(disk, "runs"))
"""


def small_disks_can_be_mounted(folder):
    """Whether this system lets a process have a file system of its own."""
    if not shutil.which("unshare"):
        return False
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    return not subprocess.run(command, capture_output=True, check=False).returncode


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(place, trained):
    disk = place.folder / "disk"
    disk.mkdir()
    if not small_disks_can_be_mounted(disk):
        pytest.skip("no file system can be mounted here")
    trained.copy_to(place, "train", "--name", "it", *OPTIONS)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", IN_A_SMALL_DISK, disk, place.folder,
         *map(str, SHARES)],
        cwd=root, env=place.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for share in SHARES:
        assert_same(place.folder / "runs" / "it", place.folder / "after" / str(share))
