"""Where there can be no report, and where it cannot be written."""

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


@pytest.mark.parametrize("output", ["no/such/folder/x.html", "."])
def test_a_place_that_cannot_be_written_is_said_in_one_line(shared, small_run, output):
    done = shared.nextword("report", small_run, "-o", output)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr
