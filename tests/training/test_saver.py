"""Saving beside training: a copy is taken, one at most is on its way, no failure is lost."""

import threading
import time

import pytest
import torch

from nextword.base.errors import RunError
from nextword.model.folder import WEIGHTS
from nextword.model.transformer import Transformer
from nextword.rendering.training import describe_saving
from nextword.training.checkpoint import TrainingSnapshot
from nextword.training.saver import Saver
from tests.model.test_transformer import SHAPE


def test_training_goes_on_while_a_copy_is_written_and_waits_for_the_one_before():
    gate, written, saver = threading.Event(), [], Saver()

    def slowly(copy):
        gate.wait(60)
        written.append(copy)
        return 7

    saver.save(lambda _: 1, slowly)  # returns though nothing is written yet
    assert written == []
    threading.Timer(0.2, gate.set).start()
    saver.save(lambda _: 2, slowly)  # waits for the first: at most one is on its way
    assert written[0] == 1
    saver.finish()
    assert written == [1, 2]
    assert (saver.saves, saver.bytes) == (2, 14)
    assert saver.lost >= 0.15


def test_what_goes_wrong_is_raised_at_the_next_save_and_at_the_end():
    def fails(copy):
        raise RunError("the disk is full")

    for next_call in (lambda saver: saver.save(lambda _: 2, len), lambda saver: saver.finish()):
        saver = Saver()
        saver.save(lambda _: 1, fails)
        with pytest.raises(RunError, match="full"):
            next_call(saver)
        saver.finish()  # told once


def test_a_copy_is_what_was_there_when_it_was_taken_also_where_an_older_one_is_written_over():
    model = Transformer(SHAPE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    room = None
    for _ in range(3):
        model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
        optimizer.step()
        then = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        kept = TrainingSnapshot.of(model, [optimizer], room)
        places = {tensor.data_ptr() for tensor in kept.model.weights[WEIGHTS].tensors.values()}
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(1.0)
        assert all(
            kept.model.weights[WEIGHTS].tensors[name].equal(value) for name, value in then.items()
        )
        assert (
            kept.optimizers.tensors["model.norm.weight/exp_avg"].shape
            == model.model.norm.weight.shape
        )
        if room is not None:
            assert places == {
                tensor.data_ptr() for tensor in room.model.weights[WEIGHTS].tensors.values()
            }
        room = kept


def test_the_thread_that_writes_has_the_lowest_priority():
    import os
    import sys

    if sys.platform != "linux":
        pytest.skip("elsewhere threads share their process's priority")
    seen, saver = [], Saver()

    def look(copy):
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return 0

    saver.save(lambda _: 1, look)
    saver.finish()
    assert seen == [19]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) < 19


OPTIONS = [
    "--corpus.stories", "40", "--vocabulary.kind", "byte", "--model.depth", "1",
    "--model.hidden-size", "32", "--model.context", "32", "--training.batch-tokens", "128",
    "--training.steps", "12", "--training.evaluate-every", "2", "--machine.threads", "1",
]  # fmt: skip


def test_as_many_of_the_last_are_kept_as_is_asked(place):
    done = place.nextword("train", "--name", "it", *OPTIONS, "--training.keep-last", "3")
    assert done.returncode == 0, done.stderr
    kept = sorted(path.name for path in (place.folder / "runs/it/checkpoints").iterdir())
    assert kept[-3:] == ["step-000008", "step-000010", "step-000012"]
    assert len(kept) <= 4  # and the best


def test_a_slow_disk_changes_nothing_but_the_time(place, monkeypatch):
    from nextword import pretrain
    from nextword.settings import resolve
    from nextword.training import checkpoint

    real = checkpoint.publish

    def slow(aside, final):
        time.sleep(0.3)
        real(aside, final)

    given = {
        option[2:].replace("-", "_"): int(value) if value.isdecimal() else value
        for option, value in zip(OPTIONS[::2], OPTIONS[1::2], strict=True)
    }
    pretrain.train((), resolve(given=given), name="quick")
    monkeypatch.setattr(checkpoint, "publish", slow)
    pretrain.train((), resolve(given=given), name="slow")
    names = [
        {path.name for path in (place.folder / "runs" / run / "checkpoints").iterdir()}
        for run in ("quick", "slow")
    ]
    assert names[0] == names[1]
    for part in ("model.safetensors", "training/optimizer.safetensors"):
        one, two = (
            (place.folder / "runs" / run / "checkpoints/step-000012" / part).read_bytes()
            for run in ("quick", "slow")
        )
        assert one == two


def test_what_saving_took_is_said():
    saver = Saver()
    for _ in range(2):
        saver.save(lambda _: 1, lambda _: 3_000_000)
    saver.finish()
    saver.lost, saver.taken = 0.25, 1.5
    said = describe_saving(saver)
    assert "2 saved, 3.0 MB each; training waited 0.12 s for each, 0.25 of the 1.50 s" in said
