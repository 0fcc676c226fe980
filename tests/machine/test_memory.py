"""Free memory is the tightest limit known; what cannot fit is refused before it is built."""

import pytest
import torch

from nextword.machine.memory import free_memory

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
    ("options", "words"),
    [
        (["--model.depth", "2000"], "GB are free here; choose a smaller --model.depth"),
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
