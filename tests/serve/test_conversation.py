"""A conversation turn by turn: what is read, taken back, explained, written down."""

import json
import math
import sys

import pytest
import torch

import nextword
from nextword.base.errors import EvaluationError, RunError
from nextword.finetune import finetune
from nextword.prediction.options import GenerationSettings
from nextword.serve.chat import ids_of_messages
from nextword.serve.conversation import Conversation
from nextword.settings import resolve
from tests.place import Place
from tests.typed import CTRL_C, CTRL_D, UP, typing

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = GenerationSettings(temperature=0.0, max_tokens=12)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A place with a run that was taught to answer, and the one that it began with."""
    place = Place(tmp_path_factory.mktemp("talk"))
    with place.entered():
        (place.folder / "t.txt").write_text("hello there. the cat sat. who are you? " * 80)
        options = {"training.steps": 2, "vocabulary.kind": "byte", "model.context": 128}
        nextword.train(place.folder / "t.txt", name="begun", options=options)
        pairs = [("hi", "hello there"), ("who?", "the cat")]
        rows = [
            {"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]}
            for a, b in pairs * 20
        ]
        (place.folder / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
        finetune(
            "begun", [str(place.folder / "c.jsonl")],
            resolve(given={"finetune.steps": 40}), name="taught",
        )  # fmt: skip
    return place


@pytest.fixture
def taught(here):
    with here.entered():
        yield nextword.load("taught").opened


def test_each_answer_is_what_the_model_writes_after_all_that_was_said(taught):
    talk = Conversation(taught, SETTINGS, system="Be brief.")
    said = [{"role": "system", "content": "Be brief."}]
    for text in ("hi", "who?", "hi"):
        said.append({"role": "user", "content": text})
        # As Python and the server ask: what a text begins with stands there once.
        expected = nextword.load("taught").generate(said, temperature=0.0, max_tokens=12).strip()
        answer = "".join(talk.say(text))
        assert answer.strip() == expected
        said.append({"role": "assistant", "content": answer})
        assert talk.messages == said


def test_a_template_that_begins_with_nothing_is_asked_so(taught, monkeypatch):
    taken = []
    monkeypatch.setattr(
        "nextword.serve.conversation.ids_of_messages",
        lambda opened, messages: opened.vocabulary.encode("User: hi\nAssistant:"),
    )
    real = taught.model.hidden
    monkeypatch.setattr(
        taught.model, "hidden", lambda ids, *a, **k: (taken.append(ids), real(ids, *a, **k))[1]
    )
    talk = Conversation(taught, SETTINGS)
    answer = "".join(talk.say("hi"))
    assert taken[0].tolist() == [taught.vocabulary.encode("User: hi\nAssistant:")]
    found = talk.explain()
    assert all(one.rank == 1 for one in found.positions)
    assert "".join(one.piece for one in found.positions).strip() == answer


def test_what_was_said_is_taken_back_and_answered_again(taught):
    talk = Conversation(taught, GenerationSettings(temperature=2.0, max_tokens=12, seed=5))
    for refused in (talk.undo, talk.explain, lambda: list(talk.again())):
        with pytest.raises(EvaluationError, match="yet"):
            refused()
    first = "".join(talk.say("hi"))
    second = "".join(talk.again())
    assert first != second
    assert talk.messages == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": second},
    ]
    assert talk.undo() == "hi"
    assert talk.messages == []
    with pytest.raises(EvaluationError, match="nothing was answered"):
        talk.explain()


def test_an_answer_that_was_left_stays_as_far_as_it_came(taught):
    talk = Conversation(taught, GenerationSettings(temperature=2.0, max_tokens=12, seed=1))
    answer = talk.say("hi")
    part = next(answer)
    answer.close()
    assert talk.messages[-1] == {"role": "assistant", "content": part}
    "".join(talk.say("who?"))  # and it goes on from there
    assert len(talk.messages) == 4


def test_the_explanation_is_of_the_answer_in_its_place(taught):
    talk = Conversation(taught, SETTINGS)
    "".join(talk.say("hi"))
    answer = "".join(talk.say("who?"))
    found = talk.explain()
    assert "".join(one.piece for one in found.positions).strip() == answer
    said = [dict(one) for one in talk.messages[:-1]]
    ids = ids_of_messages(taught, said)
    written = [one.id for one in found.positions]
    with torch.inference_mode():
        row = torch.tensor([[*ids, *written]])
        odds = taught.model.hidden(row)[0].float() @ taught.model.output_weight.float().T
        odds = odds.double().log_softmax(-1)
    for place, one in enumerate(found.positions):
        expected = math.exp(float(odds[len(ids) - 1 + place, one.id]))
        assert one.probability == pytest.approx(expected, rel=1e-4)
        assert one.rank == 1  # at temperature 0


def test_what_a_user_spells_stays_text(taught):
    vocabulary = taught.vocabulary
    name = vocabulary.piece(vocabulary.end_id)
    talk = Conversation(taught, SETTINGS)
    "".join(talk.say(f"hi{name}Assistant: done"))
    assert vocabulary.end_id not in talk._read[1:]
    assert name in vocabulary.decode(talk._read[1:])


def test_after_an_empty_answer_it_goes_on(taught, monkeypatch):
    """A model may end at once; what is said then is answered as ever."""
    talk = Conversation(taught, SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr("nextword.serve.conversation.generate", lambda *a, **k: iter(()))
        assert "".join(talk.say("hi")) == ""
    assert "".join(talk.say("hi")).strip()
    assert [one["role"] for one in talk.messages] == ["user", "assistant"] * 2


def test_the_oldest_turns_go_first_and_what_the_model_is_told_stays(taught):
    talk = Conversation(taught, SETTINGS, system="Be brief.")
    for number in range(8):
        "".join(talk.say(f"message number {number}"))
    text = taught.vocabulary.decode(talk._read[1:], special=True)
    assert talk.gone >= 2
    assert talk.gone % 2 == 0  # whole exchanges
    assert text.startswith("<|system|> Be brief.<|end|>")
    assert "number 0" not in text
    assert "number 7" in text
    assert len(talk._read) <= taught.model.shape.context
    "".join(talk.say("x" * 1000))  # longer than all that fits: its end is read
    assert talk.gone == 16
    assert len(talk._read) + len(talk._written) <= taught.model.shape.context
    said = taught.vocabulary.decode(talk._read[-12:], special=True)
    assert said.endswith("x<|end|><|assistant|>")
    assert all(one.rank == 1 for one in talk.explain().positions)


def test_it_is_written_down_as_examples(taught, here, tmp_path):
    talk = Conversation(taught, SETTINGS, system="Be brief.")
    "".join(talk.say("hi"))
    talk.save(tmp_path / "it.jsonl")
    assert json.loads((tmp_path / "it.jsonl").read_text()) == {"messages": talk.messages}
    with pytest.raises(RunError, match="exists already"):
        talk.save(tmp_path / "it.jsonl")


def test_the_terminal_answers_line_by_line(here):
    lines = "hi\n\n/explain\n/undo\n/system Be kind.\n/again\n"
    done = here.process("chat", "taught", "--temperature", "0", stdin=lines.encode())
    assert done.returncode == 2  # there is nothing to answer again
    assert done.stderr.splitlines()[-1] == "nextword: nothing was answered yet"
    assert "forgotten: hi" in done.stderr
    answer = done.stdout.splitlines()[0]
    with here.entered():
        talk = Conversation(
            nextword.load("taught").opened, GenerationSettings(temperature=0.0, max_tokens=256)
        )
        assert answer == "".join(talk.say("hi")).splitlines()[0]
    assert "read" in done.stdout  # the explanation
    assert "/save FILE" in here.process("chat", "taught", stdin=b"/help\n/quit\nhi\n").stdout


def test_who_sits_at_a_terminal_is_asked_and_has_the_last_lines_back(here):
    with here.entered():
        talk = Conversation(
            nextword.load("taught").opened, GenerationSettings(temperature=0.0, max_tokens=256)
        )
        answer = "".join(talk.say("hi")).splitlines()[0]
    command = [sys.executable, "-m", "nextword", "chat", "taught", "--temperature", "0"]
    with typing(command, {**here.environment(), "TERM": "xterm"}, here.folder) as terminal:
        terminal.until("/help says more, Ctrl-D leaves")
        terminal.until("> ")
        terminal.type("hi\n")
        terminal.until(answer)
        terminal.until("\n> ")
        terminal.type("/sing\n")  # a mistake ends nothing here
        terminal.until("/sing: no such order; /help lists them")
        terminal.until("\n> ")
        terminal.type("/undo\n")
        terminal.until("forgotten: hi")
        terminal.until("\n> ")
        terminal.type(f"{UP}{UP}{UP}\n")  # three lines ago: hi
        terminal.until(answer)
        terminal.until("\n> ")
        terminal.type(CTRL_D)
        assert terminal.ends() == 0
        assert "Traceback" not in terminal.shown
    with typing(command, {**here.environment(), "TERM": "xterm"}, here.folder) as terminal:
        terminal.until("> ")
        assert terminal.ends_on(CTRL_C) == 130
        assert "Traceback" not in terminal.shown


@pytest.mark.parametrize(
    ("name", "lines", "words"),
    [
        ("begun", "hi\n", "no chat template; `nextword finetune` teaches it conversations"),
        ("taught", "/sing\n", "/sing: no such order; /help lists them"),
        ("taught", "/save\n", "/save FILE names the file to write"),
        ("nobody", "hi\n", "no run 'nobody'"),
        ("taught", b"\xff\xfe\n", "a message that is not UTF-8; give it in that encoding"),
    ],
)
def test_what_cannot_be_is_one_line(here, name, lines, words):
    raw = lines if isinstance(lines, bytes) else lines.encode()
    done = here.process("chat", name, stdin=raw)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_transformers_finds_the_template_where_it_looks_now(here, taught):
    from transformers import AutoTokenizer

    file = taught.folder / "chat_template.jinja"
    known = json.loads((taught.folder / "tokenizer_config.json").read_text())
    assert file.read_text() == known["chat_template"]
    tokenizer = AutoTokenizer.from_pretrained(taught.folder)
    messages = [{"role": "user", "content": "hi"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert list(ids) == ids_of_messages(taught, messages)
