"""Free memory is the tightest limit known; what cannot fit is refused before it is built."""

import re

import numpy as np
import pytest
import torch

from nextword.machine.memory import free_memory
from nextword.model.transformer import Transformer
from nextword.targets.batch import Batch
from nextword.training.step import LanguageModelLoss, kept_bytes
from tests.model.test_transformer import SHAPE

CPU = torch.device("cpu")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup/memory").mkdir(parents=True)
    return tmp_path


def test_what_is_not_known_is_not_guessed(root):
    assert free_memory(CPU, root) is None


def test_the_machines_own(root):
    (root / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    1000 kB\nx\n")
    assert free_memory(CPU, root) == 1024_000


@pytest.mark.parametrize(
    ("folder", "limit", "used", "cached"),
    [
        (".", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_a_container_s_limit_counts_where_it_is_tighter(root, folder, limit, used, cached):
    (root / "proc/meminfo").write_text("MemAvailable: 1000 kB\n")
    place = root / "sys/fs/cgroup" / folder
    (place / limit).write_text("500000\n")
    (place / used).write_text("450000\n")
    assert free_memory(CPU, root) == 50_000
    (place / "memory.stat").write_text(f"anon 1\n{cached} 20000\n")
    assert free_memory(CPU, root) == 70_000
    (place / limit).write_text("max\n")
    assert free_memory(CPU, root) == 1024_000


@pytest.mark.parametrize(
    ("folder", "line", "limit", "used"),
    [
        (".", "0::/slurm/job_7/step_0", "memory.max", "memory.current"),
        (
            "memory", "9:cpuset:/else\n8:memory:/slurm/job_7/step_0",
            "memory.limit_in_bytes", "memory.usage_in_bytes",
        ),
    ],
)  # fmt: skip
def test_the_limit_of_the_group_that_a_job_runs_in_counts(root, folder, line, limit, used):
    (root / "proc/meminfo").write_text("MemAvailable: 1000 kB\n")
    (root / "proc/self").mkdir()
    (root / "proc/self/cgroup").write_text(f"{line}\n")
    top = root / "sys/fs/cgroup" / folder
    for place, most in (("slurm/job_7/step_0", "max"), ("slurm/job_7", "300000"), ("", "400000")):
        (top / place).mkdir(parents=True, exist_ok=True)
        (top / place / limit).write_text(f"{most}\n")
        (top / place / used).write_text("100000\n")
    assert free_memory(CPU, root) == 200_000  # of the job, above its step
    (top / "slurm/job_7/step_0" / limit).write_text("150000\n")
    assert free_memory(CPU, root) == 50_000
    (root / "proc/self/cgroup").write_text("0::/../../elsewhere\n")  # as a container may show it
    assert free_memory(CPU, root) == 300_000


def test_a_depth_that_would_fit_is_named(place, monkeypatch):
    from nextword.training import plan

    monkeypatch.setattr(plan, "free_memory", lambda device: 30_000_000)
    few = ("--corpus.stories", "40", "--vocabulary.kind", "byte", "--training.steps", "1")
    few += ("--training.batch-tokens", "256", "--model.context", "64")
    done = place.nextword("train", *few, "--model.depth", "8")
    assert done.returncode == 2, done.stderr
    fits = int(re.search(r"--model.depth (\d+) would fit", done.stderr)[1])
    assert 1 <= fits < 8
    for depth, refused in ((fits, False), (fits + 1, True)):
        done = place.nextword("train", *few, "--model.depth", str(depth), "--dry-run")
        assert ("would fit" in done.stderr) is refused, done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.depth", "2000"], "would fit"),
        (["--model.depth", "100000"], "must be at most 10000"),
        (["--model.hidden-size", "1000000"], "GB are free here"),
        (["--model.hidden-size", "1000000000"], "must be at most"),
        (["--vocabulary.size", "1000000000"], "must be at most"),
        (["--training.batch-tokens", str(2**50)], "must be at most"),
        (["--machine.threads", "1000000000"], "must be at most 4096"),
        (["--training.learning-rate", "inf"], "must be a finite number"),
        (["--training.learning-rate", "nan"], "must be a finite number"),
        (["--training.seed", str(2**70)], "must be at most"),
        (["--name", "x" * 300], "no folder's name is so long"),
    ],
)
def test_options_beyond_reason_are_refused_in_one_line(place, options, words):
    done = place.nextword("train", "--corpus.stories", "40", *options)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place.folder / "runs").exists()


@pytest.mark.parametrize("temperature", ["1e-300", "1e-7"])
def test_a_temperature_of_nearly_nothing_takes_the_likeliest(shared, small_run, temperature):
    options = ["--max-tokens", "8", "--seed", "1"]
    cold, none = (
        shared.nextword("generate", small_run, "--temperature", one, *options)
        for one in (temperature, "0")
    )
    assert cold.returncode == 0, cold.stderr
    assert cold.stdout == none.stdout


SMALL = [
    "--corpus.stories", "60", "--vocabulary.kind", "byte", "--model.depth", "2", "--training.steps",
    "3", "--machine.recompute", "none", "--training.batch-tokens", "8192",
    "--training.micro-batch-tokens", "8192",
]  # fmt: skip


def test_a_step_that_cannot_fit_is_refused_before_the_run_with_what_would(place, monkeypatch):
    from nextword.training import dividing

    monkeypatch.setattr(dividing, "free_memory", lambda device: 60_000_000)
    done = place.nextword("train", "--name", "it", *SMALL)
    assert done.returncode == 2, done.stderr
    assert "a step over 8,192 tokens at once needs" in done.stderr
    assert not (place.folder / "runs" / "it").exists()
    fits = int(re.search(r"micro-batch-tokens (\d+) would fit", done.stderr)[1])
    assert 256 <= fits < 8192
    again = [*SMALL[:-1], str(fits)]
    assert place.nextword("train", "--name", "it", *again).returncode == 0
    monkeypatch.setattr(dividing, "free_memory", lambda device: 1_000_000)
    done = place.nextword("train", "--name", "other", *SMALL)
    assert "choose a smaller --model.depth (it is 2) or --model.context (it is 256)" in done.stderr


def test_what_a_row_keeps_is_measured_and_grows_with_the_rows():
    model = Transformer(SHAPE)
    loss = LanguageModelLoss(model, precision=torch.float32)

    def batch(rows):
        ids = np.zeros((rows, 24), dtype=np.int64)
        return Batch(ids, ids)

    one, four = (kept_bytes(loss, batch(rows), CPU) for rows in (1, 4))
    assert 3.5 * one < four <= 4 * one
    # At least the states before and after each norm, and what the feed-forward parts keep.
    least = 4 * 24 * SHAPE.num_hidden_layers * (4 * SHAPE.hidden_size + 3 * SHAPE.intermediate_size)
    most = 4 * 24 * SHAPE.num_hidden_layers * 50 * SHAPE.hidden_size
    assert least < one < most
