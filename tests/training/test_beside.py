"""What counting needs is counted beside the training where somebody would wait for it."""

import threading
from types import SimpleNamespace

import pytest
import torch

from nextword import callbacks
from nextword.callbacks import Counting
from nextword.machine.ranks import Ranks


def run_with(size, device, first=0):
    return SimpleNamespace(
        ranks=Ranks(0, size),
        machine=SimpleNamespace(device=torch.device(device)),
        training=SimpleNamespace(evaluate_tokens=500, evaluate_every=1),
        plan=SimpleNamespace(batch_tokens=100),
        first_step=first,
        pace=SimpleNamespace(steps=10),
    )


@pytest.fixture
def counted(monkeypatch):
    """Which tokens were counted for, in which thread."""
    found = []

    def count(prepared, most):
        found.append((most, threading.current_thread() is threading.main_thread()))
        return {"unigram": 1.5}

    monkeypatch.setattr(callbacks, "count_beginning", count)
    return found


@pytest.mark.parametrize(("size", "device"), [(2, "cpu"), (1, "cuda")])
def test_it_is_begun_where_others_would_wait(counted, size, device):
    counting = Counting(None)
    counting.begin(run_with(size, device))
    for _ in range(2):
        assert counting.of(500) == {"unigram": 1.5}
    assert counted == [(500, False)]
    assert counting.of(None) == {"unigram": 1.5}
    assert counted[1:] == [(None, True)]


def test_alone_on_a_cpu_it_is_counted_when_it_is_asked_for(counted):
    counting = Counting(None)
    counting.begin(run_with(1, "cpu"))
    counting.begin(run_with(2, "cpu", first=10))  # which has been trained before
    assert not counted
    counting.of(500)
    counting.of(500)
    assert counted == [(500, True)]


def test_what_it_meets_is_told_to_whoever_asks(monkeypatch):
    def fail(prepared, most):
        raise OSError("the text is gone")

    monkeypatch.setattr(callbacks, "count_beginning", fail)
    counting = Counting(None)
    counting.begin(run_with(2, "cpu"))
    with pytest.raises(OSError, match="the text is gone"):
        counting.of(500)


@pytest.mark.parametrize("damage", [None, "best is damaged"])
def test_a_damaged_best_is_passed_over_and_said(monkeypatch, damage):
    best, said = SimpleNamespace(folder=None), []
    monkeypatch.setattr(callbacks, "better_before", lambda run, loss: best)
    monkeypatch.setattr(callbacks, "find_damage", lambda folder, whole: damage)
    run = SimpleNamespace(progress=SimpleNamespace(say=said.append))
    assert callbacks.whole_and_better(run, 1.0) is (None if damage else best)
    assert said == ([f"{damage}; the last checkpoint is told of instead"] if damage else [])
