"""A run within a time: chosen by measuring, ended by the clock, given again by its recipe."""

import dataclasses
import itertools
import json
import time
import tomllib
from pathlib import Path

import pytest
from safetensors.torch import load_file

from nextword import forecast, pretrain
from nextword.forecast import Choice, choose, taught_seconds
from nextword.training.options import TrainingSettings
from nextword.training.schedule import Pace, rate_factor
from tests.several import all_well, together
from tests.training.test_resume import interrupted

TEXT = "We are all humans born to make mistakes, and to learn from them what we can.\n" * 300
SMALL = ["--model.depth", "1", "--model.hidden-size", "32", "--model.context", "16"]


@pytest.fixture
def text(place):
    (place.folder / "text.txt").write_text(TEXT)
    return "text.txt"


def events(run, kind):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == kind]


def weights(run):
    last = sorted((run / "checkpoints").glob("step-*"))[-1]
    return load_file(last / "model.safetensors")


def test_several_processes_follow_one_clock(place, text):
    """However long each of them would measure, and whatever its own clock says."""
    words = ["train", text, "--name", "it", "--minutes", "0.2", *SMALL]
    all_well(together(place, 2, words, UNLIKE="1"))
    run = place.folder / "runs" / "it"
    steps = [event["step"] for event in events(run, "step")]
    assert steps == list(range(1, len(steps) + 1))
    assert events(run, "end")[0]["step"] == len(steps)


@pytest.fixture
def slow_clock(monkeypatch):
    """A clock that goes on by itself each time somebody looks, faster and faster."""
    ticks = itertools.count()
    monkeypatch.setattr(forecast, "MOST_OF_SMALL", 1e6)
    monkeypatch.setattr(time, "monotonic", lambda: 0.02 * (n := next(ticks)) + 2e-5 * n * n)


def test_the_steps_follow_the_clock_and_the_recipe_gives_the_run_again(place, text, slow_clock):
    done = place.nextword("train", text, "--name", "by-clock", "--minutes", "0.12", *SMALL)
    assert done.returncode == 0, done.stderr
    run = place.folder / "runs" / "by-clock"
    changes = [(event["step"], event["steps"]) for event in events(run, "pace")]
    planned = json.loads((run / "run.json").read_text())["plan"]["steps"]
    done_steps = len(events(run, "step"))
    assert changes
    assert changes[-1][1] == done_steps != planned
    factors = [event["rate_factor"] for event in events(run, "step")]
    assert all(after < before for before, after in itertools.pairwise(factors[20:]))
    # How near to zero that is depends on how fast this machine is beside the clock of this test.
    whole = rate_factor(*Pace(planned, changes).place(done_steps - 1), TrainingSettings())
    assert factors[-1] == whole
    recipe = tomllib.loads((run / "recipe.toml").read_text())["training"]
    assert "minutes" not in recipe
    assert recipe["steps"] == planned
    again = place.nextword("train", text, "--name", "again", "--recipe", str(run / "recipe.toml"))
    assert again.returncode == 0, again.stderr
    other = place.folder / "runs" / "again"
    assert [event["loss"] for event in events(other, "step")] == [
        event["loss"] for event in events(run, "step")
    ]
    for name, value in weights(run).items():
        assert value.equal(weights(other)[name]), name


def test_a_run_that_stopped_goes_on_with_the_time_it_had_left(place, text, slow_clock):
    every = ["--training.checkpoint-every", "20"]
    first = place.nextword("train", text, "--name", "it", "--minutes", "0.12", *SMALL, *every)
    assert first.returncode == 0, first.stderr
    run = place.folder / "runs" / "it"
    saved = sorted((run / "checkpoints").glob("step-*"))
    left = [json.loads((one / "training/state.json").read_text())["seconds_left"] for one in saved]
    assert left == sorted(left, reverse=True)
    assert 0 < left[0] < 7.2
    before = [e for e in events(run, "pace") if e["step"] <= 20]
    ended = place.nextword("train", "--resume", "it")
    assert ended.returncode == 2
    done_steps = len(events(run, "step"))
    assert f"has done {done_steps} of {done_steps} steps" in ended.stderr
    # Planned shorter than it became: it goes on all the same.
    facts = json.loads((run / "run.json").read_text())
    assert facts["plan"]["steps"] != done_steps
    done = place.nextword("train", "--resume", "it@20")
    assert done.returncode == 0, done.stderr
    assert events(run, "pace")[: len(before)] == before
    steps = [event["step"] for event in events(run, "step")]
    assert steps == list(range(1, steps[-1] + 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--minutes", "1", "--training.steps", "5"], "give one of them"),
        (["--minutes", "0"], "must be more than 0"),
        (["--minutes", "0.0001"], "give it more time"),
    ],
)
def test_a_time_that_cannot_be_is_refused(place, text, options, words):
    done = place.nextword("train", text, *options, *SMALL)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (place.folder / "runs").exists()


def test_a_time_that_is_more_than_helps_is_not_used_up(place, text):
    done = place.nextword("train", text, "--name", "it", "--minutes", "600", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "before its time" in done.stderr
    assert "What would make it better? More text" in done.stderr
    run = place.folder / "runs" / "it"
    assert [*run.parent.iterdir()] == [run]  # who says the size gets no teacher of another one
    planned = json.loads((run / "run.json").read_text())["plan"]["steps"]
    assert len(events(run, "step")) == planned
    assert not events(run, "pace")
    assert tomllib.loads((run / "recipe.toml").read_text())["training"]["steps"] == planned


def test_the_largest_network_that_there_is_time_for_is_taken():
    found = [Choice(None, 1.0, 60.0), Choice(None, 3.0, 200.0), Choice(None, 9.0, 700.0)]
    for left, taken in ((15.0, 0), (139.0, 0), (141.0, 1), (489.0, 1), (491.0, 2)):
        assert choose(found, left, alone=True) == (found[taken], ())


def test_networks_teach_one_another_where_there_is_time_for_two():
    found = [Choice(None, 1.0, 50.0), Choice(None, 2.0, 120.0), Choice(None, 4.0, 400.0)]
    # Who teaches is asked at each step of the others, which takes a third of its own: 50 and, of 60
    # steps, 140 seconds; 100 steps of the third take 500.
    assert taught_seconds(found) == pytest.approx([50, 140, 500])
    assert choose(found, 161.0) == (found[1], ())  # 50 + 0.8 · 140 = 162
    assert choose(found, 163.0) == (found[1], found[:1])
    assert choose(found, 589.0) == (found[1], found[:1])  # 50 + 140 + 0.8 · 500 = 590
    assert choose(found, 591.0) == (found[2], found[:2])
    assert choose(found[:1], 1e9) == (found[0], ())


def test_with_time_for_several_each_is_taught_by_all_before(place, text, monkeypatch):
    monkeypatch.setattr(forecast, "WORTH", {1: 0, 2: 0})
    plan = pretrain.make_plan
    monkeypatch.setattr(
        pretrain,
        "make_plan",
        lambda *asked, **how: dataclasses.replace(plan(*asked, **how), steps=8),
    )
    asked = ["train", text, "--name", "it", "--minutes", "600"]
    foreseen = place.nextword(*asked, "--dry-run")
    assert "100% of each target is what its 2 teachers expect together" in foreseen.stderr
    assert "at most, in the run's folder and its 2 teachers'" in foreseen.stdout
    counted = json.loads(place.nextword(*asked, "--dry-run", "--json").stdout)
    done = place.nextword(*asked, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("which the next network learns from") == 2
    assert done.stderr.count("What would make it better?") == 1
    runs, names = place.folder / "runs", ["it", "it-teacher-1", "it-teacher-2"]
    assert sorted(run.name for run in runs.iterdir()) == names
    last, first, second = (
        tomllib.loads((runs / name / "settings.toml").read_text()) for name in names
    )
    layers = [one["model"]["depth"] for one in (first, second, last)]
    assert layers == [1, 2, 2]  # the largest once more
    assert done.stderr.count(" wide once more, taught by all before") == 2
    first, second, last = (one["training"] for one in (first, second, last))
    assert [one["seed"] for one in (first, second, last)] == [1, 2, 0]
    assert "teacher" not in first
    taught_by = [
        [Path(folder).parent.parent.name for folder in one["teacher"].split(",")]
        for one in (second, last)
    ]
    assert taught_by == [names[1:2], names[1:]]
    assert [one["soft_targets"] for one in (second, last)] == [1.0, 1.0]
    assert "minutes" not in {**first, **second}
    assert last["minutes"] == 600
    # That each asks all before it was foreseen, and that three are kept.
    facts = [json.loads((runs / name / "run.json").read_text()) for name in [*names[1:], "it"]]
    own = [one["flops_per_token"] for one in facts]
    read = [8 * one["plan"]["rows"] * one["plan"]["context"] for one in facts]
    asked = zip(read, own, (0, own[0], own[0] + own[1]), strict=True)
    assert counted["flops"] == pytest.approx(sum(n * (of + more / 3) for n, of, more in asked))
    assert counted["teachers"] == 2
    alone = 2 * 8 * facts[-1]["parameters"]
    assert 2 * alone < counted["disk_bytes"] < 4 * alone
    # Its recipe gives the same run again, from the same teacher and without a clock.
    monkeypatch.setattr(pretrain, "make_plan", plan)
    recipe = str(runs / "it" / "recipe.toml")
    again = place.nextword("train", text, "--name", "again", "--recipe", recipe)
    assert again.returncode == 0, again.stderr
    assert [event["loss"] for event in events(runs / "again", "step")] == [
        event["loss"] for event in events(runs / "it", "step")
    ]


def test_who_stops_a_teacher_is_told_how_all_of_it_goes_on(place, text):
    words = [text, "--name", "it", "--minutes", "600"]
    status, said = interrupted(place, "it-teacher-1", *words)
    assert status == 130
    assert "go on with: nextword train --resume it-teacher-1" in said
    assert "nextword train text.txt --training.teacher it-teacher-1" in said


def test_a_dry_run_says_what_the_run_then_is(place, text):
    options = [*SMALL, "--training.tokens", "8000"]
    done = place.nextword("train", text, "--dry-run", "--json", *options)
    assert done.returncode == 0, done.stderr
    assert not (place.folder / "runs").exists()
    found = json.loads(done.stdout)
    assert place.nextword("train", text, "--name", "it", *options).returncode == 0
    run = place.folder / "runs" / "it"
    facts = json.loads((run / "run.json").read_text())
    assert found["parameters"] == facts["parameters"]
    assert found["steps"] == facts["plan"]["steps"] == len(events(run, "step"))
    assert found["tokens"] == sum(1 for _ in events(run, "step")) * facts["plan"]["rows"] * 16
    kept = list((run / "checkpoints").rglob("*.safetensors"))
    size = sum(file.stat().st_size for file in kept) / len(list((run / "checkpoints").iterdir()))
    assert found["disk_bytes"] == pytest.approx(2 * size, rel=0.5)
    assert found["memory_bytes"] > 4 * found["parameters"]
    assert found["expected"] is None  # the network is not the default's
    assert found["counted"] > 0


def test_a_dry_run_of_the_default_says_what_it_should_come_to(place, text):
    done = place.nextword("train", text, "--dry-run", "--rate", "2")
    assert done.returncode == 0, done.stderr
    assert "counting needs" in done.stdout
    assert "2 TFLOP/s are really done" in done.stdout
    refused = place.nextword("train", text, "--rate", "2")
    assert refused.returncode == 2
    assert "--dry-run" in refused.stderr
