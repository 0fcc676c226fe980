"""A journal that grows, goes back or is damaged, and a tracker that fails."""

import io
import json
import os
import subprocess
import sys
import threading
import time
import types

import pytest

from nextword.base.errors import NextwordError, RunError, SettingsError
from nextword.track import follow, tracker
from nextword.track.follow import Follower
from nextword.track.start import follow_run
from tests.track.conftest import events_of, series_of


class Fake:
    """Takes all, and can be told to fail or to forget."""

    def __init__(self, known, folder, id_):
        self.known, self.begun = known, id_
        self.id = id_ or "one"
        self.where = "look here"
        self.told, self.words_told, self.pages, self.closed = [], [], [], None

    def numbers(self, step, when, values):
        self.told += [(name, step, when, value) for name, value in values.items()]

    def words(self, step, when, name, text):
        self.words_told.append((name, step, text))

    def page(self, step, when, name, html, markdown):
        self.pages.append((step, html, markdown))

    def forget(self):
        self.told.clear()  # so that only what is told anew stands there
        return self.forgets

    def flush(self):
        pass

    def close(self, *, ended):
        self.closed = ended

    forgets = False

    def series(self):
        found = {}
        for name, step, _, value in self.told:
            found.setdefault(name, []).append((step, value))
        return found


@pytest.fixture
def fake(monkeypatch):
    """The class of a tracker that is known by the name `fake`."""

    class Own(Fake):
        pass

    module = types.ModuleType("nextword.track.fake")
    module.open_run = Own
    monkeypatch.setitem(sys.modules, "nextword.track.fake", module)
    monkeypatch.setitem(tracker.PACKAGES, "fake", ())
    return Own


def test_followed_while_it_grows_it_is_told_the_same_as_later(run, fake):
    journal, lines = run / "metrics.jsonl", (run / "metrics.jsonl").read_bytes().splitlines(True)
    journal.write_bytes(b"")
    follower, gone = Follower(run, "fake"), threading.Event()
    thread = threading.Thread(target=follower.follow, args=(gone,))
    thread.start()
    for line in lines:
        with journal.open("ab") as stream:  # half a line is no line yet
            stream.write(line[:20])
            stream.flush()
            stream.write(line[20:])
    gone.set()
    thread.join()
    follower.close()
    assert follower.tracker.closed is True
    live = follower.tracker.told
    (run / "tracked" / "fake.json").unlink()
    later = Follower(run, "fake")
    later.follow()
    assert later.tracker.told == live
    expected, series = series_of(run), later.tracker.series()
    for name, points in expected.items():
        assert series[name] == [(step, pytest.approx(value)) for step, value in points]
    assert later.tracker.known.settings["training.steps"] == 12
    assert later.tracker.known.settings["shape.hidden_size"] == 128
    whens = [when for _, _, when, _ in later.tracker.told]
    assert whens == sorted(whens)
    began = time.mktime(time.strptime("2026-01-01", "%Y-%m-%d"))
    assert whens[0] > began
    later.close()


def test_a_line_that_is_just_written_is_told_whole_and_later(run, fake, monkeypatch):
    """Its rest may come between two looks at the file."""
    lines = (run / "metrics.jsonl").read_bytes().splitlines(True)
    pieces = [lines[0], lines[1][:20], lines[1][20:], *lines[2:]]

    class Growing(io.BytesIO):
        def __iter__(self):
            return iter(pieces)

    follower = Follower(run, "fake")
    with monkeypatch.context() as patch:
        patch.setattr(follow, "open", lambda *given: Growing(), raising=False)
        assert list(follower._new_lines()) == [lines[0]]
    follower.follow()
    live = follower.tracker.told
    follower.close()
    (run / "tracked" / "fake.json").unlink()
    later = Follower(run, "fake")
    later.follow()
    assert later.tracker.told == live
    later.close()


@pytest.mark.parametrize("forgets", [True, False])
def test_a_journal_that_went_back_is_told_anew_where_that_can_be(run, fake, forgets):
    fake.forgets = forgets
    follower = Follower(run, "fake")
    follower.follow()
    before = follower.tracker.series()
    journal = run / "metrics.jsonl"
    events = events_of(run)
    for event in events:
        if event["event"] == "step" and event["step"] > 6:
            event["loss"] += 1  # what was gone over again came out otherwise
    more = {"event": "step", "step": 13, "loss": 1.0, "gradient_norm": 1.0, "seconds": 1.0}
    journal.write_text("".join(json.dumps(one) + "\n" for one in [*events, more]))
    follower.follow()
    after = follower.tracker.series()
    if forgets:
        assert after["train/loss"] == series_of(run)["train/loss"]
    else:
        assert after == {"train/loss": [(13, 1.0)], "train/gradient_norm": [(13, 1.0)]}
    assert len(before["train/loss"]) == 12
    follower.close()


def test_a_journal_that_does_not_exist_yet_is_waited_for(run, fake):
    journal, lines = run / "metrics.jsonl", (run / "metrics.jsonl").read_bytes()
    journal.unlink()
    follower, gone = Follower(run, "fake"), threading.Event()
    assert follower.where == "look here"  # it is open before there is a line
    thread = threading.Thread(target=follower.follow, args=(gone,))
    thread.start()
    time.sleep(0.1)
    journal.write_bytes(lines)
    gone.set()
    thread.join()
    assert follower.tracker.series()["train/loss"] == series_of(run)["train/loss"]
    follower.close()


def test_places_of_this_machine_stay_here(run, fake):
    facts = json.loads((run / "run.json").read_text())
    facts["warm_start"] = "/home/somebody/model"
    (run / "run.json").write_text(json.dumps(facts))
    recipe = (run / "settings.toml").read_text()
    recipe = recipe.replace("# source is derived", 'source = "/home/somebody/tokenizer.json"')
    (run / "settings.toml").write_text(recipe)
    follower = Follower(run, "fake")
    follower.follow()
    told = follower.tracker.known.settings
    assert told["vocabulary.source"] == "tokenizer.json"
    assert not [name for name, value in told.items() if str(value).startswith("/")]
    follower.close()


def test_damaged_lines_are_passed_over(run, fake):
    journal = run / "metrics.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    for bad in (
        *(b"\xff\n", b"{\n", b"[]\n", b"1\n", b"{}\n", b'{"event": "step", "step": "x"}\n'),
        *(b'{"event": "step", "step": 1e999}\n', b'{"event": "ruler", "step": 3, "marks": 7}\n'),
        b'{"event": "replay", "step": 3, "pins": [{"nats": "x"}]}\n',
        b"[" * 100_000 + b"\n",
    ):
        lines.insert(5, bad)
    journal.write_bytes(b"".join(lines))
    follower = Follower(run, "fake")
    follower.follow()
    assert follower.tracker.series()["train/loss"] == [
        (step, pytest.approx(value)) for step, value in _losses(lines)
    ]
    follower.close()


def _losses(lines):
    for line in lines:
        if line.startswith(b'{"event": "step"') and b"loss" in line:
            event = json.loads(line)
            yield event["step"], event["loss"]


def test_one_process_at_a_time_tells_a_tracker_of_a_run(run, fake):
    follower = Follower(run, "fake")
    with pytest.raises(RunError, match="another process tells fake of it already"):
        Follower(run, "fake")
    follower.close()
    Follower(run, "fake").close()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"place": -1}', '{"last": {"step": "x"}}'])
def test_a_damaged_note_of_what_was_told_is_one_line(run, fake, text):
    (run / "tracked").mkdir()
    (run / "tracked" / "fake.json").write_text(text)
    with pytest.raises(NextwordError, match=r"fake\.json"):
        follow_run("small", "fake", lambda line: None, forever=False)


def test_a_tracker_that_fails_is_one_line(run, fake, monkeypatch):
    def fail(*_):
        raise OSError("disk on fire at https://me:secret@host/x\nand more")

    monkeypatch.setattr(fake, "numbers", fail)
    with pytest.raises(RunError, match=r"fake failed: OSError: disk on fire at https://…@host/x"):
        follow_run("small", "fake", lambda line: None, forever=False)


def test_unknown_and_missing_ones_are_named(place, monkeypatch):
    with pytest.raises(SettingsError, match="no tracker 'clipboard'"):
        tracker.opener("clipboard")
    monkeypatch.setitem(tracker.PACKAGES, "wandb", ("no_such_package",))
    with pytest.raises(SettingsError, match=r"pip install 'nextword\[wandb\]'"):
        tracker.opener("wandb")
    done = place.nextword("train", "--track", "wandb", "--training.steps", "2")
    assert done.returncode == 2
    assert "needs the package no_such_package" in done.stderr
    assert not (place.folder / "runs").exists()  # before anything was trained


OPTIONS = ["--training.steps", "4", "--corpus.stories", "100"]


TRACKED = ["--track", "tensorboard", *OPTIONS]


def test_a_training_says_where_it_is_seen(place):
    pytest.importorskip("tensorboard", reason="trackers are not installed")
    done = place.process("train", "--name", "told", *TRACKED)
    assert done.returncode == 0, done.stderr
    assert "tensorboard is told of told; look with: tensorboard --logdir" in done.stderr


BROKEN = """
import os, signal, sys, time, types
module = types.ModuleType("nextword.track.tensorboard")

class Broken:
    id, where = "one", "nowhere"
    def __init__(self, *given): pass
    def words(self, *given): pass
    page = words
    def numbers(self, step, when, values):
        open("met", "a").write(f"{{step}} {{os.getpid()}}\\n")
        {what}

module.open_run = Broken
sys.modules[module.__name__] = module
"""
"""What is read when Python starts: a tracker that breaks in the middle of a run."""
HANGS = "time.sleep(600)"
DIES = "os.kill(os.getpid(), signal.SIGKILL)"
TRAIN = """
import nextword.watch.beside as beside
from nextword.cli import main
beside.LAST_WORDS_SECONDS = 2
"""


@pytest.mark.parametrize(("what", "why"), [(HANGS, "within 2 s"), (DIES, "by signal 9")])
def test_a_tracker_that_hangs_or_dies_in_the_middle_never_stops_training(place, what, why):
    (place.folder / "site").mkdir()
    (place.folder / "site" / "sitecustomize.py").write_text(BROKEN.format(what=what))
    environment = place.environment()
    paths = [str(place.folder / "site"), environment.get("PYTHONPATH")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    words = ["train", "--name", "told", "--quiet", *TRACKED]
    done = subprocess.run(
        [sys.executable, "-c", f"{TRAIN}main({words!r})"],
        cwd=place.folder, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert why in done.stderr
    assert "the run itself is whole" in done.stderr
    assert "nextword track told --to tensorboard" in done.stderr
    events = events_of(place.folder / "runs" / "told")
    assert events[-1]["event"] == "end"
    assert [one["step"] for one in events if one["event"] == "step"] == list(range(1, 5))
    ((_, process),) = [line.split() for line in (place.folder / "met").read_text().splitlines()]
    with pytest.raises(ProcessLookupError):  # nothing is left behind
        os.kill(int(process), 0)


def test_a_tracker_that_cannot_begin_never_stops_training(place):
    broken = place.folder / "broken" / "tensorboard"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('broken on purpose')\n")
    environment = place.environment() | {"PYTHONPATH": str(broken.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "nextword", "train", "--name", "told", "--quiet", *TRACKED],
        cwd=place.folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert "tensorboard failed: RuntimeError: broken on purpose; training goes on" in done.stderr
    assert "nextword track told --to tensorboard" in done.stderr
    assert events_of(place.folder / "runs" / "told")[-1]["event"] == "end"
