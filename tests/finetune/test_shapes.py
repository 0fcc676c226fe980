"""Prompts and answers are known by their fields; what cannot be used is counted and named."""

import json

import pytest

import nextword
from nextword.base.errors import CorpusError, NextwordError
from nextword.corpus.examples import Row
from nextword.finetune import finetune
from nextword.finetune.answers import in_tokens, read_turns, shorten
from nextword.finetune.chat import Piece, spell
from nextword.finetune.examples import look
from nextword.finetune.shapes import read_example
from nextword.finetune.tally import WORDS, Tally, Unusable
from nextword.objectives.options import ExamplesSettings, FinetuneSettings
from nextword.settings import resolve
from nextword.targets.batch import IGNORED

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = FinetuneSettings()
USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
SYSTEM, TOOL = {"role": "system", "content": "Be brief."}, {"role": "tool", "content": "7"}


def rows(values):
    return [Row(f"a.jsonl, line {number}", one) for number, one in enumerate(values, start=1)]


def written(values, settings=PLAIN):
    """The text of a row, answers in brackets, ends as a bar."""
    pieces = spell(read_example(Row("line 1", values), settings), marked=False)
    return "".join(
        (f"[{piece.text}]" if piece.learned else piece.text) + "|" * piece.ended for piece in pieces
    )


CHAT = "User: Hi\nAssistant:[ Ho]|"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"messages": [USER, ASSISTANT]}, CHAT),
        ({"messages": [SYSTEM, USER, ASSISTANT]}, f"System: Be brief.\n{CHAT}"),
        ({"messages": [USER, ASSISTANT, USER, ASSISTANT]}, f"{CHAT}\n{CHAT}"),
        (
            {"messages": [USER, ASSISTANT, TOOL, ASSISTANT], "label": "x"},
            f"{CHAT}\nTool: 7\nAssistant:[ Ho]|",
        ),
        (
            {
                "conversations": [
                    {"from": "system", "value": "Be brief."},
                    {"from": "human", "value": "Hi"},
                    {"from": "gpt", "value": "Ho"},
                    {"from": "tool", "value": "7"},
                    {"from": "gpt", "value": "So"},
                ],
                "id": 3,
            },
            f"System: Be brief.\n{CHAT}\nTool: 7\nAssistant:[ So]|",
        ),
        ({"conversations": [USER, ASSISTANT]}, CHAT),
        ({"messages": json.dumps([USER, ASSISTANT])}, CHAT),
        ({"conversations": str([USER, ASSISTANT])}, CHAT),
        (
            {"system": "Be brief.", "conversations": [USER, ASSISTANT]},
            f"System: Be brief.\n{CHAT}",
        ),
        ({"instruction": "Add.", "input": "1 2", "output": "3"}, "Add.\n1 2[ 3]|"),
        ({"instruction": "Say hi.", "input": "", "output": "Hi"}, "Say hi.[ Hi]|"),
        ({"instruction": "Say hi.", "input": None, "output": "Hi"}, "Say hi.[ Hi]|"),
        ({"instruction": "Say hi.", "output": "\nHi"}, "Say hi.[\nHi]|"),
        ({"question": "Ten?", "answer": "10"}, "Ten?[ 10]|"),
        ({"prompt": "Ten?\n", "completion": "10"}, "Ten?\n[10]|"),
        ({"prompt": "Ten?", "answer": "10"}, "Ten?[ 10]|"),
        ({"prompt": [SYSTEM, USER], "completion": [ASSISTANT]}, f"System: Be brief.\n{CHAT}"),
        (
            {"prompt": [USER, ASSISTANT, USER], "completion": [ASSISTANT]},
            f"User: Hi\nAssistant: Ho|\n{CHAT}",
        ),
    ],
)
def test_shapes_are_known_by_their_fields(values, text):
    assert look(rows([values]), PLAIN) == "answers"
    assert written(values) == text


def test_fields_can_be_named():
    named = FinetuneSettings(prompt="frage", answer="antwort")
    values = {"frage": "Zehn?", "antwort": "10", "question": "Ten?", "answer": "ten"}
    assert written(values, named) == "Zehn?[ 10]|"
    assert written(values) == "Ten?[ ten]|"


@pytest.mark.parametrize(
    ("values", "why", "words"),
    [
        ({"messages": [USER]}, "no_answer", "nothing to learn"),
        ({"messages": [SYSTEM]}, "only_system", "system message alone"),
        ({"messages": [USER, ASSISTANT, USER]}, "ends_unanswered", "message of the user"),
        ({"messages": [USER, ASSISTANT, TOOL]}, "ends_unanswered", "message of the tool"),
        (
            {"messages": [USER, {"role": "assistant", "content": " "}]},
            "empty_answer",
            "is empty",
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": []}]},
            "empty_answer",
            "is empty",
        ),
        ({"messages": []}, "damaged", "no list"),
        ({"messages": None}, "damaged", "no list"),
        ({"messages": ["hi"]}, "damaged", "needs a role"),
        ({"messages": [USER, {"role": "assistant", "content": 7}]}, "damaged", "as text"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "damaged", "needs a role"),
        (
            {"conversations": [{"from": "human", "value": "Hi"}]},
            "no_answer",
            "nothing to learn",
        ),
        ({"instruction": "", "input": "", "output": "x"}, "empty_prompt", '"instruction" is empty'),
        ({"instruction": "a", "output": ""}, "empty_answer", '"output" is empty'),
        ({"instruction": "a", "input": 4, "output": "b"}, "damaged", "no text: 4"),
        ({"question": "a", "answer": None}, "empty_answer", '"answer" is empty'),
        ({"question": 7, "answer": "b"}, "damaged", "holds 7, which is no text"),
        ({"prompt": [USER], "completion": "Ho"}, "damaged", "which is no text"),
        ({"prompt": [USER], "completion": [USER]}, "no_answer", "nothing to learn"),
        ({"question": "a", "reply": "b"}, "unknown_shape", "only question, reply"),
    ],
)
def test_what_cannot_be_used_says_why(values, why, words):
    with pytest.raises(Unusable, match=words) as found:
        read_example(Row("line 1", values), PLAIN)
    assert found.value.why == why
    assert why in WORDS


def test_an_unknown_shape_names_the_fields_found_and_the_shapes_known():
    with pytest.raises(CorpusError) as found:
        look(rows([{"query": "a", "chosen": "b"}]), PLAIN)
    said = str(found.value)
    for words in (
        *("a.jsonl, line 1", "only query, chosen", "messages", "conversations"),
        *("instruction + output", "prompt + completion", "question + answer", "prompt + answer"),
        "text + label",
    ):
        assert words in said
    assert "\n" not in said


def good(count):
    return [{"question": f"{n}?", "answer": str(n)} for n in range(count)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    here = tmp_path_factory.mktemp("shapes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTWORD_CACHE", str(here / "cache"))
        patch.setenv("NEXTWORD_RUNS", str(here / "runs"))
        (here / "t.txt").write_text("one two three four five six seven eight nine ten. " * 90)
        options = {"training.steps": 4, "vocabulary.kind": "byte", "model.context": 64}
        options |= {"model.hidden_size": 64}
        return nextword.train(here / "t.txt", name="tiny", options=options)


def test_a_hundredth_may_be_unusable_and_five_are_named_beyond_it(model):
    bad = [{"messages": [USER]}, {"messages": [SYSTEM]}]
    tally = Tally(200)
    values = [*good(100), bad[0], *good(98), bad[1]]
    assert len(read_turns(rows(values), model.vocabulary, PLAIN, 64, tally)) == 198
    assert [left.place for left in tally.left] == ["a.jsonl, line 101", "a.jsonl, line 200"]
    assert any("line 101" in note for note in tally.notes())
    with pytest.raises(CorpusError) as found:
        read_turns(rows([*bad * 4, *good(91)]), model.vocabulary, PLAIN, 64)
    said = str(found.value)
    assert said.count("a.jsonl, line ") == 5
    assert "line 5: no message of the assistant" in said
    assert "line 6" not in said
    assert "8 of 99 rows, and 1% may be unusable" in said
    tolerant = Tally(99, ExamplesSettings(bad_share=0.1))
    assert len(read_turns(rows([*bad * 4, *good(91)]), model.vocabulary, PLAIN, 64, tolerant)) == 91
    with pytest.raises(CorpusError, match="2 of 2 rows"):
        read_turns(rows(bad), model.vocabulary, PLAIN, 64, Tally(2, ExamplesSettings(bad_share=1)))


def test_what_is_too_long_is_left_out_counted_and_the_longest_named(model):
    values = [
        *good(3),
        {"question": "a", "answer": "b" * 100},
        {"question": "a" * 63, "answer": "b"},
    ]
    tally = Tally(5)
    assert len(read_turns(rows(values), model.vocabulary, PLAIN, 64, tally)) == 3
    assert tally.as_dict(2, 1)["left_out"] == {"too_long": 2}
    said = " ".join(tally.notes())
    assert "2 of 5 rows left out, longer than the context; the first: a.jsonl, line 4" in said
    assert "the longest, a.jsonl, line 4, has 103 tokens; a context of 103 would hold it" in said
    fits = Tally(5)  # which is true
    assert len(read_turns(rows(values), model.vocabulary, PLAIN, 103, fits)) == 5
    assert fits.notes() == []
    refuse = Tally(5, ExamplesSettings(too_long="refuse"))
    with pytest.raises(CorpusError, match=r"line 4: 103 tokens.*64 at once.*context of 103"):
        read_turns(rows(values), model.vocabulary, PLAIN, 64, refuse)
    with pytest.raises(CorpusError, match=r"none of the 2 .*line 4 has the most, 103.*context 103"):
        read_turns(rows(values)[3:], model.vocabulary, PLAIN, 64)


def test_truncation_keeps_the_prompts_end_and_all_of_the_answer(model):
    words = model.vocabulary
    values = [{"question": "abc" * 40, "answer": "the answer"}]
    tally = Tally(1, ExamplesSettings(too_long="truncate"))
    (turns,) = read_turns(rows(values), words, PLAIN, 64, tally)
    assert turns.places == len(turns.targets) == 64
    assert tally.shortened == 1
    asked = [id_ for id_ in turns.targets if id_ != IGNORED]
    assert asked == [*words.encode(" the answer"), words.end_id]
    assert turns.inputs[0] == words.end_id
    assert words.decode(list(turns.inputs[1:])) == ("abc" * 40 + " the answer")[-63:]


def ab(*parts):
    """Pieces of one letter's length each, from ("prompt", "answer", …) in turn."""
    return [
        Piece(text, learned=number % 2 == 1, ended=number % 2 == 1)
        for number, text in enumerate(parts)
    ]


def test_of_a_conversation_the_last_answers_that_fit_are_learned_whole(model):
    words = model.vocabulary
    end = words.end_id
    turns = in_tokens(ab("pppp", "aaa", "qq", "bbb"), words)
    assert turns.places == 1 + 4 + 3 + 1 + 2 + 3

    def asked(context):
        cut = shorten(turns, context)
        if cut is None:
            return None
        assert cut.places == len(cut.targets) == context
        assert cut.inputs[0] == end
        for place, target in enumerate(cut.targets[:-1]):
            assert target in (IGNORED, cut.inputs[place + 1])
        return "".join(
            "|" if id_ == end else words.decode([id_]) for id_ in cut.targets if id_ != IGNORED
        )

    assert asked(13) == "aaa|bbb|"  # one token of the first prompt is gone
    assert asked(11) == "aaa|bbb|"  # one is left
    assert asked(10) == "bbb|"  # none, so that nothing asks for the first answer
    assert asked(8) == "bbb|"  # the first answer has lost its beginning
    assert asked(5) == "bbb|"
    assert asked(4) is None
    assert asked(2) is None


def test_counts_add_up_and_are_written_down(place, model):
    values = [*good(300), {"messages": [USER]}, {"messages": [SYSTEM]}]
    values += [{"question": "a" * 99, "answer": "b"}, {"other": 1}]
    (place.folder / "qa.jsonl").write_text("\n".join(map(json.dumps, values)))
    start = str(model.opened.folder)
    done = place.nextword("finetune", start, "qa.jsonl", "--finetune.steps", "1", "--json")
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)["rows"]
    assert counted["read"] == 304
    assert counted["left_out"] == dict.fromkeys(
        ("no_answer", "only_system", "too_long", "unknown_shape"), 1
    )
    sides = counted["learned_from"] + counted["held_out"]
    assert sides + sum(counted["left_out"].values()) == counted["read"]
    facts = json.loads((place.folder / "runs" / "qa-1" / "run.json").read_text())
    assert facts["rows"] == counted
    assert "240 to learn from, 60 held out, 4 left out, of 304 rows" in done.stderr
    for words in ("qa.jsonl, line 301", "qa.jsonl, line 302", "qa.jsonl, line 303", "line 304"):
        assert words in done.stderr
    failed = place.nextword(
        *("finetune", start, "qa.jsonl", "--examples.bad-share", "0", "--examples.too-long", "drop")
    )
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1
    assert "3 of 304 rows" in failed.stderr
    assert not (place.folder / "runs" / "qa-2").exists()


def test_all_shapes_may_stand_in_one_file_and_are_learned_from(place, model):
    values = [
        {"messages": [USER, ASSISTANT]},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"instruction": "a", "input": "b", "output": "c"},
        {"prompt": "a", "completion": "b"},
        {"prompt": [USER], "completion": [ASSISTANT]},
        {"question": "x", "answer": "b"},
        {"prompt": "q", "answer": "b"},
    ]
    (place.folder / "all.jsonl").write_text("\n".join(map(json.dumps, values)))
    given = resolve(given={"finetune.steps": 1})
    done = finetune(str(model.opened.folder), [str(place.folder / "all.jsonl")], given)
    assert done.rows["read"] == 7
    assert done.rows["left_out"] == {}
    assert done.rows["learned_from"] + done.rows["held_out"] == 7


def test_an_unknown_way_with_long_examples_is_refused():
    with pytest.raises(NextwordError, match="too_long"):
        resolve(given={"examples.too_long": "keep"})
