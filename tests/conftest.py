"""What tests share: places for runs and prepared text, and one default run for all who need one."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from tests.division import Division, number_of_workers, share_the_cores
from tests.place import Place
from tests.trained import Trained, digests


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
    """`nextword train`, which must do what the README says of it.

    benchmarks/readme.py trains the whole of it, for the README's figures.
    """
    done = trained.copy_to(shared, "train")
    with _untouched(shared.folder / "runs" / "stories-1"):
        yield done


SMALL = (
    *("train", "--name", "small", "--training.steps", "12", "--corpus.stories", "400"),
    *("--training.evaluate-every", "4", "--training.checkpoint-every", "6"),
)


@pytest.fixture(scope="session")
def small_run_said(shared: Place, trained: Trained) -> Iterator[subprocess.CompletedProcess]:
    """What a run of a few steps said, for what does not need a good model."""
    done = trained.copy_to(shared, *SMALL)
    with _untouched(shared.folder / "runs" / "small"):
        yield done


@pytest.fixture(scope="session")
def small_run(small_run_said: subprocess.CompletedProcess) -> str:
    """The name of that run."""
    assert small_run_said.returncode == 0
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
def run(place: Place, trained: Trained) -> Path:
    """The same small run, as one of the test's own, which it may change."""
    trained.copy_to(place, *SMALL)
    return place.folder / "runs" / "small"


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


BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first has no windows, which cost a whole browser six times as much as the pages in them."""


@pytest.fixture(scope="module")
def browser():
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("NEXTWORD_BROWSER") == "required":
            pytest.fail("no browser, and one is required here")
        pytest.skip("no browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        running = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def axe():
    """The script of axe-core, as a package for Python ships it."""
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the costs of the tests be measured, and the pictures be kept."""
    parser.addoption("--measure", action="store_true", help="write tests/durations.json")
    parser.addoption("--pictures", action="store_true", help="write the README's pictures")


def pytest_configure(config: pytest.Config) -> None:
    """Divide cores and tests among the processes; let no property depend on speed."""
    share_the_cores(config)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a hundred processes would compile it all anew
    hypothesis_settings.register_profile(
        "any speed",
        hypothesis_settings.get_profile(hypothesis_settings.get_current_profile_name()),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    hypothesis_settings.load_profile("any speed")
    config.pluginmanager.register(Division(config), "division")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Say how many processes `-n auto` means."""
    return number_of_workers()


REVIEWED_SKIPS = {
    "root may read every file": "no file is closed to the superuser; a second test simulates it",
    "no accelerator": "needs a GPU; run where there is one",
    "no accelerator of CUDA's": "needs an NVIDIA GPU; run where there is one",
    "no second accelerator": "needs two GPUs; run where there are",
    "no file system can be mounted here": "a container may not let one; a size limit stands for it",
    "lm-evaluation-harness is not installed": "large; .ci/run installs the extra `clients`",
    "langchain-openai is not installed": "the same",
    "trackers are not installed": "the same",
    "pandoc is not installed": "the same",
    "peft is not installed": "the same",
    "trl is not installed": "the same",
    "notebooks' tools are not installed": "the same",
    "zsh is not installed": "Debian's, which .ci/run installs; bash completes everywhere",
    "fish is not installed": "the same",
    "moto is not installed": "large; .ci/run installs the extra `clients`; memory stands for S3",
    "Kubernetes' schemas are not installed": "large; .ci/run installs the extra `clients`",
    "JupyterLab is not installed": "large; .ci/run installs the extra `clients`",
    "groff is not installed": "it reads the manual page; its text is compared all the same",
    "git is not installed": "its rules are compared with git's own; nothing else needs it",
    "llama.cpp's wheel is for x86-64": "its packages are; elsewhere nothing reads GGUF here",
    "onnxruntime is not installed": "the same",
    "sentence-transformers is not installed": "the same",
    "MLX is not installed": "the same",
    "Transformers.js is not installed": ".ci/run fetches it where Node is",
    "no browser": "Debian's chromium, which .ci/run installs and then requires",
    "helpers are libgomp's": "of Linux; elsewhere nothing is claimed of them",
    "torch was built without oneDNN": "then the plain product serves, which others test",
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
