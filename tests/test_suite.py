"""The suite itself: no skip is unreviewed, no model trained once changed, no room slow."""

import ast
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from tests import division
from tests.place import Place
from tests.trained import Trained

TESTS = Path(__file__).parent
ROOMS = sorted(folder.name for folder in TESTS.iterdir() if any(folder.glob("test_*.py")))


def test_each_process_has_its_share_of_the_cores_and_gives_it_on():
    share = int(os.environ["OMP_NUM_THREADS"])
    assert torch.get_num_threads() == share
    code = "import torch; print(torch.get_num_threads())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert int(done.stdout) == share
    assert os.environ["GOMP_SPINCOUNT"]


def names_in(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    name = file.relative_to(TESTS.parent).as_posix()
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {f"{name}::{one.name}" for one in functions if one.name.startswith("test_")}


def test_every_room_keeps_tests_for_the_inner_loop():
    costs = division.known()["tests"]
    slow = {name.split("[")[0] for name, cost in costs.items() if cost > division.SLOW_TEST}
    for room in ROOMS:
        fast = set().union(*map(names_in, (TESTS / room).glob("test_*.py"))) - slow
        assert len(fast) >= 2, room


def test_what_was_measured_is_there():
    """Else tests that moved would be divided as if nobody knew their cost."""
    files = {file.relative_to(TESTS.parent).as_posix() for file in TESTS.rglob("test_*.py")}
    assert {name.split("::")[0] for name in division.known()["tests"]} <= files


SUITE = """
    import pytest
    from tests import division
    from tests.conftest import *

    division.DURATIONS = division.Path(__file__).with_name("durations.json")
"""


@pytest.fixture
def suite(tmp_path):
    """Another suite with the hooks of this one."""
    (tmp_path / "conftest.py").write_text(textwrap.dedent(SUITE))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  slow: slow\n")
    (tmp_path / "durations.json").write_text('{"tests": {}, "fixtures": {}}')

    def run(content, *options):
        (tmp_path / "test_it.py").write_text(textwrap.dedent(content))
        options = ("-p", "no:cacheprovider", "-p", "xdist.plugin", *options)
        environment = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
        for name in [name for name in environment if name.startswith("PYTEST_")]:
            del environment[name]
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # most cost seconds to import
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-v", *options],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


SKIPS = """
    import pytest

    def test_skipped():
        pytest.skip("{reason}")

    def test_passes():
        pass
"""


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_skip_that_nobody_reviewed_fails_the_session(suite, processes):
    divided = ("-n", processes)
    failed = suite(SKIPS.format(reason="no time today"), *divided)
    assert failed.returncode == 1
    assert "reviewed list" in failed.stdout
    assert "test_skipped: no time today" in failed.stdout
    assert suite(SKIPS.format(reason="no accelerator"), *divided).returncode == 0


DIVIDED = """
    import os, time
    import pytest

    @pytest.fixture(scope="module")
    def dear():
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
        with open("made", "a") as file:
            file.write("made\\n")

    def test_cheap(): pass
    def test_one(dear): pass
    def test_two(dear): pass
    def test_other(): pass
    def test_costly():
        until = time.process_time() + 0.25  # the clock that measures it ticks in hundredths
        while time.process_time() < until:
            pass
"""


def test_the_dearest_come_first_and_what_shares_a_fixture_stays_together(suite, tmp_path):
    costs = tmp_path / "durations.json"
    assert suite(DIVIDED, "-n0", "--measure").returncode == 0
    measured = json.loads(costs.read_text())
    assert measured["fixtures"] == {"test_it.py::dear": pytest.approx(0.35, abs=0.2)}
    assert measured["tests"]["test_it.py::test_costly"] >= 0.2
    assert measured["tests"]["test_it.py::test_one"] < 0.2
    measured["tests"] |= {"test_it.py::test_costly": 9.0, "test_it.py::test_cheap": 0.01}
    costs.write_text(json.dumps(measured))
    (tmp_path / "made").unlink()
    order = [
        line.split("::")[1].split()[0]
        for line in suite(DIVIDED, "-n0").stdout.splitlines()
        if line.startswith("test_it.py::")
    ]
    assert order[:3] == ["test_costly", "test_one", "test_two"]
    left = suite(DIVIDED, "-n0", "-m", "not slow").stdout
    assert "test_costly" not in left
    assert "4 passed" in left
    (tmp_path / "made").unlink()
    assert suite(DIVIDED, "-n", "2").returncode == 0
    assert (tmp_path / "made").read_text() == "made\n"


LATE = """
    import pytest

    @pytest.fixture(scope="session")
    def default_run(): pass

    def test_long(default_run): pass
    def test_middle(): pass
    def test_short(default_run): pass
"""


def test_the_default_run_is_trained_first_and_asked_last(suite, tmp_path):
    costs = {"test_it.py::test_long": 9.0, "test_it.py::test_short": 0.1}
    known = {"tests": costs, "fixtures": {"test_it.py::default_run": 99.0}}
    (tmp_path / "durations.json").write_text(json.dumps(known))
    said = suite(LATE, "-n0").stdout
    assert said.index("::test_short") < said.index("::test_middle") < said.index("::test_long")
    assert "1 passed" in suite(LATE, "-n0", "-m", "not slow").stdout


def test_a_model_is_trained_once_and_nobody_works_on_the_original(tmp_path, monkeypatch):
    said, asked = subprocess.CompletedProcess([], 0, "out", "err"), []

    def train(place, *arguments, timeout, starts):
        assert starts
        asked.append(arguments)
        for part in ("runs/a", "cache"):
            (place.folder / part).mkdir(parents=True)
        facts = {"prepared": str(place.folder / "cache")}
        (place.folder / "runs" / "a" / "run.json").write_text(json.dumps(facts))
        return said

    monkeypatch.setattr(Place, "process", train)
    places = [Place(tmp_path / name) for name in "abc"]
    trained = Trained(tmp_path / "trained")
    for place in places[:2]:
        assert trained.copy_to(place, "train").stdout == "out"
        facts = json.loads((place.folder / "runs" / "a" / "run.json").read_text())
        assert facts["prepared"] == str(place.folder / "cache")
    assert asked == [("train",)]
    (places[0].folder / "runs" / "a" / "run.json").write_text("{}")
    Trained(tmp_path / "trained").copy_to(places[2], "train")
    assert asked == [("train",)]
    trained.copy_to(places[2], "train", "--name", "b")
    monkeypatch.setattr("tests.trained.code_digest", lambda: "another program")
    Trained(tmp_path / "trained").copy_to(places[2], "train")
    assert len(asked) == 3
    for original in (tmp_path / "trained").glob("*/runs/a/run.json"):
        original.write_text("{}")  # what is no longer as it was made is made again
    trained.copy_to(places[2], "train")
    assert len(asked) == 4


def test_a_command_in_this_process_ends_as_in_one_of_its_own(place):
    (place.folder / "t.txt").write_text("the cat sat on the mat. " * 200)
    options = ("--training.steps", "2", "--vocabulary.kind", "byte", "--machine.threads", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    for name, run in (("here", place.nextword), ("there", place.process)):
        done = run("train", "t.txt", "--name", name, *options, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["run"].endswith(name)
        assert "Done in" in done.stderr
        wrong = run("train", "t.txt", "--name", name)
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert wrong.stderr.startswith("nextword: ")
        assert f"--resume {name}" in wrong.stderr
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)
    saved = [next((place.folder / "runs" / name / "checkpoints").iterdir()) for name in
             ("here", "there")]  # fmt: skip
    first, second = ((folder / "model.safetensors").read_bytes() for folder in saved)
    assert first == second
    assert float(torch.tensor(1e-45) * 1) > 0  # the smallest numbers count again


def test_an_error_of_the_programs_own_is_shown(place, monkeypatch):
    from nextword.cli import program

    def broken(*given, **options):
        raise ZeroDivisionError("not meant for users")

    monkeypatch.setattr(program, "app", broken)
    done = place.nextword("runs", "--debug")
    assert done.returncode not in (0, 2)
    assert "ZeroDivisionError: not meant for users" in done.stderr
