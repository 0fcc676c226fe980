"""A loss that is no number, and gradients far longer than usual."""

import json
import math
import os
import shutil
import time

import pytest
from safetensors.torch import load_file

from tests.training import poisoned

OPTIONS = [
    "--corpus.stories", "40", "--vocabulary.kind", "byte", "--model.depth", "1",
    "--model.hidden-size", "32", "--model.context", "32", "--training.batch-tokens", "128",
    "--training.steps", "40", "--training.evaluate-every", "10", "--machine.device", "cpu",
]  # fmt: skip
CLOCKS = {"seconds", "tokens_per_second"}


def log(run, *kinds):
    written = (run / "metrics.jsonl").read_text()
    whole = written[: written.rfind("\n") + 1]  # of a run that goes on the last comes in parts
    return [
        {key: value for key, value in line.items() if key not in CLOCKS}
        for line in map(json.loads, whole.splitlines())
        if not kinds or line["event"] in kinds
    ]


@pytest.fixture
def poison(monkeypatch):
    """Make batches give a loss that is no number, by their steps; as often as they are read."""
    bad = set()
    poisoned.poison(bad, monkeypatch.setattr)
    return bad


@pytest.fixture
def spikes(monkeypatch):
    """Make gradients a hundred times as long after some calls."""
    from nextword.training import loop

    at, calls, add = set(), [], loop.add_gradients

    def longer(loss, *args):
        calls.append(1)
        nats = add(loss, *args)
        if len(calls) in at:
            for weight in loss.parameters():
                weight.grad *= 100
        return nats

    monkeypatch.setattr(loop, "add_gradients", longer)
    return at, calls


def test_it_stops_and_names_the_last_good_checkpoint(place, poison):
    poison.add(14)
    done = place.nextword("train", "--name", "it", *OPTIONS)
    assert done.returncode == 2
    assert "step 15: the loss is nan" in done.stderr
    assert "the last good checkpoint is it@10" in done.stderr


def test_it_goes_back_and_leaves_the_batch_out(place, poison):
    poison.update({14, 17})
    back = ["--training.on-nan", "rollback", "--training.checkpoint-every", "10"]
    done = place.nextword("train", "--name", "it", *OPTIONS, *back)
    assert done.returncode == 0, done.stderr
    assert "it goes on from there without that batch" in done.stderr
    run = place.folder / "runs" / "it"
    assert [(event["step"], event["left_out"]) for event in log(run, "rollback")] == [
        (10, 14),
        (10, 17),
    ]
    steps = log(run, "step")
    assert [event["step"] for event in steps] == list(range(1, 41))
    assert [event["step"] for event in steps if event["loss"] is None] == [15, 18]
    # Resumed from before the batches that are left out: the same again.
    poison.clear()
    weights = run / "checkpoints" / "step-000040" / "model.safetensors"
    saved = load_file(weights)
    before = log(run)
    done = place.nextword("train", "--resume", "it@10")
    assert done.returncode == 0, done.stderr
    assert log(run) == before
    for name, weight in load_file(weights).items():
        assert weight.equal(saved[name]), name


def test_four_bad_batches_are_one_too_many(place, poison):
    poison.update({11, 12, 13, 14})
    done = place.nextword("train", "--name", "it", *OPTIONS, "--training.on-nan", "rollback")
    assert done.returncode == 2
    assert "step 15: the loss is nan" in done.stderr


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(place, poison):
    poison.add(3)
    done = place.nextword("train", "--name", "it", *OPTIONS, "--training.on-nan", "rollback")
    assert done.returncode == 2
    assert "no checkpoint was saved" in done.stderr


@pytest.mark.parametrize("skips", [False, True])
def test_a_spike_is_written_down_and_skipped_where_that_is_asked(place, spikes, skips):
    at, _ = spikes
    at.add(30)
    more = ["--training.on-spike", "skip"] if skips else []
    done = place.nextword("train", "--name", "it", *OPTIONS, *more)
    assert done.returncode == 0, done.stderr
    (event,) = log(place.folder / "runs" / "it", "spike")
    assert event["step"] == 30
    assert event["skipped"] is skips
    assert event["gradient_norm"] > 10 * event["usual"]
    # Of its parts the whole is the root of the squares' sum, before anything is cut.
    assert set(event["parts"]) >= {"layer 1", "last norm"}
    whole = math.sqrt(sum(length**2 for length in event["parts"].values()))
    assert whole == pytest.approx(event["gradient_norm"], rel=1e-3)
    assert ("the step is skipped" in done.stderr) is skips


def test_a_run_with_a_skipped_step_goes_on_as_it_was(place, spikes):
    at, calls = spikes
    at.add(24)
    more = ["--training.on-spike", "skip", "--training.checkpoint-every", "10"]
    done = place.nextword("train", "--name", "it", *OPTIONS, *more)
    assert done.returncode == 0, done.stderr
    run = place.folder / "runs" / "it"
    weights = run / "checkpoints" / "step-000040" / "model.safetensors"
    before, saved = log(run), load_file(weights)
    for begun in (20, 30):  # from before the spike, and from after it
        calls[:] = [1] * begun
        done = place.nextword("train", "--resume", f"it@{begun}")
        assert done.returncode == 0, done.stderr
        assert log(run) == before
        for name, weight in load_file(weights).items():
            assert weight.equal(saved[name]), name


@pytest.fixture
def broken(monkeypatch):
    """Make gradients no number at some steps; as often as they are computed."""
    from nextword.training import loop

    bad, now, add = set(), poisoned.steps_read(monkeypatch.setattr), loop.add_gradients

    def breaking(loss, *args):
        nats = add(loss, *args)
        if now[0] in bad:
            next(loss.parameters()).grad.view(-1)[0] = math.inf
        return nats

    monkeypatch.setattr(loop, "add_gradients", breaking)
    return bad


def test_a_gradient_without_end_stops_a_run(place, broken):
    broken.add(14)
    done = place.nextword("train", "--name", "it", *OPTIONS)
    assert done.returncode == 2
    assert "step 15: the gradient" in done.stderr
    assert "the last good checkpoint is it@10" in done.stderr


def test_a_gradient_without_end_is_gone_back_from(place, broken):
    broken.add(14)
    done = place.nextword("train", "--name", "it", *OPTIONS, "--training.on-nan", "rollback")
    assert done.returncode == 0, done.stderr
    run = place.folder / "runs" / "it"
    assert [(event["step"], event["left_out"]) for event in log(run, "rollback")] == [(10, 14)]
    assert [event["step"] for event in log(run, "step")] == list(range(1, 41))


def test_a_skipped_step_moves_no_weight():
    import torch
    from torch import nn

    from nextword.training.gradients import update

    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer.param_groups[0]["peak"] = 1.0
    before = model.weight.detach().clone()
    model(torch.ones(1, 3)).sum().backward()
    assert update(model, [optimizer], 1.0, 0, longest=0.5) > 0.5
    assert model.weight.equal(before)
    assert model.weight.grad is None
    model(torch.ones(1, 3)).sum().backward()
    update(model, [optimizer], 1.0, 0, longest=100.0)
    assert not model.weight.equal(before)


def stopped_halfway(place, monkeypatch, *more):
    """Train until a signal at step 20, as a machine that is taken away; return the run."""
    import os
    import signal

    from nextword.training import loop

    calls, move = [], loop.move

    def asked(*args):
        calls.append(1)
        if len(calls) == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        return move(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "move", asked)
        done = place.nextword("train", *more, "--name", "it", *OPTIONS)
    assert done.returncode == 143
    return place.folder / "runs" / "it"


def test_a_clock_set_back_changes_nothing(place, monkeypatch):
    import time

    real = time.time
    run = stopped_halfway(place, monkeypatch)
    monkeypatch.setattr(time, "time", lambda: real() - 1e8)
    done = place.nextword("train", "--resume", "it")
    assert done.returncode == 0, done.stderr
    (line,) = [one for one in done.stderr.splitlines() if "this machine's clock" in one]
    assert "stands 27,777.8 hours before the run's last word: it was set back" in line
    monkeypatch.setattr(time, "time", real)
    other = place.nextword("train", "--name", "other", *OPTIONS)
    assert other.returncode == 0
    assert log(run, "step") == log(place.folder / "runs" / "other", "step")


def text_of_one(place):
    file = place.folder / "own.txt"
    lines = [f"We are all humans born to make mistake number {n}.\n" for n in range(400)]
    file.write_text("".join(lines))
    return file


def test_a_text_that_vanished_or_changed_is_not_needed_to_go_on(place, monkeypatch):
    file = text_of_one(place)
    own = [str(file), "--corpus.holdout", "0.2"]
    run = stopped_halfway(place, monkeypatch, *own)
    file.write_text("something else altogether")
    os.utime(file, (0, time.time() + 100))
    shutil.copytree(run, run.with_name("again"))
    done = place.nextword("train", "--resume", "it")
    assert done.returncode == 0, done.stderr
    said = f"{file} was written to since; the run goes on with what was prepared of it"
    assert said in done.stderr.splitlines()
    file.unlink()
    done = place.nextword("train", "--resume", "again")
    assert done.returncode == 0, done.stderr
    said = f"{file} is gone; the run goes on with what was prepared of it"
    assert said in done.stderr.splitlines()
    assert place.nextword("evaluate", "it").returncode == 0


def test_prepared_text_that_vanished_is_one_line_that_says_what_to_do(place, monkeypatch):
    import shutil

    stopped_halfway(place, monkeypatch, str(text_of_one(place)))
    shutil.rmtree(place.folder / "cache")
    for verb in (["train", "--resume", "it"], ["evaluate", "it"], ["report", "it", "-o", "x.html"]):
        done = place.nextword(*verb)
        assert done.returncode == 2
        last = done.stderr.splitlines()[-1]
        assert "no prepared text here; run train on the text again" in last


def test_a_full_disk_under_the_log_is_one_line(place, monkeypatch):
    import errno

    from nextword.training.journal import Journal

    real, calls = Journal.write, []

    def full(journal, event):
        calls.append(1)
        if len(calls) > 25:
            raise OSError(errno.ENOSPC, "No space left on device", str(journal.file))
        real(journal, event)

    monkeypatch.setattr(Journal, "write", full)
    done = place.nextword("train", "--name", "it", *OPTIONS)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("metrics.jsonl: No space left on device")
    monkeypatch.setattr(Journal, "write", real)
    assert place.nextword("train", "--resume", "it").returncode == 0
