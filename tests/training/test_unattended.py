"""What a run that is left alone meets: damage while it trains, disks without locks, signals."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from nextword.base import writer
from nextword.base.errors import RunError
from nextword.base.files import digest_of_file
from nextword.base.writer import HOLDER, holder_of, one_writer
from nextword.prediction.loading import find_checkpoint
from nextword.training.checkpoint import list_checkpoints
from nextword.training.vouched import find_damage
from tests.training.test_bad_weather import OPTIONS as LONGER
from tests.training.test_bad_weather import log, poison  # noqa: F401 - a fixture
from tests.training.test_reliability import OPTIONS, assert_same, damaged


@pytest.fixture
def run(place, trained):
    trained.copy_to(place, "train", "--name", "it", *OPTIONS)
    return place.folder / "runs" / "it"


def test_a_rollback_never_goes_back_to_damaged_weights(place, poison, monkeypatch):  # noqa: F811
    """The newest checkpoint is damaged when the loss is no number any more."""
    from nextword.training import loop

    poison.add(24)
    move, calls = loop.move, []

    def damaging(*args):
        newest = place.folder / "runs/it/checkpoints/step-000020"
        calls.append(True)
        if len(calls) == 23:
            until = time.monotonic() + 60
            while not newest.is_dir():  # it is written meanwhile
                assert time.monotonic() < until
                time.sleep(0.01)
            damaged(newest / "model.safetensors", "flipped")
        return move(*args)

    monkeypatch.setattr(loop, "move", damaging)
    kept = ["--training.keep-last", "3", "--training.on-nan", "rollback"]
    done = place.nextword("train", "--name", "it", *LONGER, *kept)
    assert done.returncode == 0, done.stderr
    assert "step-000020/model.safetensors: missing or changed since it was saved" in done.stderr
    assert "the last good checkpoint is it@10: it goes on from there" in done.stderr
    run = place.folder / "runs" / "it"
    assert [event["step"] for event in log(run, "rollback")] == [10]
    assert [event["step"] for event in log(run, "step")] == list(range(1, 41))
    assert not [one for one in list_checkpoints(run) if find_damage(one.folder, whole=True)]


@pytest.mark.parametrize("loss", [float("inf"), float("-inf")])
def test_a_loss_without_end_stops_a_run(place, monkeypatch, loss):
    from nextword.training import loop

    monkeypatch.setattr(loop, "add_gradients", lambda *args: [torch.tensor(loss)])
    done = place.nextword("train", "--name", "it", *OPTIONS)
    assert done.returncode == 2
    assert f"step 1: the loss is {loss}" in done.stderr


def test_nobody_else_writes_while_a_run_ends(place, monkeypatch):
    from nextword import language_modeling

    real, refused = language_modeling.measure_ruler, []

    def measured(*args, **given):
        with pytest.raises(RunError, match=f"process {os.getpid()}"):
            one_writer(place.folder / "runs" / "it").__enter__()
        refused.append(True)
        return real(*args, **given)

    monkeypatch.setattr(language_modeling, "measure_ruler", measured)
    assert place.nextword("train", "--name", "it", *OPTIONS).returncode == 0
    assert refused


WITHOUT = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP]


@pytest.fixture(params=WITHOUT, ids=errno.errorcode.get)
def without_locks(request, monkeypatch):
    """A disk that has no locks, as a network's may have none."""
    fcntl = pytest.importorskip("fcntl", reason="locks are another system's here")

    def none(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", none)


def test_a_disk_without_locks_still_has_one_writer(tmp_path, without_locks):
    holder, here = tmp_path / HOLDER, socket.gethostname()
    with one_writer(tmp_path):
        assert json.loads(holder.read_text())["process"] == os.getpid()
    assert not holder.exists()
    alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        holder.write_text(json.dumps({"host": here, "process": alive.pid}))
        assert holder_of(tmp_path)["process"] == alive.pid
        with pytest.raises(RunError, match=f"process {alive.pid} on"), one_writer(tmp_path):
            pass
    finally:
        alive.communicate(b"\n")
    assert holder_of(tmp_path) is None
    with one_writer(tmp_path):  # who is dead holds nothing, whatever lies there
        pass
    holder.write_text(json.dumps({"host": "elsewhere", "process": 1}))
    with pytest.raises(RunError, match="process 1 on elsewhere"), one_writer(tmp_path):
        pass
    os.utime(holder, (0, os.stat(holder).st_mtime - 601))
    with one_writer(tmp_path):
        pass


def test_a_run_trains_on_a_disk_without_locks(place, without_locks):
    done = place.nextword("train", "--name", "it", *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert "filelock" not in done.stderr


def test_a_long_step_is_no_silence(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "HEARTBEAT", 0.05)
    holder, given = tmp_path / HOLDER, threading.Event()
    real = writer.os.utime

    def noted(file, *args):
        real(file, *args)
        if file == holder:
            given.set()

    monkeypatch.setattr(writer.os, "utime", noted)
    with one_writer(tmp_path):
        os.utime(holder, (0, 0))  # ten minutes and more, for whoever looks from elsewhere
        given.clear()
        assert given.wait(60)
        assert holder.stat().st_mtime > 1e9


def rows(place, kind):
    """Examples to fine-tune by."""
    names = [f"Maria {number} was a clerk." for number in range(200)]
    given = {
        "labels": [{"text": name, "label": "ab"[n % 2]} for n, name in enumerate(names)],
        "answers": [{"prompt": name, "completion": " Yes."} for name in names],
        "preferences": [{"prompt": n, "chosen": " Yes.", "rejected": " No."} for n in names],
    }[kind]
    file = place.folder / f"{kind}.jsonl"
    file.write_text("\n".join(map(json.dumps, given)))
    return file.name


SCORED = {
    "masked": ("nextword.prediction.masked", "_score"),
    "labels": ("nextword.prediction.labels", "laid_out"),
    "answers": ("nextword.prediction.answers", "score_tokens"),
    "preferences": ("nextword.prediction.preferences", "answer_log_probabilities"),
}
"""What scores one part of a hold-out, of each way of training."""


@pytest.mark.parametrize("kind", SCORED)
def test_an_evaluation_of_any_kind_is_left_when_a_stop_is_asked_for(place, run, monkeypatch, kind):
    import importlib

    module, name = SCORED[kind]
    owner = importlib.import_module(module)
    for small in ("AT_ONCE", "TOKENS_AT_ONCE"):
        if hasattr(owner, small):
            monkeypatch.setattr(owner, small, 8)
    real, calls, begun = getattr(owner, name), [], []
    from nextword import callbacks

    breakable = callbacks.breakable

    def noted():
        begun.append(True)
        return breakable()

    def scoring(*args, **given):
        result = real(*args, **given)
        if begun:  # an evaluation of the training, not what is asked before it
            calls.append(True)
            if len(calls) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(callbacks, "breakable", noted)
    monkeypatch.setattr(owner, name, scoring)
    if kind == "masked":
        asked = ["train", "--name", "other", "--objective", "masked", *OPTIONS]
        asked += ["--training.evaluate-tokens", "4096", "--evaluation.batch-tokens", "128"]
    else:
        asked = ["finetune", "it", rows(place, kind), "--name", "other", "--finetune.steps", "4"]
        asked += ["--finetune.holdout", "0.5"]
    done = place.nextword(*asked)
    assert done.returncode == 143, done.stderr
    assert len(calls) == 1  # of many
    assert "nextword train --resume other" in done.stderr
    monkeypatch.undo()
    os.chdir(place.folder)
    with place.entered():
        done = place.nextword("train", "--resume", "other")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("step", [0, 5])
def test_a_step_of_many_parts_is_left_and_done_again(place, monkeypatch, step):
    from nextword.language_modeling import LanguageModeling
    from nextword.training import step as stepping

    parts = ["--training.micro-batch-tokens", "32"]
    assert place.nextword("train", "--name", "whole", *OPTIONS, *parts).returncode == 0
    read, on, now, seen = LanguageModeling.read, stepping.on_device, [0], []

    def noted(task, number, rows):
        now[0] = number
        return read(task, number, rows)

    def computing(*args):
        if now[0] == step:
            seen.append(True)
            if len(seen) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
        return on(*args)

    with monkeypatch.context() as patch:
        patch.setattr(LanguageModeling, "read", noted)
        patch.setattr(stepping, "on_device", computing)
        done = place.nextword("train", "--name", "parts", *OPTIONS, *parts)
    assert done.returncode == 143, done.stderr
    assert len(seen) == 2  # of four
    assert f"stopped at step {step}" in done.stderr
    done = place.nextword("train", "--resume", "parts")
    assert done.returncode == 0, done.stderr
    assert_same(place.folder / "runs" / "whole", place.folder / "runs" / "parts")


def asked_to_end(monkeypatch, owner, name):
    real = getattr(owner, name)

    def ended(*args, **given):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **given)

    monkeypatch.setattr(owner, name, ended)


def test_a_stop_while_text_is_prepared_is_one_line(place, monkeypatch):
    from nextword import pretrain

    asked_to_end(monkeypatch, pretrain, "check_leaks")
    done = place.nextword("train", "--name", "it", *OPTIONS)
    assert done.returncode == 143
    assert done.stderr.splitlines()[-1].endswith("terminated")
    assert "Traceback" not in done.stderr
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_stop_at_the_end_says_how_the_rest_is_done(place, run, monkeypatch):
    from nextword import language_modeling

    with monkeypatch.context() as patch:
        asked_to_end(patch, language_modeling, "measure_ruler")
        done = place.nextword("train", "--name", "parts", *OPTIONS)
    assert done.returncode == 143, done.stderr
    assert "stopped at step 12; go on with: nextword train --resume parts" in done.stderr
    done = place.nextword("train", "--resume", "parts")
    assert done.returncode == 0, done.stderr
    assert_same(run, run.parent / "parts")


@pytest.mark.parametrize("verb", ["predict", "evaluate", "report", "train"])
def test_the_facts_of_another_run_are_refused_by_name(place, run, verb):
    facts = json.loads((run / "run.json").read_text())
    facts["shape"]["hidden_size"] *= 2
    (run / "run.json").write_text(json.dumps(facts))
    (run / "checkpoints" / "step-000012").rename(run / "gone")
    asked = {"predict": ["it", "We"], "train": ["--resume", "it"]}.get(verb, ["it"])
    done = place.nextword(verb, *asked)
    assert done.returncode == 2, done.stderr
    assert "run.json: hidden_size is 64, and 32 in its checkpoint" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("where", ["runs/it", "runs/it/made", "runs/it/checkpoints/step-000099"])
@pytest.mark.parametrize(
    "words",
    [
        ("prepare", "book.txt", "-o"),
        ("push", "it", "me/it", "-o"),
        ("export", "it", "--to", "sentence-transformers", "-o"),
        ("export", "it", "--to", "onnx", "-o"),
    ],
)
def test_no_verb_writes_into_a_runs_folder(place, run, words, where):
    (place.folder / "book.txt").write_text("We are all humans.\n" * 100)
    before = sorted(run.rglob("*"))
    done = place.nextword(*words, where)
    assert done.returncode == 2
    assert "lies in a run's folder" in done.stderr or "is there already" in done.stderr
    assert sorted(run.rglob("*")) == before


def test_what_saving_took_is_said_at_the_end(place):
    done = place.nextword("train", "--name", "it", *OPTIONS)
    assert "checkpoints 3 saved, 0.2 MB each; training waited " in done.stderr
    assert " s for each, " in done.stderr
    assert find_checkpoint(place.folder / "runs" / "it", "last").step == 12


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("how", ["missing", "of another shape", "more"])
def test_a_state_that_lacks_a_part_is_refused_though_its_digest_fits(place, optimizer, how):
    """As who changed the file and its manifest would leave it."""
    asked = [*OPTIONS, "--training.optimizer", optimizer]
    assert place.nextword("train", "--name", "it", *asked).returncode == 0
    folder = place.folder / "runs/it/checkpoints/step-000012/training"
    state = load_file(folder / "optimizer.safetensors")
    name = next(key for key in state if key.endswith(("exp_avg", "momentum_buffer")))
    if how == "missing" and optimizer == "muon":
        name = next(key for key in state if key.endswith("/exp_avg"))  # a vector's, by AdamW
    if how == "missing":
        del state[name]
    elif how == "more":
        state[f"{name}_more"] = state[name].clone()
    else:
        state[name] = state[name].flatten()[1:].clone()
    save_file(state, folder / "optimizer.safetensors")
    digests = json.loads((folder / "manifest.json").read_text())
    digests["training/optimizer.safetensors"] = digest_of_file(folder / "optimizer.safetensors")
    (folder / "manifest.json").write_text(json.dumps(digests))
    done = place.nextword("train", "--resume", "it", "--training.steps", "14")
    assert done.returncode == 2, done.stderr
    assert f"damaged optimizer state: of {name.rpartition('/')[0]} it holds" in done.stderr
