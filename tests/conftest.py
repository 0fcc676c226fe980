"""What tests share: places for runs and prepared text, and one default run for all who need one."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Place:
    """A folder with its own runs and its own cache."""

    folder: Path

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "NEXTWORD_CACHE": str(self.folder / "cache"),
            "NEXTWORD_RUNS": str(self.folder / "runs"),
            "NO_COLOR": "1",
            "PYTHONWARNINGS": "",
        }

    def nextword(
        self, *arguments: str, stdin: bytes | None = None, timeout: float = 600
    ) -> subprocess.CompletedProcess:
        """Run the command line as a user does."""
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


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The session's place: its runs are read by many tests and changed by none."""
    return Place(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="session")
def default_run(shared: Place) -> subprocess.CompletedProcess:
    """`nextword train`, as the README says; the run is named stories-1."""
    done = shared.nextword("train")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="session")
def small_run(shared: Place) -> str:
    """A run of a few steps, for what does not need a good model."""
    options = ["--training.steps", "12", "--corpus.stories", "400"]
    options += ["--training.evaluate-every", "4", "--training.checkpoint-every", "6"]
    done = shared.nextword("train", "--name", "small", *options)
    assert done.returncode == 0, done.stderr
    return "small"


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
