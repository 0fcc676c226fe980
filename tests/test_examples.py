"""Every verb's help has an example, and it works."""

import importlib.util
import json
import re
import shlex

import pytest

import nextword
from nextword.cli.examples import EXAMPLES, ORDER
from nextword.cli.program import app
from tests.test_readme import SERVERS, commands

SMALLER = {
    "train": ("--training.steps", "4"),
    "finetune": ("--finetune.steps", "2"),
}
"""What keeps a training short."""
TEXT = "We are all humans born to make mistakes, and to learn from them.\n"


def verbs():
    return {name for name in app if not name.startswith("-")}


def test_every_verb_has_one():
    assert EXAMPLES.keys() == verbs()


def covered():
    """Return the commands that the README's test runs, by verb and options."""
    return {
        tuple(word for word in shlex.split(line)[1:] if word != "stories-1") for line in commands()
    }


@pytest.fixture
def filled(place, run):
    """A place with all that the examples name."""
    (place.folder / "book.txt").write_text(TEXT * 50)
    rows = "".join(f"Maria {n} was a clerk.,{'ab'[n % 2]}\n" for n in range(12))
    (place.folder / "labels.csv").write_text(f"text,label\n{rows}")
    (run.parent / "stories-1").symlink_to(run)
    options = {"training.steps": 2, "vocabulary.size": 300, "model.context": 64}
    masked = {**options, "objective.name": "masked"}
    nextword.train(place.folder / "book.txt", name="both", options=masked)
    return place


def words_of(example):
    """Return an example's words for the small run, which ends soon."""
    words = ["small" if word == "latest" else word for word in shlex.split(example.command)]
    verb = words[0]
    if verb == "train" and "--minutes" in words:
        return [*words, "--dry-run"]
    if verb == "train" and "--resume" in words:
        return [*words, "--training.steps", "14"]
    if words == ["train"]:
        return [*words, *SMALLER[verb], "--corpus.stories", "400"]
    return [*words, *SMALLER.get(verb, ())]


def test_they_work(filled):
    last = ["decompress", "classify", "train"]  # what others make is needed; a run is gone on with
    later = []
    for verb in [*sorted(verbs() - {*last}), *last]:
        for example in EXAMPLES[verb]:
            words = words_of(example)
            as_in_readme = tuple(word for word in words if word != "small")
            if verb in SERVERS or verb == "chat" or as_in_readme in covered():
                later.append(verb)  # is run there, or below
                continue
            if verb == "track" and importlib.util.find_spec("tensorboard") is None:
                continue
            done = filled.nextword(*words)
            assert done.returncode == 0, f"{example.command}\n{done.stderr}"
            assert (done.stdout + done.stderr).strip()
    assert {"benchmark", "chat", *SERVERS} <= set(later)


def test_a_taught_model_is_talked_with(filled):
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{n}?"},
                {"role": "assistant", "content": "Yes."},
            ]
        }
        for n in range(12)
    ]
    (filled.folder / "talk.jsonl").write_text("\n".join(map(json.dumps, rows)))
    # Enough steps to know the answer, and the likeliest token each time: `chat`
    # draws anew otherwise, and may draw the end of its turn first.
    steps = ("--finetune.steps", "60", "--finetune.learning_rate", "0.003")
    done = filled.nextword("finetune", "small", "talk.jsonl", *steps)
    assert done.returncode == 0, done.stderr
    (example,) = EXAMPLES["chat"]
    likeliest = ("--temperature", "0")
    done = filled.process(*shlex.split(example.command), *likeliest, stdin=b"7?\n")
    assert done.returncode == 0, done.stderr
    assert "Yes." in done.stdout


def test_they_stand_below_the_help(capsys):
    from nextword.cli import main

    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    said = capsys.readouterr().out
    for example in EXAMPLES["generate"]:
        assert f"  # {example.does}\n  nextword {example.command}\n" in said


def test_every_verb_has_a_place_in_the_help_and_a_line_of_eighty(capsys, monkeypatch):
    from nextword.cli import main

    assert {name for name in ORDER if not name.startswith("-")} == verbs()
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    rows = re.findall(r"^\u2502 (\S*).*\u2502$", said, re.MULTILINE)
    assert rows == [*ORDER]  # a summary that goes on in a second line would have no name there
    assert said.count("nextword train") == 2


@pytest.mark.parametrize("verb", sorted(EXAMPLES))
def test_no_default_is_said_where_it_says_nothing(verb, capsys):
    from nextword.cli import main

    with pytest.raises(SystemExit):
        main([verb, "--help"])
    said = " ".join(line.strip("\u2502 ") for line in capsys.readouterr().out.splitlines())
    assert not re.findall(r"\[default: (?:False|None|\(\)|\"\")\]", said)
