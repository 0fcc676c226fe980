"""However many processes share the work, what it comes to is the same to the last bit."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

from nextword.base import signals
from nextword.base.signals import Asked, Broken
from nextword.machine.ranks import Ranks
from nextword.prediction import evaluate as module
from nextword.prediction.divided import SHARES, TURNS, add_up, share_out, tokens_at_once
from nextword.prediction.evaluate import evaluate
from nextword.prediction.options import EvaluationSettings
from tests.model.test_transformer import scattered
from tests.prediction.test_evaluate import Texts


class Several(Ranks):
    """One of several processes of which each keeps what it would send."""

    def __new__(cls, *given):
        made = super().__new__(cls)
        object.__setattr__(made, "sent", [])
        return made

    def sum(self, value):
        self.sent.append(value.clone())
        return value

    def most(self, *values):
        return list(values)


def parts_of(batches, size):
    """What each of several processes sends: its own batches, and zeros for the others'."""
    found = []
    for rank in range(size):
        ranks = Several(rank, size)
        add_up(batches, lambda batch: batch, 3, ranks)
        (told,) = ranks.sent
        found.append(told)
    return found


@pytest.mark.parametrize("size", [2, 3, 4, 7])
@pytest.mark.parametrize("many", [0, 1, 5, 40])
def test_sums_are_those_of_one_process(size, many):
    source = np.random.default_rng(many)
    batches = [source.normal(size=3) * 10.0 ** source.integers(-9, 9) for _ in range(many)]
    alone = add_up(batches, lambda batch: batch, 3)
    parts = parts_of(batches, size)
    asked = [int((part != 0).any(1).sum()) for part in parts]
    assert sum(asked) == many
    assert max(asked) - min(asked) <= 1  # nobody does much more than others

    class Told(Ranks):
        def sum(self, value):
            return sum(parts, torch.zeros_like(value))

        def most(self, *values):
            return list(values)

    assert add_up(batches, lambda batch: batch, 3, Told(0, size)).tobytes() == alone.tobytes()
    if many == 40:  # each process' sum by itself, and then theirs, is not the same
        by_process = sum(part.numpy().sum(0) for part in parts)
        assert by_process.tobytes() != alone.tobytes()


@pytest.mark.parametrize("rank", range(3))
def test_all_leave_at_the_same_batch(rank):
    """Whoever is told; none goes on where another waits for it."""
    done = []

    class OneIsTold(Ranks):
        def most(self, *values):
            return [float(len(done) >= 2 * TURNS)]

    def score(batch):
        done.append(batch)
        return np.zeros(1)

    with pytest.raises(Broken):
        add_up(range(1000), score, 1, OneIsTold(rank, 3))
    assert len(done) == 2 * TURNS


def test_who_is_alone_leaves_at_once(monkeypatch):
    monkeypatch.setattr(signals, "_listening", [Asked(stop=15, breakable=True)])
    with pytest.raises(Broken):
        add_up(range(3), lambda batch: np.zeros(1), 1)


@pytest.mark.parametrize("rank", range(4))
def test_a_part_is_some_for_everybody(rank, monkeypatch):
    """Though one batch could hold all of it."""
    asked, score = [], module._score
    monkeypatch.setattr(module, "_score", lambda *of: (asked.append(of), score(*of))[1])
    most = tokens_at_once(EvaluationSettings().batch_tokens, 160)
    settings = EvaluationSettings(batch_tokens=most)
    evaluate(scattered(), Texts([3] * 60), settings, max_tokens=160, ranks=Several(rank, 4))
    assert SHARES // 4 <= len(asked) <= SHARES // 4 + 4
    assert tokens_at_once(7, 160) == 7
    assert tokens_at_once(1000, None) == 1000


TEXTS = ("Once upon", "", "ééé, and 日本", "the end")


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_each_job_is_done_once_and_all_know_what_came_of_it(size):
    """Each process asks in a thread; they are summed up when all have come."""
    done, tables = [], [[], []]
    meet = threading.Barrier(size)

    class Together(Ranks):
        def most(self, *values):
            return self._all(0, values, lambda all_: [max(one) for one in zip(*all_, strict=True)])

        def sum(self, value):
            return self._all(1, value, sum)

        def _all(self, table, value, what):
            tables[table].append(value)
            meet.wait()
            return what(tables[table])

    def job(number):
        done.append(number)
        return TEXTS[number]

    def ask(rank):
        return share_out([partial(job, number) for number in range(4)], Together(rank, size))

    with ThreadPoolExecutor(size) as threads:
        assert list(threads.map(ask, range(size))) == [[*TEXTS]] * size
    assert sorted(done) == [0, 1, 2, 3]


def test_who_divides_the_weights_does_each_job_with_the_others():
    ranks = Several(1, 2, None, 1, False, "fsdp")
    assert share_out([lambda: "one", lambda: "two"], ranks) == ["one", "two"]
    assert not ranks.sent
