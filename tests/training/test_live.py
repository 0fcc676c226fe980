"""Weights handed over and pauses, between two steps: asked for by the page, changing nothing."""

import json
import shutil
import threading
import time

import pytest
import torch
from safetensors.torch import load_file

from nextword.machine.ranks import Ranks
from nextword.model.initialize import initialize
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer
from nextword.prediction.loading import open_model
from nextword.training import live
from nextword.training.loop import TrainerState
from nextword.training.schedule import Pace
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.train import train_vocabulary


@pytest.fixture
def vocabulary():
    text = "we are all humans born to make mistakes " * 20
    return train_vocabulary([text], len(text), VocabularySettings())


@pytest.fixture
def model(vocabulary):
    shape = Shape(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, intermediate_size=48, context=32,
    )  # fmt: skip
    made = Transformer(shape)
    initialize(made, 0)
    return made


def test_the_weights_of_a_step_are_handed_over_whole(tmp_path, model, vocabulary):
    listener = live.listen(tmp_path, model, vocabulary, Pace(100), Ranks()).action.__self__
    listener.look(TrainerState(1))
    assert live.handed(tmp_path) is None
    wish = live.ask(tmp_path, weights=True)
    listener.look(TrainerState(2))
    with torch.no_grad():
        then = {name: weight.clone() for name, weight in model.named_parameters()}
        for weight in model.parameters():
            weight += 1  # training goes on while they are written
    listener.saver.finish()
    found = live.handed(tmp_path)
    assert (found.step, found.weights) == (2, wish.weights)
    there = open_model(str(tmp_path / live.LIVE)).model
    for name, weight in there.named_parameters():
        assert torch.equal(weight, then[name])
    listener.look(TrainerState(3, is_last=True))
    assert not (tmp_path / live.LIVE).exists()


def test_weights_that_cannot_be_written_end_no_training(tmp_path, model, vocabulary, monkeypatch):
    listener = live.listen(tmp_path, model, vocabulary, Pace(100), Ranks()).action.__self__

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(live, "write_folder", full)
        for step in (1, 2):
            live.ask(tmp_path, weights=True)
            listener.rest = 0.0
            listener.look(TrainerState(step))
            listener.saver.finish()
    assert live.handed(tmp_path) is None
    assert not list(tmp_path.glob(".live*"))
    listener.rest = 0.0
    live.ask(tmp_path, weights=True)
    listener.look(TrainerState(3))
    listener.saver.finish()
    assert live.handed(tmp_path).step == 3


def test_handing_over_takes_a_hundredth_of_the_time(tmp_path, model, vocabulary, monkeypatch):
    listener = live.listen(tmp_path, model, vocabulary, Pace(100), Ranks()).action.__self__
    clock = [1000.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    real = listener.saver.save
    monkeypatch.setattr(
        listener.saver, "save", lambda *a: (real(*a), clock.__setitem__(0, clock[0] + 0.5))
    )
    live.ask(tmp_path, weights=True)
    listener.look(TrainerState(1))
    assert listener.answered == 1
    live.ask(tmp_path, weights=True)
    for step, now in ((2, 1001.0), (3, 1049.0)):
        clock[0] = now
        listener.look(TrainerState(step))
        assert listener.answered == 1
    listener.saver.finish()
    clock[0] = 1051.0
    listener.look(TrainerState(4))  # the wish was not forgotten
    assert listener.answered == 2
    listener.saver.finish()


def test_a_pause_is_waited_through_and_written_down(tmp_path, model, vocabulary):
    listener = live.listen(tmp_path, model, vocabulary, Pace(100), Ranks()).action.__self__
    live.ask(tmp_path, paused=True)
    waiting = threading.Thread(target=listener.look, args=(TrainerState(7),))
    waiting.start()
    time.sleep(0.5)
    assert waiting.is_alive()
    live.ask(tmp_path, paused=False)
    waiting.join(20)
    assert not waiting.is_alive()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["pause", "unpause"]
    assert json.loads(lines[1])["waited"] > 0.3


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"weights": -1}', b'{"paused": 3}', b"\xff"])
def test_a_damaged_wish_is_none(tmp_path, model, vocabulary, raw):
    listener = live.listen(tmp_path, model, vocabulary, Pace(100), Ranks()).action.__self__
    (tmp_path / live.ASKED).write_bytes(raw)
    listener.look(TrainerState(1))
    assert live.handed(tmp_path) is None


def test_a_pause_of_an_earlier_training_is_forgotten(tmp_path, model, vocabulary):
    live.ask(tmp_path, paused=True)
    live.listen(tmp_path, model, vocabulary, Pace(100), Ranks())
    assert not live.read_wishes(tmp_path).paused


OPTIONS = [
    "--corpus.stories", "40", "--vocabulary.kind", "byte", "--model.depth", "1",
    "--model.hidden-size", "32", "--model.context", "32", "--training.batch-tokens", "128",
    "--training.steps", "10", "--training.checkpoint-every", "2", "--machine.device", "cpu",
    "--quiet",
]  # fmt: skip


def same(place, *names):
    one, two = (
        load_file(place.folder / f"runs/{name}/checkpoints/step-000010/model.safetensors")
        for name in names
    )
    return all(torch.equal(weight, two[name]) for name, weight in one.items())


def test_a_run_that_is_asked_at_each_step_learns_the_same(place, monkeypatch):
    assert place.nextword("train", "--name", "alone", *OPTIONS).returncode == 0
    real, wishes = live._Listener.look, []

    def look(self, state):
        wishes.append(live.ask(self.run, weights=True))
        self.rest = 0.0
        real(self, state)

    monkeypatch.setattr(live._Listener, "look", look)
    assert place.nextword("train", "--name", "asked", *OPTIONS).returncode == 0
    assert len(wishes) == 10
    assert same(place, "alone", "asked")


LOWER = 2**-9
"""A share that six digits do not tell."""


@pytest.mark.parametrize("left", [2, 4, 6])
def test_a_lower_rate_is_known_to_a_run_that_goes_on(place, monkeypatch, left):
    """Halved after steps 4 and 7, and gone on with from before, between and after: it is part of
    the run, and nobody has to ask for it again."""
    real = live._Listener.look

    def look(self, state):
        if state.step in (4, 7):
            live.ask(self.run, scale=0.5 if state.step == 4 else LOWER)
        real(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(live._Listener, "look", look)
        assert place.nextword("train", "--name", "whole", *OPTIONS).returncode == 0
    assert place.nextword("train", "--name", "alone", *OPTIONS).returncode == 0
    assert not same(place, "whole", "alone")
    log = (place.folder / "runs" / "whole" / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in log]
    factors = {one["step"]: one["rate_factor"] for one in events if one["event"] == "step"}
    alone = (place.folder / "runs" / "alone" / "metrics.jsonl").read_text().splitlines()
    usual = {
        one["step"]: one["rate_factor"] for one in map(json.loads, alone) if one["event"] == "step"
    }
    for step, factor in factors.items():
        share = 1 if step <= 4 else 0.5 if step <= 7 else LOWER
        assert factor == pytest.approx(share * usual[step])
    shutil.copytree(place.folder / "runs" / "whole", place.folder / "runs" / "again")
    for later in range(left + 2, 11, 2):
        shutil.rmtree(place.folder / f"runs/again/checkpoints/step-{later:06d}")

    done = place.nextword("train", "--resume", "again")
    assert done.returncode == 0, done.stderr
    assert same(place, "whole", "again")
    recipe = place.folder / "runs" / "again" / "recipe.toml"
    assert f'rates = "4:0.5 7:{LOWER}"' in recipe.read_text()
    done = place.nextword("train", "--recipe", str(recipe), "--name", "told")
    assert done.returncode == 0, done.stderr
    assert same(place, "whole", "told")
