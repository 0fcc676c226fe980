"""The commands of docs/watch.md are run, each of them."""

import re
import shlex
from pathlib import Path

import httpx
import pytest

import nextword
from nextword.base.errors import RunError

PAGE = (Path(__file__).parents[2] / "docs" / "watch.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^    (nextword .*)$", PAGE, re.M)]
FEW = ("--training.steps", "4", "--vocabulary.size", "300", "--model.context", "64")


@pytest.fixture
def filled(place, run):
    """A place with the run and the text that the page names."""
    run.rename(run.with_name("stories-1"))
    (place.folder / "mybook.txt").write_text("We are all humans born to make mistakes.\n" * 100)
    return place


def test_the_page_shows_these():
    assert COMMANDS == [
        ["watch"], ["watch", "stories-1", "-o", "stories.html"], ["train", "mybook.txt", "--watch"],
    ]  # fmt: skip


def test_a_run_is_written_as_one_file(filled):
    done = filled.nextword(*COMMANDS[1])
    assert done.returncode == 0, done.stderr
    assert "stories-1" in (filled.folder / "stories.html").read_text()


def test_a_training_is_watched(filled):
    """That the page is there while it lasts is tested in a browser; this one ends too soon."""
    done = filled.process(*COMMANDS[2], *FEW)
    assert done.returncode == 0, done.stderr
    assert (filled.folder / "runs" / "mybook-1" / "run.json").is_file()


def test_without_a_name_the_latest_is_served(filled, monkeypatch):
    import uvicorn

    asked = []
    monkeypatch.setattr(
        uvicorn.Server, "run", lambda self, sockets: asked.append(sockets[0].getsockname()[1])
    )
    done = filled.nextword(*COMMANDS[0], "--port", "0")
    assert done.returncode == 0, done.stderr
    assert asked
    assert "stories-1" in done.stderr


def test_in_a_notebook_a_run_shows_itself(filled):
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    known = {}
    exec(
        compile(snippet.replace("nextword.load", "page = nextword.load"), "watch.md", "exec"), known
    )
    with known["page"] as page:
        frame = page._repr_html_()
        assert page.address in frame
        assert "stories-1" in httpx.get(page.address + "/api/runs").text


def test_a_folder_without_a_run_has_nothing_to_watch(filled):
    folder = filled.folder / "runs" / "stories-1" / "checkpoints" / "step-000012"
    folder.rename(filled.folder / "alone")
    model = nextword.load(filled.folder / "alone")
    with pytest.raises(RunError, match="nothing to watch"):
        model.watch()
