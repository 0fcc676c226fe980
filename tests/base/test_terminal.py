"""What would control a terminal is shown as a sign there, and goes as it is into a pipe."""

import json
import os
import pty
import subprocess
import sys
import unicodedata

import pytest

from nextword.base.terminal import SIGNS, for_stream, signed, visible

HOSTILE = "a\x1b[31mred\x07\x08\x9b2J\u202etxt\u2066\u200f\x7f\x00\r\u2028z"


def test_nothing_that_controls_is_left():
    for text in (visible(HOSTILE), signed(HOSTILE + "\n\t")):
        assert not [letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf")]
    assert visible("two\tcells\nand a line") == "two\tcells\nand a line"
    assert visible("\x1b\x9b\u202e") == "␛‹U+009B›‹U+202E›"
    assert signed("a\n\tb\r") == "a⏎⇥b␍"


def test_every_control_has_a_sign_of_its_own():
    controls = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) == "Cc"]
    assert {SIGNS[letter] for letter in controls} == {SIGNS[letter] for letter in set(controls)}
    assert len({SIGNS[letter] for letter in controls}) == len(controls)


def test_into_a_pipe_a_text_goes_as_it_is(tmp_path):
    with open(tmp_path / "file", "w") as stream:
        assert for_stream(HOSTILE, stream) == HOSTILE


def on_a_terminal(*arguments, cwd, env, code=None):
    """Run a command with a terminal as its output; return all that came there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, *(["-m", "nextword"] if code is None else ["-c", code]), *arguments],
        cwd=cwd, env=env, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs)
    came = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        came += part
    process.wait(60)
    os.close(ours)
    return came.decode("utf-8", "replace").replace("\r\n", "\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("targets", f"one {HOSTILE.replace(chr(0), '')} two"),
        ("predict", f"no{HOSTILE.replace(chr(0), '')}run", "We"),
        ("train", f"no{HOSTILE.replace(chr(0), '')}file.txt"),
    ],
)
def test_a_terminal_gets_signs(place, arguments):
    came = on_a_terminal(*arguments, cwd=place.folder, env=place.environment())
    assert "␛" in came or "\\x1b" in came  # a name is quoted as Python quotes it
    for letter in HOSTILE:
        if letter in SIGNS:
            assert letter not in came, repr(letter)


NAMED = HOSTILE.replace("\0", "").replace("/", "")


@pytest.mark.parametrize(
    "words",
    [("explain", "{}", "We are"), ("generate", "{}", "We are", "--max-tokens", "3"), ("runs",)],
)
def test_a_runs_name_reaches_no_terminal_raw(place, run, words):
    run.rename(run.with_name(NAMED))
    asked = [word.format(f"{place.folder}/runs/{NAMED}") for word in words]
    came = on_a_terminal(*asked, cwd=place.folder, env=place.environment())
    assert "Traceback" not in came
    assert came.strip()
    for letter in NAMED:
        if letter in SIGNS:
            assert letter not in came, repr(letter)


SAYS = """
import sys
from nextword.vocabulary.tokenizer import Vocabulary
real = Vocabulary.piece_bytes
SIGN = "\\x1b[31m\\x9b\\u202e"
Vocabulary.piece_bytes = lambda self, id_: SIGN.encode() + real(self, id_)
Vocabulary.decode = lambda self, ids, special=False: "\\x1b[31m\\x9b\\u202esaid"
from nextword.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "words",
    [
        # One text may be empty: so short a training differs by machine, and its choices do.
        ("generate", "small", "--max-tokens", "3", "--samples", "20", "--temperature", "2"),
        ("train", "--name", "new", "--corpus.stories", "60", "--training.steps", "2"),
    ],
)
def test_what_a_model_says_reaches_no_terminal_raw(place, run, words):
    """As it is written, and after "it writes" in training."""
    came = on_a_terminal(*words, cwd=place.folder, env=place.environment(), code=SAYS)
    assert "␛[31m‹U+009B›‹U+202E›" in came, came
    for letter in "\x1b\x9b\u202e":
        plain = came.replace("\x1b[", "") if words[0] == "train" and letter == "\x1b" else came
        assert letter not in plain  # the bar of training moves the cursor itself


def test_what_a_model_says_stands_in_no_report_raw(place, run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    for event in events:
        if event["event"] == "evaluation":
            event["sample"] = HOSTILE.replace("\0", "")
    (run / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))
    pins = json.loads((run / "pins.json").read_text())
    pins[0]["text"] += HOSTILE
    pins[0]["pieces"][-1] += HOSTILE
    (run / "pins.json").write_text(json.dumps(pins))
    done = place.nextword("report", "small", "-o", "it.html")
    assert done.returncode == 0, done.stderr
    page = (place.folder / "it.html").read_text("utf-8")
    assert "␛[31mred" in page
    for letter in SIGNS:
        if letter not in "\n\t":
            assert letter not in page, repr(letter)


def test_an_account_of_an_error_reaches_no_terminal_raw(place):
    came = on_a_terminal(
        "predict", f"no{NAMED}run", "We", "--debug", cwd=place.folder, env=place.environment()
    )
    assert "Traceback" in came
    for letter in NAMED:
        if letter in SIGNS:
            assert letter not in came, repr(letter)


def test_half_a_character_ends_no_command():
    import io

    pipe = io.TextIOWrapper(io.BytesIO(), "utf-8")
    pipe.write(for_stream("a\ud800b", pipe))
    pipe.flush()
    assert pipe.buffer.getvalue() == b"a?b"
