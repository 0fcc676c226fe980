"""Tab completes verbs and options, in the shell itself."""

import os
import shutil
import subprocess

import pytest

from tests.typed import TAB, typing

WORDS = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_nextword nextword "${COMP_WORDS[COMP_CWORD]}" ""
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    from tests.place import Place

    place = Place(tmp_path_factory.mktemp("shell"))
    done = place.nextword("completion", "bash")
    assert done.returncode == 0, done.stderr
    file = place.folder / "nextword.bash"
    file.write_text(done.stdout)
    return file


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tra"], {"train", "track"}),
        (["train", "--training.st"], {"--training.steps"}),
        (["export", "--to", "gg"], {"gguf"}),
        (["track", "--to", ""], {"tensorboard", "wandb", "mlflow", "trackio"}),
        (["nothing"], set()),
    ],
)
def test_bash_completes(script, words, expected):
    done = subprocess.run(
        ["bash", "--norc", "-c", WORDS, "bash", script, "nextword", *words],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert set(done.stdout.split()) == expected
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_one_with_every_verb(place, shell):
    from nextword.cli.program import app

    done = place.nextword("completion", shell)
    assert done.returncode == 0
    for verb in app:
        if not verb.startswith("-"):
            assert verb in done.stdout


def _shell(name):
    if (found := shutil.which(name)) is None:
        pytest.skip(f"{name} is not installed")
    return found


CASES = [
    ("nextword tra", {"train", "track"}),
    ("nextword train --training.st", {"--training.steps"}),
    ("nextword export --to gg", {"gguf"}),
    ("nextword track --to tens", {"tensorboard"}),
]


READS_KEYS = "\x1b[?2004h"
"""Is sent by zsh where its line editor has begun: what was typed sooner is no key to it."""


def at_home(place, monkeypatch, shell):
    """Whose home the place is, with nothing of their own in it."""
    monkeypatch.setenv("HOME", str(place.folder))
    monkeypatch.setenv("SHELL", shell)
    monkeypatch.setenv("TERM", "dumb")
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "BASH_COMPLETION_USER_DIR", "ZDOTDIR", "ZSH"):
        monkeypatch.delenv(name, raising=False)


def installed(place):
    done = place.process("completion", "--install")
    assert done.returncode == 0, done.stderr
    assert ", and Tab completes" in done.stderr


def test_fish_completes_what_was_installed(place, monkeypatch):
    fish = _shell("fish")
    at_home(place, monkeypatch, fish)
    installed(place)
    for line, expected in CASES:
        done = subprocess.run(
            [fish, "-c", "complete -C $argv[1]", line], capture_output=True, text=True, check=True
        )
        found = {one.split("\t")[0] for one in done.stdout.splitlines()}
        # Version 4 lists what holds the letters somewhere, behind what begins with them.
        begun = {one for one in found if one.startswith(line.split()[-1])}
        assert begun == expected
        assert done.stderr == ""


@pytest.mark.parametrize("way", ["installed", "printed into a folder", "printed and sourced"])
def test_zsh_completes(place, monkeypatch, way):
    """Typed on a terminal: Tab writes what is the only one, and lists several."""
    zsh = _shell("zsh")
    at_home(place, monkeypatch, zsh)
    if way == "installed":
        installed(place)
        begin = ""
    else:
        done = place.nextword("completion", "zsh")
        (place.folder / "own").mkdir()
        (place.folder / "own" / "_nextword").write_text(done.stdout)
        begin = "autoload -Uz compinit; compinit -u -D\nsource own/_nextword\n"
        if way == "printed into a folder":
            begin = "fpath=($PWD/own $fpath); autoload -Uz compinit; compinit -u -D\n"
    rc = place.folder / ".zshrc"
    known = rc.read_text() if rc.exists() else ""
    rc.write_text(f"{known}\n{begin}PS1='READY> '\nsetopt AUTO_LIST NO_LIST_BEEP\n")
    for line, expected in CASES:
        with typing([zsh, "-i"], os.environ, place.folder) as terminal:
            terminal.until("READY> ")
            terminal.until(READS_KEYS)
            terminal.type(line + TAB)
            for one in expected:
                shown = terminal.until(one)
        others = {"export", "push", "--training.seed", "onnx", "mlflow"} - expected
        assert not any(other in shown.replace(line, "") for other in others)
        assert "command not found" not in shown


def test_it_is_installed_by_one_command(place, monkeypatch):
    at_home(place, monkeypatch, shutil.which("bash") or "/bin/bash")
    installed(place)
    started = subprocess.run(
        ["bash", "--rcfile", place.folder / ".bashrc", "-ic", "complete -p nextword"],
        capture_output=True, text=True, cwd=place.folder,
    )  # fmt: skip
    assert "_nextword" in started.stdout, started.stderr


def test_an_unknown_shell_is_one_line(place, monkeypatch):
    monkeypatch.setenv("SHELL", "/bin/csh")
    done = place.nextword("completion")
    assert done.returncode == 2
    assert "SHELL names 'csh'; say which: bash, zsh, fish" in done.stderr
