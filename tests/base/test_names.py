"""Names of runs stay in their folder, and are names on every system."""

import ntpath
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextword.base.errors import SettingsError
from nextword.run import new_folder

LETTERS = st.sampled_from("aA.~ :/\\<>|?*\"'$-_ü1%") | st.characters(exclude_categories=["Cs"])
NAMES = st.text(LETTERS, max_size=12) | st.sampled_from(
    [
        "con",
        "Nul.txt",
        "aux .x",
        "COM1",
        "lpt9.run",
        "COM¹",
        "CONIN$",
        "C:",
        "C:x",
        "\\\\host\\x",
        "..",
    ]
)


def is_reserved(name):
    """As Python's own rules for Windows have it."""
    if hasattr(ntpath, "isreserved"):
        return ntpath.isreserved(name)
    return PureWindowsPath(name).is_reserved()


@given(name=NAMES)
def test_a_name_that_is_taken_is_one_folder_on_every_system(name, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTWORD_RUNS", "runs-of-nobody")
        try:
            folder = new_folder(name, [], "stories")
        except SettingsError:
            return
    assert folder == Path("runs-of-nobody") / name
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind("runs") / name
        assert path.parent == kind("runs")
        assert path.name == name
    assert not is_reserved(name)
    assert not set(name) & set('<>"|?*')
    assert not name.endswith((".", " "))


@pytest.mark.parametrize(
    "name", ["con", "Nul.txt", "COM1", "lpt9.run", "CONIN$", 'a"b', "a.", "a "]
)
def test_what_windows_could_not_hold_is_one_line(place, name):
    done = place.nextword("train", "--name", name, "--training.steps", "1")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Windows could not hold a folder of this name; choose another" in done.stderr
    assert not (place.folder / "runs").exists()


@pytest.mark.parametrize("text", ["con.txt", "NUL.md", "a?.txt", "-.txt", "....txt"])
def test_a_run_is_named_after_any_text_so_that_all_can_hold_it(text):
    name = new_folder(None, [text], "stories").name
    assert not is_reserved(name)
    assert PureWindowsPath("runs", name).name == name
    assert not set(name) & set('<>"|?*')
