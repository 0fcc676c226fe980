"""What to try next: a beginning of the run's own hold-out, written as a shell reads it."""

import json
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextword.cli import main
from nextword.explanation.previews import BEGINNING_LETTERS, PLACEHOLDER, beginning_of, first_words
from nextword.rendering.formatting import argument
from nextword.rendering.training import _try_next
from nextword.vocabulary.prepared import open_prepared

AWKWARD = [
    "it's",
    'she said "no"',
    "$HOME `ls` $(ls)",
    "wow! !! 50% *?[a] ~ {a,b} # & | ; < > ( )",
    "back\\slash\\",
    "=ls",
    "猫说好",
    "می‌خواهم",
    "two  blanks",
    "",
    'it\'s "both"',
]


@pytest.mark.parametrize("text", AWKWARD)
def test_a_shell_reads_one_word_again(text):
    done = subprocess.run(
        ["sh", "-c", f"printf %s {argument(text)}"], capture_output=True, check=True
    )
    assert done.stdout.decode() == text
    assert shlex.split(argument(text)) == [text]


@given(st.text())
def test_any_text_is_one_word(text):
    assert shlex.split(argument(text)) == [text]


def test_what_needs_no_quotes_has_none_and_plain_words_have_double_ones():
    assert argument("stories-1@500") == "stories-1@500"
    assert argument("We are all") == '"We are all"'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Long ago, a stern glazier named Grace lived", "Long ago, a stern glazier"),
        ("\n\n   \n# A title\nand text", "A title"),
        ("- -x --help me", "x --help me"),
        ("---\n***\nText", "Text"),
        ("-5 degrees", "5 degrees"),
        ("tab\tand\x1b[31mred\x00", "tab and [31mred"),
        ("half a lett\ufffd", "half a lett"),
        ("猫" * 60, "猫" * BEGINNING_LETTERS),
        ("می‌خواهم بروم", "می‌خواهم بروم"),
        ("incomprehensibilities " * 5, "incomprehensibilities"),
        ("", ""),
        ("\n \t\n...", ""),
    ],
)
def test_first_words_can_be_typed(text, words):
    assert first_words(text) == words


@given(st.text())
def test_first_words_are_one_short_line_that_is_no_option(text):
    words = first_words(text)
    assert len(words) <= BEGINNING_LETTERS
    assert not words.startswith("-")
    assert words == words.strip()
    assert "\x00" not in words
    assert len(words.splitlines()) <= 1


def test_what_is_tried_next_on_the_stories_is_as_it_was():
    assert _try_next("stories-1", False, None) == [
        '  nextword generate stories-1 "Long ago"',
        '  nextword predict stories-1 "We are all humans born to"',
        '  nextword explain stories-1 "We are all humans born to"',
        "  nextword report stories-1",
    ]
    assert _try_next("m", True, None)[0] == (
        '  nextword fill m "We are all humans born to [MASK] mistakes"'
    )
    assert _try_next("my run", True, "the good cat")[0] == (
        '  nextword fill "my run" "the [MASK] cat"'
    )
    assert _try_next("m", True, "猫说好")[0] == '  nextword fill m "猫说好 [MASK]"'


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_each_command_that_is_suggested_works(place, capsys, objective):
    line = """"It's -- $HOME," said Ann; `no` way!\n"""
    (place.folder / "it.txt").write_text(line * 90, encoding="utf-8")
    options = ["--training.steps", "1", "--vocabulary.kind", "char", "--model.context", "64"]
    main_with(["train", "it.txt", "--name", "my run", "--objective", objective, *options])
    said = capsys.readouterr().err
    commands = said.partition("Try next:")[2].strip().splitlines()
    commands = [shlex.split(one) for one in commands if one.startswith("  nextword ")]
    assert len(commands) >= 2
    texts = [words[3] for words in commands if words[1] in ("predict", "explain", "fill")]
    assert texts
    for text in texts:
        assert text.replace("[MASK]", "").split()[0].strip('"') in line
    for words in commands:
        if words[1] == "report":
            continue
        main_with(words[1:])
        assert capsys.readouterr().out.strip()


def main_with(arguments):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert not left.value.code


@pytest.mark.usefixtures("one_thread")
def test_of_a_hold_out_without_words_nothing_is_taken(place, capsys):
    (place.folder / "dots.txt").write_text("... --- ...\n" * 300)
    main_with(["prepare", "dots.txt", "-o", "my dots", "--vocabulary.kind", "byte"])
    assert 'nextword train "my dots"' in capsys.readouterr().out
    assert beginning_of(open_prepared(place.folder / "my dots")) == PLACEHOLDER


@pytest.mark.usefixtures("one_thread")
def test_fewer_entries_than_asked_for_are_said(place, capsys):
    (place.folder / "t.txt").write_text("the good cat sat on the warm mat.\n" * 60)
    asked = ["--vocabulary.size", "8192"]
    words = "8,192 entries were asked for; this kind and this text give"
    main_with(["prepare", "t.txt", "-o", "p", *asked])
    assert words in capsys.readouterr().out
    main_with(["prepare", "t.txt", "-o", "q", *asked, "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["entries_asked"] == 8192
    assert facts["entries"] < 400
    trained = ["--training.steps", "1", "--model.context", "32", "--json"]
    main_with(["train", "t.txt", *asked, *trained])
    said = capsys.readouterr()
    assert f"{words} {facts['entries']:,}" in said.err
    assert json.loads(said.out)["entries_asked"] == 8192
    main_with(["train", "p", *trained])
    assert words in capsys.readouterr().err
    main_with(["train", "t.txt=1", *asked, *trained])
    assert words in capsys.readouterr().err
    main_with(["train", "t.txt", *trained])  # nothing was asked for
    said = capsys.readouterr()
    assert "asked for" not in said.err
    assert json.loads(said.out)["entries_asked"] is None
