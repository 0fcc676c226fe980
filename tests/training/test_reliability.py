"""Nothing lost: kills, signals, damaged files, full disks, two writers."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from safetensors.torch import load_file

from nextword.base.errors import RunError
from nextword.base.writer import HOLDER, holder_of, one_writer
from nextword.prediction.loading import open_model
from nextword.training.checkpoint import list_checkpoints
from tests import storm

OPTIONS = [
    "--corpus.stories", "40", "--vocabulary.kind", "byte", "--model.depth", "1",
    "--model.hidden-size", "32", "--model.context", "32", "--training.batch-tokens", "128",
    "--training.steps", "12", "--training.evaluate-every", "4", "--training.checkpoint-every", "4",
    "--machine.device", "cpu",
]  # fmt: skip
CLOCKS = {"seconds", "tokens_per_second"}


@pytest.fixture
def run(place, trained):
    trained.copy_to(place, "train", "--name", "it", *OPTIONS)
    return place.folder / "runs" / "it"


def log(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines]


def last_weights(run):
    return load_file(run / "checkpoints" / "step-000012" / "model.safetensors")


def assert_same(one, two):
    assert log(one) == log(two)
    for name, weight in last_weights(one).items():
        assert weight.equal(last_weights(two)[name]), name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_a_storm_of_kills_leaves_what_undisturbed_runs_leave():
    done = subprocess.run(
        [sys.executable, "-m", "tests.storm", "--runs", "15"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "15 runs finished" in done.stdout
    with storm.storm_folder() as folder:
        past = 7 if storm.can_go_past(folder) else 0
    assert f" {past} past the page cache" in done.stdout
    assert "bit for bit" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["a step", "the first evaluation", "the last evaluation"])
def test_a_signal_saves_and_the_run_goes_on_as_if_nothing_had_been(
    place, run, monkeypatch, number, moment
):
    from nextword.prediction import evaluate
    from nextword.training import loop

    calls = {"a step": (loop, "move", 6), "the first evaluation": (evaluate, "_score", 1)}
    owner, name, when = calls.get(moment, (evaluate, "_score", None))
    real, seen = getattr(owner, name), []
    if when is None:  # the first of the last evaluation's calls: two evaluations come before
        counted = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, lambda *a: (counted.append(1), real(*a))[1])
            assert place.nextword("train", "--name", "count", *OPTIONS).returncode == 0
        when = len(counted) * 3 // 5

    def signalling(*args):
        seen.append(1)
        if len(seen) == when:
            os.kill(os.getpid(), number)
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, signalling)
        done = place.nextword("train", "--name", "parts", *OPTIONS)
    assert done.returncode == 128 + number, done.stderr
    assert "nextword train --resume parts" in done.stderr
    assert "Traceback" not in done.stderr
    done = place.nextword("train", "--resume", "parts")
    assert done.returncode == 0, done.stderr
    assert_same(run, run.parent / "parts")


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there is no such signal")
def test_a_run_that_is_asked_to_saves_and_goes_on(place, run, monkeypatch):
    from nextword.training import checkpoint, loop

    real, steps, saved = loop.move, [], []
    monkeypatch.setattr(
        loop, "move", lambda *a: (steps.append(1), len(steps) == 6 and os.kill(
            os.getpid(), signal.SIGUSR1), real(*a))[2]
    )  # fmt: skip
    publish = checkpoint.publish

    def noted(aside, final):
        saved.append(final.name)
        publish(aside, final)

    monkeypatch.setattr(checkpoint, "publish", noted)
    assert place.nextword("train", "--name", "parts", *OPTIONS).returncode == 0
    assert "step-000006" in saved
    assert_same(run, run.parent / "parts")


def test_a_run_that_saved_nothing_begins_again_with_its_own_settings(place, run, monkeypatch):
    from nextword import fit

    def killed(*args):
        raise MemoryError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "run_loop", killed)
        assert place.nextword(
            "train", "--name", "parts", *OPTIONS, "--training.seed", "7"
        ).returncode
    refused = place.nextword("predict", "parts", "We")
    assert refused.returncode == 2
    assert "no checkpoint was saved yet; nextword train --resume parts goes on" in refused.stderr
    done = place.nextword("train", "--resume", "parts")
    assert done.returncode == 0, done.stderr
    assert "begins again with its first step" in done.stderr
    whole = place.nextword("train", "--name", "whole", *OPTIONS, "--training.seed", "7")
    assert whole.returncode == 0, whole.stderr
    assert_same(run.parent / "whole", run.parent / "parts")


def test_two_processes_do_not_train_the_same_run(place, run):
    (run / "checkpoints" / "step-000012").rename(run / "gone")
    with one_writer(run):
        refused = place.nextword("train", "--resume", "it")
        assert refused.returncode == 2
        assert f"process {os.getpid()} on {socket.gethostname()}" in refused.stderr
        assert place.nextword("evaluate", "it").returncode == 0  # who reads needs no lock
    assert not (run / HOLDER).exists()
    done = place.nextword("train", "--resume", "it")
    assert done.returncode == 0, done.stderr


def test_the_lock_of_a_dead_process_is_free_and_one_elsewhere_counts_for_ten_minutes(tmp_path):
    holder = tmp_path / HOLDER
    holder.write_text(json.dumps({"host": socket.gethostname(), "process": 1}))
    with one_writer(tmp_path):
        assert json.loads(holder.read_text())["process"] == os.getpid()
    holder.write_text(json.dumps({"host": "elsewhere", "process": 1}))
    with pytest.raises(RunError, match="process 1 on elsewhere"), one_writer(tmp_path):
        pass
    assert json.loads(holder.read_text())["host"] == "elsewhere"
    os.utime(holder, (0, os.stat(holder).st_mtime - 601))
    with one_writer(tmp_path):
        pass
    holder.write_text("{")  # cut short: nobody known
    with one_writer(tmp_path):
        pass


FILES = [
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
    "tokenizer_config.json",
    "training/manifest.json", "training/optimizer.safetensors", "training/state.json",
]  # fmt: skip


def damaged(file, how):
    raw = file.read_bytes()
    if how == "cut":
        file.write_bytes(raw[: len(raw) // 2])
    elif how == "flipped":
        middle = len(raw) // 2
        file.write_bytes(raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :])
    else:
        file.unlink()


@pytest.mark.parametrize("how", ["cut", "flipped", "deleted"])
@pytest.mark.parametrize("name", FILES)
def test_damage_is_named_and_the_newest_good_checkpoint_taken(place, run, name, how):
    whole = shutil.copytree(run, run.parent / "whole")
    newest = list_checkpoints(run)[-1]
    assert newest.step == 12
    damaged(newest.folder / name, how)
    explicit = place.nextword("predict", "it@12", "We")
    # The state of training is nothing to who only asks the model.
    if name in ("training/optimizer.safetensors",):
        assert explicit.returncode == 0, explicit.stderr
    elif name.startswith("training/") and how == "flipped":
        assert explicit.returncode in (0, 2)  # it depends on what the byte spells now
    else:
        assert explicit.returncode == 2, explicit.stdout
        assert "Traceback" not in explicit.stderr
        if name != "training/state.json":
            assert name.rpartition("/")[2] in explicit.stderr
    os.utime(run / "run.json")  # of the two the later one
    best = json.loads((newest.folder.parent / "step-000008/training/state.json").read_text())
    for asked in ("it@last", "it", "latest"):
        said = place.nextword("predict", asked, "We")
        assert said.returncode == 0, said.stderr
        if explicit.returncode and (asked == "it@last" or best["holdout_loss"] is None):
            assert "step 8 is used instead" in said.stderr
            assert said.stdout == place.nextword("predict", "whole@8", "We").stdout
    done = place.nextword("train", "--resume", "it")
    assert done.returncode == 0, done.stderr
    assert "step 8 is used instead" in done.stderr
    assert_same(whole, run)


def test_where_no_checkpoint_is_whole_that_is_said(place, run):
    for point in list_checkpoints(run):
        damaged(point.folder / "model.safetensors", "flipped")
    for command in (["predict", "it", "We"], ["train", "--resume", "it"], ["evaluate", "it"]):
        done = place.nextword(*command)
        assert done.returncode == 2
        assert "no checkpoint is whole" in done.stderr
        assert "model.safetensors" in done.stderr


def test_a_second_look_at_a_large_file_costs_nothing(tmp_path, monkeypatch):
    from nextword.base import cache

    monkeypatch.setenv("NEXTWORD_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "weights"
    file.write_bytes(bytes(cache.WORTH_REMEMBERING))
    os.utime(file, (1e9, 1e9))
    first = cache.digest_of(file)
    read = []
    monkeypatch.setattr(cache, "digest_of_file", lambda path, like: read.append(path))
    assert cache.digest_of(file) == first
    assert not read
    file.write_bytes(bytes(cache.WORTH_REMEMBERING - 1) + b"\1")
    cache.digest_of(file)
    assert read == [file]


def test_a_file_that_was_just_written_is_looked_at_again(tmp_path, monkeypatch):
    """A disk that counts in seconds gives two contents of one moment the same time."""
    from nextword.base import cache

    monkeypatch.setenv("NEXTWORD_CACHE", str(tmp_path / "cache"))
    file, moment = tmp_path / "weights", int(time.time())
    file.write_bytes(bytes(cache.WORTH_REMEMBERING))
    os.utime(file, (moment, moment))
    first = cache.digest_of(file)
    file.write_bytes(bytes(cache.WORTH_REMEMBERING - 1) + b"\1")
    os.utime(file, (moment, moment))
    assert cache.digest_of(file) != first


def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(place, run):
    resource = pytest.importorskip("resource")
    (run / "checkpoints" / "step-000012").rename(run / "gone")
    size = (run / "gone" / "training" / "optimizer.safetensors").stat().st_size
    done = subprocess.run(
        [sys.executable, "-m", "nextword", "train", "--resume", "it"],
        cwd=place.folder, env=place.environment(), capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size - 100, size - 100)),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr
    assert "nextword train --resume it" in done.stderr
    assert "Traceback" not in done.stderr
    assert [point.step for point in list_checkpoints(run)] == [4, 8]
    assert not list((run / "checkpoints").glob(".*"))
    assert open_model(str(run)).step == 8
    shutil.rmtree(run / "gone")
    assert place.nextword("train", "--resume", "it").returncode == 0


@pytest.mark.parametrize("words", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"corpus": 3}'])
def test_a_damaged_run_is_one_line_and_hides_no_other(place, run, words):
    shutil.copytree(run, run.parent / "other")
    (run / "run.json").write_bytes(words)
    listed = place.nextword("runs")
    assert listed.returncode == 0, listed.stderr
    assert "other" in listed.stdout
    for command in (["train", "--resume", "it"], ["report", "it", "-o", "r.html"]):
        done = place.nextword(*command)
        assert done.returncode == 2, done.stderr
        assert "run.json" in done.stderr


@pytest.mark.parametrize("words", [b"", b"\n", b"[" * 100_000, b"\xff\xfe\n", b'{"event": 1}\n'])
def test_damaged_lines_of_the_log_are_left_out(place, run, words):
    with open(run / "metrics.jsonl", "ab") as stream:
        stream.write(words + b"\n")
    for command in (["replay", "it"], ["report", "it", "-o", "r.html"], ["ruler", "it"]):
        done = place.nextword(*command)
        assert done.returncode == 0, done.stderr


def test_who_was_killed_before_old_checkpoints_were_deleted_deletes_them_when_it_goes_on(
    place, run
):
    kept = sorted(os.listdir(run / "checkpoints"))
    old = run / "checkpoints" / "step-000006"
    shutil.copytree(run / "checkpoints" / "step-000008", old)
    state = json.loads((old / "training" / "state.json").read_text())
    told = json.dumps({**state, "step": 6, "holdout_loss": 99.0})
    (old / "training" / "state.json").write_text(told)
    done = place.nextword("train", "--resume", "it@8")
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(run / "checkpoints")) == kept


def test_who_only_looks_keeps_no_writer_out(tmp_path, monkeypatch):
    """What is left of a dead writer is looked at again and again, as the live page does."""
    (tmp_path / HOLDER).write_text(json.dumps({"host": socket.gethostname(), "process": 1}))
    words, stop = (tmp_path / HOLDER).read_text(), threading.Event()

    def look():
        while not stop.is_set():
            (tmp_path / HOLDER).write_text(words)
            holder_of(tmp_path)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(100):
            with one_writer(tmp_path):
                pass
    finally:
        stop.set()
        looking.join()
