"""A journal as numbers: read on as it grows, thinned without losing a spike."""

import json
import math
import random

import pytest

from nextword.watch.series import Series


def line(step, loss=1.0, **more):
    known = {"event": "step", "step": step, "loss": loss, "seconds": float(step)}
    return json.dumps({**known, "gradient_norm": 1.0, **more}) + "\n"


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_each_stretch_has_its_least_mean_and_most(journal, tmp_path):
    dice = random.Random(0)
    losses = [dice.random() for _ in range(1003)]
    losses[500] = 99.0
    losses[700] = None
    journal.write_text("".join(line(step + 1, loss) for step, loss in enumerate(losses)))
    series = Series(tmp_path)
    assert series.update()
    curve = series.thinned(50)
    size = math.ceil(1003 / 50)
    assert len(curve["step"]) == math.ceil(1003 / size) <= 50
    for number, start in enumerate(range(0, 1003, size)):
        part = [loss for loss in losses[start : start + size] if loss is not None]
        assert curve["loss"]["least"][number] == min(part)
        assert curve["loss"]["most"][number] == max(part)
        assert curve["loss"]["mean"][number] == pytest.approx(sum(part) / len(part))
    assert max(curve["loss"]["most"]) == 99.0
    near = series.thinned(5000, first=501, last=501)
    assert near["step"] == [501]
    assert near["loss"]["mean"] == [99.0]


def test_it_is_read_on_as_it_grows_line_by_line(journal, tmp_path):
    series = Series(tmp_path)
    assert not series.update()
    assert series.thinned(10)["step"] == []
    assert series.latest() == {}
    whole = line(1) + line(2)
    with open(journal, "w") as stream:
        for place in range(0, len(whole), 7):  # as who writes may be seen in the middle
            stream.write(whole[place : place + 7])
            stream.flush()
            series.update()
            assert len(series.steps) == whole[: place + 7].count("\n")
    assert not series.update()
    assert series.damaged == 0


def test_a_run_that_goes_on_from_an_earlier_step_is_read_anew(journal, tmp_path):
    journal.write_text("".join(map(line, range(1, 9))))
    series = Series(tmp_path)
    series.update()
    journal.write_text("".join(map(line, range(1, 4))))
    assert series.update()
    assert list(series.steps) == [1, 2, 3]
    # And one that was replaced by another as long.
    aside = tmp_path / "aside"
    aside.write_text("".join(line(step, 7.0) for step in range(1, 4)))
    aside.rename(journal)
    series.update()
    assert series.latest()["loss"] == 7.0


def test_clocks_that_begin_anew_are_added_up(journal, tmp_path):
    seconds = [1.0, 2.0, 0.5, 1.5]
    journal.write_text("".join(line(n + 1, seconds=s) for n, s in enumerate(seconds)))
    series = Series(tmp_path)
    series.update()
    assert series.thinned(10)["seconds"]["mean"] == [1.0, 2.0, 2.5, 3.5]


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"[]", b"\xff\xfe", b"[" * 50_000, b'{"event": "step"}',
        b'{"event": 3, "step": 1}', b'{"event": "step", "step": "x"}',
        b'{"event": "step", "step": 1' + b"0" * 400 + b"}",
        b'{"event": "replay", "step": 1}', b'{"event": "replay", "step": 1, "pins": [{}]}',
        b'{"event": "replay", "step": 1, "pins": [{"nats": [1.0], "likeliest": [], '
        b'"likeliest_probability": [0.5]}]}',
        b'{"event": "evaluation", "step": 1, "sample": 5}', b'{"event": "rate", "step": 1}',
        b'{"event": "rate", "step": 1, "scale": 0}', b'{"event": "ruler", "step": 1, "marks": 3}',
        b'{"event": "spike", "step": 1, "usual": "x"}',
        b'{"event": "floor", "step": 1, "nats_per_token": []}',
    ],
)  # fmt: skip
def test_damaged_lines_are_left_out_and_counted(journal, tmp_path, raw):
    journal.write_bytes(line(1).encode() + raw + b"\n" + line(2).encode())
    series = Series(tmp_path)
    series.update()
    assert list(series.steps) == [1, 2]
    assert series.damaged == 1
