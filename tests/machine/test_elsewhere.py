"""Other systems, as far as one can be made of this: Windows' Python, cp1252, the C locale."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path, PureWindowsPath

import pytest

from nextword.base.terminal import speak_utf8
from nextword.corpus.addresses import is_address
from nextword.corpus.formats import scheme_of

LACKS = Path(__file__).with_name("elsewhere")
"""Its sitecustomize takes from Python what Windows' lacks."""
SYSTEMS = {
    "windows": {"PYTHONPATH": str(LACKS), "PYTHONIOENCODING": "cp1252"},
    "c": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
    "ascii": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}
TEXT = "Мы все люди → we are all humans, born to make mistakes; één.\n"


@pytest.fixture(params=SYSTEMS)
def elsewhere(request, place):
    """Call the program on another system; return what it says, as bytes."""
    here = Path(__file__).parents[2]
    environment = {**place.environment(), **SYSTEMS[request.param]}
    paths = (SYSTEMS[request.param].get("PYTHONPATH"), str(here), environment.get("PYTHONPATH"))
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, paths)))
    environment["PYTHONWARNINGS"] = "ignore"

    def call(line, stdin=b""):
        done = subprocess.run(
            [sys.executable, "-m", "nextword", *shlex.split(line)],
            cwd=place.folder, env=environment, capture_output=True, input=stdin, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
        return done.stdout.decode("utf-8"), done.stderr.decode("utf-8")

    return call


@pytest.mark.parametrize("elsewhere", ["windows"], indirect=True)
def test_a_model_is_trained_asked_and_explained(elsewhere, place):
    (place.folder / "текст é.txt").write_text(TEXT * 200, encoding="utf-8")
    options = "--training.steps 4 --training.checkpoint-every 2 --model.context 64"
    out, _ = elsewhere(f"train 'текст é.txt' --dry-run {options}")
    assert "memory      this system does not tell" in out
    _, said = elsewhere(f"train 'текст é.txt' --name x {options}")
    assert "текст é.txt" in said
    out, _ = elsewhere("generate x - --max-tokens 3", stdin="Мы все\r\n".encode())
    assert out.startswith("Мы все")
    elsewhere("report x -o r.html")
    assert 'charset="utf-8"' in (place.folder / "r.html").read_text(encoding="utf-8").lower()


def test_what_is_asked_and_said_is_utf8(elsewhere, run):
    out, _ = elsewhere("predict small 'люди →' --json")
    assert json.loads(out)["prompt"] == "люди →"
    out, _ = elsewhere("explain small 'люди → é'")
    assert "−ln P" in out
    out, _ = elsewhere("train --help")
    assert "nextword train --resume latest" in out


class Terminal:
    """A stream of bytes that says it is a terminal."""

    def __init__(self, encoding):
        import io

        class Wrapper(io.TextIOWrapper):
            def isatty(self):
                return True

        self.bytes = io.BytesIO()
        self.stream = Wrapper(self.bytes, encoding)


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", b"a -> b ... ### ? ?"),
        ("cp1252", b"a -> b \x85 ### ? \xe9"),
        ("utf-8", "a → b … ███ ж é".encode()),
    ],
)
def test_a_terminal_is_written_to_in_what_it_knows(encoding, shown):
    terminal = Terminal(encoding)
    speak_utf8(terminal.stream)
    terminal.stream.write("a → b … ███ ж é")
    terminal.stream.flush()
    assert terminal.bytes.getvalue() == shown


def test_a_drive_is_no_scheme_and_no_address():
    for path in ("C:/texts/a.txt", "C:\\texts\\a.txt", "d:notes", "\\\\server\\share\\a.txt"):
        assert PureWindowsPath(path).drive
        assert not is_address(path)
        assert scheme_of(path) is None
