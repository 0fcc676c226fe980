"""Where there can be no report, and where it cannot be written."""

import os
import shutil

import pytest

import nextword
from nextword.base.errors import RunError


def test_a_model_folder_alone_has_no_report(tmp_path, shared_environment, small_run):
    folder = nextword.load(small_run).opened.folder
    shutil.copytree(folder, tmp_path / "alone")
    with pytest.raises(RunError, match="name a run"):
        nextword.load(tmp_path / "alone").report(tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


@pytest.fixture
def in_the_way(shared, small_run):
    """What a report must not replace, by name: a file, a link to one, a pipe, the run's own."""
    folder = shared.folder / "in-the-way"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "file").write_text("kept")
    (folder / "link").symlink_to(folder / "file")
    (folder / "way").symlink_to(shared.folder / "runs" / small_run / "checkpoints")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("no/such/folder/x.html", "no such folder"),
        (".", "not a plain file"),
        ("in-the-way/file", "exists already"),
        ("in-the-way/link", "not a plain file"),
        ("in-the-way/pipe", "not a plain file"),
        ("/dev/null", "not a plain file"),
        ("runs/small/run.json", "lies in a run's folder"),
        ("runs/small/checkpoints/x.html", "lies in a run's folder"),
        ("in-the-way/way/x.html", "lies in a run's folder"),
        ("x" * 300, "no file's name is so long"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_a_place_that_is_taken_is_said_in_one_line(
    shared, small_run, in_the_way, output, words, force
):
    if force and words == "exists already":
        return
    more = ["--force"] if force else []
    done = shared.nextword("report", small_run, "-o", output, *more)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert (in_the_way / "file").read_text() == "kept"


def test_a_file_is_replaced_where_that_is_asked_for(shared, small_run, in_the_way):
    done = shared.nextword("report", small_run, "-o", "in-the-way/file", "--force")
    assert done.returncode == 0, done.stderr
    assert "<html" in (in_the_way / "file").read_text()[:200]


def test_what_came_there_in_the_meantime_is_kept(place, run, monkeypatch):
    """A report takes long to make: somebody may have written there since it was asked for."""
    from nextword import language_model
    from nextword.rendering.report import report_page

    made = place.folder / "it.html"

    def slowly(report):
        made.write_text("precious")
        return report_page(report)

    monkeypatch.setattr(language_model, "report_page", slowly)
    with pytest.raises(RunError, match="exists already"):
        nextword.load("small").report(made)
    assert made.read_text() == "precious"
    nextword.load("small").report(made, force=True)
    assert "how it learned" in made.read_text()


def test_where_the_disk_is_full_nothing_is_left(place, run, monkeypatch):
    import errno

    from nextword.base import files

    def full(aside, final):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "publish", full)
    before = sorted(os.listdir(place.folder))
    with pytest.raises(RunError, match=r"cannot be written .No space left"):
        nextword.load("small").report(place.folder / "it.html")
    assert sorted(os.listdir(place.folder)) == before
