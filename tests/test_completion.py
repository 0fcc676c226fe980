"""Tab completes verbs and options, in the shell itself."""

import shutil
import subprocess

import pytest

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


def test_it_is_installed_by_one_command(place, monkeypatch):
    monkeypatch.setenv("HOME", str(place.folder))
    monkeypatch.setenv("SHELL", shutil.which("bash") or "/bin/bash")
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "BASH_COMPLETION_USER_DIR"):
        monkeypatch.delenv(name, raising=False)
    done = place.process("completion", "--install")
    assert done.returncode == 0, done.stderr
    assert "begin a new bash" in done.stderr
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
