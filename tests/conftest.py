"""What tests share: places for runs and prepared text, and one default run for all who need one."""

import contextlib
import io
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.division import Division, number_of_workers, share_the_cores
from tests.trained import Trained, digests


@dataclass(frozen=True)
class Place:
    """A folder with its own runs and its own cache."""

    folder: Path

    def variables(self) -> dict[str, str]:
        """What the program is told of this place."""
        return {
            "NEXTWORD_CACHE": str(self.folder / "cache"),
            "NEXTWORD_RUNS": str(self.folder / "runs"),
            "NO_COLOR": "1",
        }

    def environment(self) -> dict[str, str]:
        """The environment of a process that works here."""
        return {**os.environ, **self.variables(), "PYTHONWARNINGS": ""}

    def nextword(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run a command in this process: as `process` does, without starting Python and torch.

        What a command changes of the process is put back, so that the next one finds it new.
        """
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="") for _ in range(2))
        with _as_if_new(self, out, err):
            status = _status_of(arguments)
            for stream in (out, err):
                stream.flush()
        said = (stream.buffer.getvalue().decode("utf-8") for stream in (out, err))
        return subprocess.CompletedProcess(arguments, status, *said)

    def process(
        self, *arguments: str, stdin: bytes | None = None, timeout: float | None = 600
    ) -> subprocess.CompletedProcess:
        """Run a command as a user does, where a process of its own is part of the claim."""
        done = subprocess.run(
            [sys.executable, "-m", "nextword", *arguments],
            cwd=self.folder,
            env=self.environment(),
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
        )


@contextlib.contextmanager
def _as_if_new(place: Place, out: io.TextIOWrapper, err: io.TextIOWrapper) -> Iterator[None]:
    """Stand in a place, with streams of one's own, and leave all as it was."""
    import torch

    threads, nothing = torch.get_num_threads(), io.TextIOWrapper(io.BytesIO())
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        for name, value in place.variables().items():
            patch.setenv(name, value)
        patch.chdir(place.folder)
        for name, stream in (("stdin", nothing), ("stdout", out), ("stderr", err)):
            patch.setattr(sys, name, stream)
        torch.set_flush_denormal(False)
        try:
            yield
        finally:
            torch.set_flush_denormal(False)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


def _status_of(arguments: tuple[str, ...]) -> int:
    """Run the command line and return the status with which its process would end."""
    from nextword.cli import main

    try:
        main([*arguments])
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:  # what a process would print, for the test to find
        traceback.print_exc()
        return 1
    return 0


@pytest.fixture(scope="session")
def trained(pytestconfig: pytest.Config) -> Trained:
    """Models that are trained once for all processes, and for the next run of the suite."""
    root = os.environ.get("NEXTWORD_TEST_CACHE") or pytestconfig.cache.mkdir("trained")
    return Trained(Path(root))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The session's place: its runs are read by many tests and changed by none."""
    return Place(tmp_path_factory.mktemp("shared"))


@contextlib.contextmanager
def _untouched(run: Path) -> Iterator[None]:
    """Fail where a test has changed what others read."""
    before = digests(run)
    yield
    after = digests(run)
    assert {name: after.get(name) for name in before} == before, f"a test has changed {run.name}"


@pytest.fixture(scope="session")
def default_run(shared: Place, trained: Trained) -> Iterator[subprocess.CompletedProcess]:
    """`nextword train`, as the README says; the run is named stories-1."""
    done = trained.copy_to(shared, "train")
    with _untouched(shared.folder / "runs" / "stories-1"):
        yield done


@pytest.fixture(scope="session")
def small_run(shared: Place, trained: Trained) -> Iterator[str]:
    """A run of a few steps, for what does not need a good model."""
    options = ["--training.steps", "12", "--corpus.stories", "400"]
    options += ["--training.evaluate-every", "4", "--training.checkpoint-every", "6"]
    trained.copy_to(shared, "train", "--name", "small", *options)
    with _untouched(shared.folder / "runs" / "small"):
        yield "small"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place of a test's own, also for what it calls in this process."""
    here = Place(tmp_path)
    monkeypatch.setenv("NEXTWORD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NEXTWORD_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return here


@pytest.fixture
def shared_environment(shared: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Look into the session's place from this process."""
    monkeypatch.setenv("NEXTWORD_CACHE", str(shared.folder / "cache"))
    monkeypatch.setenv("NEXTWORD_RUNS", str(shared.folder / "runs"))
    return shared


@pytest.fixture(autouse=True)
def _whole_numbers():
    """Take back what training tells the processor (to flush the smallest numbers to zero)."""
    yield
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def one_thread():
    """Two that wait for each other take fifty times as long where other programs compute too."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the costs of the tests be measured."""
    parser.addoption("--measure", action="store_true", help="write tests/durations.json")


def pytest_configure(config: pytest.Config) -> None:
    """Divide cores and tests among the processes."""
    share_the_cores(config)
    config.pluginmanager.register(Division(), "division")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Say how many processes `-n auto` means."""
    return number_of_workers()


REVIEWED_SKIPS = {
    "root may read every file": "no file is closed to the superuser; a second test simulates it",
    "no accelerator": "needs a GPU; run where there is one",
    "no accelerator of CUDA's": "needs an NVIDIA GPU; run where there is one",
    "no browser": "Debian's chromium, which .ci/run installs and then requires",
    "Triton is for Linux": "its packages are; where it is missing no kernel of it is used",
}
_unreviewed: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note every skip whose reason nobody has reviewed."""
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason not in REVIEWED_SKIPS:
            _unreviewed.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """An unreviewed skip fails the session."""
    if _unreviewed:
        print("\nskipped for a reason that is not on the reviewed list:", *_unreviewed, sep="\n  ")
        session.exitstatus = 1
