"""Where a device computes beside this machine: figures a step later, batches a step before.

And where its memory does not suffice: half as many rows at once, once. A CPU plays the device.
"""

import json
import math
import os
import signal
import threading

import numpy as np
import pytest
import torch

from nextword.base.errors import is_out_of_memory
from nextword.machine.readback import Sent
from nextword.targets.batch import Batch
from nextword.training.ahead import Ahead
from nextword.training.gradients import Gradient
from tests.training.test_resume import assert_same, metrics

CPU = torch.device("cpu")
OPTIONS = [
    "--corpus.stories", "40", "--vocabulary.kind", "byte", "--model.depth", "1",
    "--model.hidden-size", "32", "--model.context", "64", "--training.batch-tokens", "512",
    "--training.micro-batch-tokens", "256", "--training.steps", "15",
    "--training.evaluate-every", "5", "--training.checkpoint-every", "5",
]  # fmt: skip
EXACT = ["--machine.device", "cpu", "--machine.precision", "float32"]


@pytest.fixture
def beside(monkeypatch):
    """Let a CPU count as a device that computes beside this machine; return who read batches."""
    from nextword.language_modeling import LanguageModeling
    from nextword.training import loop

    readers, read = [], LanguageModeling.read

    def noted(task, step, rows):
        readers.append((step, threading.current_thread().name))
        return read(task, step, rows)

    monkeypatch.setattr(loop, "computes_beside", lambda device: True)
    monkeypatch.setattr(LanguageModeling, "read", noted)
    return readers


def train(place, name, *more):
    done = place.nextword("train", "--name", name, *OPTIONS, *EXACT, *more)
    assert done.returncode == 0, done.stderr
    return place.folder / "runs" / name


def losses(run):
    return {one["step"]: one["loss"] for one in metrics(run) if one["event"] == "step"}


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_figures_read_later_change_nothing(place, trained, request, optimizer):
    asked = ["train", "--name", "whole", *OPTIONS, *EXACT, "--training.optimizer", optimizer]
    trained.copy_to(place, *asked)
    readers = request.getfixturevalue("beside")
    there = train(place, "parts", "--training.optimizer", optimizer)
    assert_same(place.folder / "runs" / "whole", there)
    ahead = {step for step, who in readers if who.startswith("batches")}
    assert ahead == set(range(1, 15))  # the first one nobody could foresee


def test_a_step_is_written_down_before_what_follows_it(place, beside):
    events = [(one["event"], one["step"]) for one in metrics(train(place, "it"))]
    steps = [step for event, step in events if event == "step"]
    assert steps == list(range(1, 16))
    for step in (5, 10, 15):
        assert events.index(("step", step)) < events.index(("evaluation", step))
        assert ("step", step + 1) not in events[: events.index(("evaluation", step))]


def poisoned(monkeypatch, number, value=math.nan):
    """Let the gradients that are added up at one call give no number."""
    from nextword.training import loop

    calls, add = [], loop.add_gradients

    def poisonous(*given):
        calls.append(1)
        nats = add(*given)
        return [one * value for one in nats] if len(calls) == number else nats

    monkeypatch.setattr(loop, "add_gradients", poisonous)
    return calls


def test_what_diverges_is_noticed_before_it_is_saved(place, beside, monkeypatch):
    calls = poisoned(monkeypatch, 8)
    done = place.nextword("train", "--name", "it", *OPTIONS, *EXACT)
    assert done.returncode == 2
    assert "step 8: the loss is nan" in done.stderr
    assert "the last good checkpoint is it@5" in done.stderr
    assert len(calls) == 9  # one step more was under way
    run = place.folder / "runs" / "it"
    assert max(losses(run)) == 7
    assert [one.name for one in (run / "checkpoints").iterdir()] == ["step-000005"]


def test_at_the_step_of_a_checkpoint_too(place, beside, monkeypatch):
    poisoned(monkeypatch, 10)
    done = place.nextword("train", "--name", "it", *OPTIONS, *EXACT)
    assert "step 10: the loss is nan" in done.stderr
    saved = place.folder / "runs" / "it" / "checkpoints"
    assert [one.name for one in saved.iterdir()] == ["step-000005"]


def test_it_goes_back_as_it_would_without(place, beside, monkeypatch):
    from nextword.training import loop

    for name, later in (("later", True), ("at-once", False)):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "computes_beside", lambda device, later=later: later)
            poisoned(patch, 8)
            train(place, name, "--training.on-nan", "rollback")
    runs = place.folder / "runs"
    assert_same(runs / "later", runs / "at-once")
    (back,) = [one for one in metrics(runs / "later") if one["event"] == "rollback"]
    assert (back["step"], back["left_out"]) == (5, 7)


def test_a_stop_finds_all_written_down(place, beside, monkeypatch):
    from nextword.training import loop

    calls, move = [], loop.move

    def asked(*given):
        calls.append(1)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return move(*given)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "move", asked)
        done = place.nextword("train", "--name", "parts", *OPTIONS, *EXACT)
    assert done.returncode == 143, done.stderr
    run = place.folder / "runs" / "parts"
    assert max(losses(run)) == 7
    done = place.nextword("train", "--resume", "parts")
    assert done.returncode == 0, done.stderr
    whole = train(place, "whole")
    assert losses(run) == losses(whole)


def test_a_step_that_would_be_skipped_is_looked_at_first(place, beside):
    run = train(place, "it", "--training.on-spike", "skip")
    assert len(losses(run)) == 15
    assert not [who for _, who in beside if who.startswith("batches")]


def test_a_batch_made_for_another_rate_of_work_is_made_again():
    made = []

    def read(step, rows):
        made.append((step, rows.start, rows.stop))
        ids = np.full((rows.stop - rows.start, 4), step)
        return Batch(ids, ids)

    whole, halves = [slice(0, 4)], [slice(0, 2), slice(2, 4)]
    with Ahead(read, CPU, beside=True) as ahead:
        ahead.prepare(3, whole, (3, 10))
        assert ahead.take(3, whole, (3, 10)).num_targets == 16
        assert made == [(3, 0, 4)]
        ahead.prepare(4, whole, (4, 10))
        assert len(ahead.take(4, halves, (4, 10)).batches) == 2
        ahead.prepare(5, whole, (5, 10))
        next(iter(ahead.made.values())).result()
        ahead.take(5, whole, (5, 12))  # the run has become longer
        assert made[-2:] == [(5, 0, 4), (5, 0, 4)]
    with Ahead(read, CPU, beside=False) as ahead:
        made.clear()
        ahead.prepare(3, whole, ())
        assert not made


def test_what_fails_to_be_read_says_so_where_it_is_asked_for():
    def read(step, rows):
        raise OSError("the disk is gone")

    with Ahead(read, CPU, beside=True) as ahead:
        ahead.prepare(0, [slice(0, 1)], ())
        with pytest.raises(OSError, match="the disk is gone"):
            ahead.take(0, [slice(0, 1)], ())


def test_what_was_sent_is_what_was_there_then():
    value = torch.ones(())
    sent = Sent([value, 2 * value])
    value.fill_(7)
    assert sent.read() == [1.0, 2.0]


@pytest.mark.parametrize("most", [0.0, 0.5, 100.0])
def test_a_device_shortens_a_gradient_as_this_machine_does(most):
    source = torch.Generator().manual_seed(0)
    one = [torch.randn(7, 5, generator=source), torch.randn(3, generator=source)]
    two = [tensor.clone() for tensor in one]
    here, there = Gradient.measured(one, []), Gradient.measured(two, [])
    here.shorten(most, float(here.norm))
    there.shorten(most, None)
    for first, second in zip(one, two, strict=True):
        assert first.equal(second)


def full(monkeypatch, at, error):
    """Let memory not suffice at some calls; return the rows of the parts of each."""
    from nextword.training import loop

    parts, add = [], loop.add_gradients

    def short(loss, batches, *rest):
        parts.append([len(batch[0]) for batch in batches])
        if len(parts) in at:
            add(loss, batches[:1], *rest)  # some of it was done
            raise error
        return add(loss, batches, *rest)

    monkeypatch.setattr(loop, "add_gradients", short)
    return parts


NO_ROOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("later", [False, True])
def test_without_memory_it_goes_on_with_half_as_many_rows(place, monkeypatch, later):
    from nextword.training import loop

    monkeypatch.setattr(loop, "computes_beside", lambda device: later)
    whole = train(place, "whole")
    with monkeypatch.context() as patch:
        parts = full(patch, {7}, NO_ROOM)
        halved = train(place, "halved")
    assert parts[6:8] == [[4, 4], [2, 2, 2, 2]]
    assert parts[5] == [4, 4]
    assert parts[-1] == [2, 2, 2, 2]
    (event,) = [one for one in metrics(halved) if one["event"] == "micro_batch"]
    assert event == {"event": "micro_batch", "step": 6, "rows": 2}
    assert losses(halved) == pytest.approx(losses(whole), rel=1e-5)
    done = place.nextword("train", "--resume", "halved@10")
    assert done.returncode == 0, done.stderr
    again = losses(halved)
    with monkeypatch.context() as patch:
        parts = full(patch, {7}, NO_ROOM)
        assert losses(train(place, "another")) == again


def test_the_second_time_it_is_one_clear_line(place, monkeypatch):
    full(monkeypatch, {3, 5}, RuntimeError("DefaultCPUAllocator: can't allocate memory: 99 bytes"))
    done = place.nextword("train", "--name", "it", *OPTIONS, *EXACT)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "the memory is not enough" in done.stderr
    run = place.folder / "runs" / "it"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [one["step"] for one in lines if one["event"] == "step"] == [1, 2, 3]


def test_what_is_no_want_of_memory_is_not_tried_again(place, monkeypatch):
    parts = full(monkeypatch, {3}, RuntimeError("the power is gone"))
    done = place.nextword("train", "--name", "it", *OPTIONS, *EXACT)
    assert done.returncode
    assert "please report it" in done.stderr  # a mistake of the program's own, kept in a file
    assert len(parts) == 3


def test_errors_that_say_that_memory_does_not_suffice():
    assert is_out_of_memory(NO_ROOM)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
