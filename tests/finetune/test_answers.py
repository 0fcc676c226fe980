"""Answers alone are asked for; packed examples teach what they would apart; the end is learned."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nextword
from nextword.base.errors import CorpusError, NextwordError
from nextword.corpus.examples import Row
from nextword.finetune import finetune
from nextword.finetune.answers import read_turns
from nextword.objectives.answer import Turns, answer, pack
from nextword.objectives.options import FinetuneSettings
from nextword.prediction.answers import score_answers
from nextword.settings import resolve
from nextword.targets.batch import IGNORED
from nextword.training.step import LanguageModelLoss, accumulate
from tests.model.test_transformer import scattered

E = 0
N = IGNORED
EXAMPLES = [
    Turns((E, 5, 6, 7, 8), (N, N, 7, 8, E)),
    Turns((E, 9, 10), (N, 10, E)),
    Turns((E, 11, 12, 13, 14, 15), (N, 12, 13, E, 15, E)),
]

pytestmark = pytest.mark.usefixtures("one_thread")


def test_targets_stand_at_answers_and_their_ends_alone():
    batch = answer([[EXAMPLES[0], EXAMPLES[1]]], fill_id=1)
    none = IGNORED
    assert batch.inputs.tolist() == [[E, 5, 6, 7, 8, E, 9, 10]]
    assert batch.targets.tolist() == [[none, none, 7, 8, E, none, 10, E]]
    assert batch.documents.tolist() == [[1, 1, 1, 1, 1, 2, 2, 2]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2]]


def test_packed_logits_are_those_of_each_example_apart():
    model = scattered()
    batch = answer([[EXAMPLES[2], EXAMPLES[0], EXAMPLES[1]]], fill_id=1)
    documents, places = torch.from_numpy(batch.documents), torch.from_numpy(batch.positions)
    seen = (documents[:, None, :, None] == documents[:, None, None, :]).tril()
    with torch.no_grad():
        packed = model.hidden(torch.from_numpy(batch.inputs), seen=seen, positions=places)[0]
        apart = [
            model.hidden(torch.tensor([one.inputs]))[0]
            for one in (EXAMPLES[2], EXAMPLES[0], EXAMPLES[1])
        ]
    torch.testing.assert_close(packed, torch.cat(apart), atol=1e-5, rtol=1e-5)


def test_the_loss_and_its_gradient_are_those_of_the_examples_apart():
    together, apart = scattered(), scattered()
    batch = answer([[EXAMPLES[2], EXAMPLES[0]], [EXAMPLES[1]]], fill_id=1)
    loss = LanguageModelLoss(together, precision=torch.float32)
    nats = accumulate(loss, [batch], batch.num_targets, torch.device("cpu"))
    parts = [answer([[one]], fill_id=1) for one in EXAMPLES]
    total = sum(part.num_targets for part in parts)
    assert total == batch.num_targets == 3 + 2 + 5
    loss = LanguageModelLoss(apart, precision=torch.float32)
    assert accumulate(loss, parts, total, torch.device("cpu")) == pytest.approx(nats, rel=1e-5)
    for first, second in zip(together.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, atol=1e-5, rtol=1e-4)


def test_prompt_tokens_contribute_nothing():
    """The loss is the sum over answer tokens and ends, worked out one by one."""
    model = scattered()
    fine = score_answers(model, EXAMPLES, fill_id=1)
    by_hand, count = 0.0, 0
    with torch.no_grad():
        for one in EXAMPLES:
            odds = model(torch.tensor([one.inputs]))[0].double().log_softmax(-1)
            for place, id_ in enumerate(one.targets):
                if id_ != IGNORED:
                    by_hand -= float(odds[place, id_])
                    count += 1
    assert fine.tokens == count == 10
    assert fine.nats == pytest.approx(by_hand, rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(2, 30), min_size=1, max_size=40))
def test_packing_keeps_every_example_once_and_fits(lengths):
    examples = [Turns((E,) * length, (N,) * length) for length in lengths]
    rows = pack(examples, 30)
    assert sorted(one for row in rows for one in row) == list(range(len(examples)))
    assert all(sum(examples[one].places for one in row) <= 30 for row in rows)
    assert len(rows) <= 2 * -(-sum(one.places for one in examples) // 30) + 1


@pytest.fixture
def tiny(place):
    (place.folder / "t.txt").write_text("one two three four five six seven eight nine ten. " * 90)
    options = {"training.steps": 4, "vocabulary.kind": "byte", "model.context": 64}
    nextword.train(place.folder / "t.txt", name="tiny", options=options)
    return "tiny"


def rows(values):
    return [Row(f"a.jsonl, line {number}", one) for number, one in enumerate(values, start=1)]


def test_prompts_are_read_as_they_will_be_asked(tiny):
    words = nextword.load(tiny).vocabulary
    values = [{"prompt": "Ten?", "answer": "10"}, {"prompt": "Ten?\n", "answer": "10"}]
    spaced, as_is = read_turns(rows(values), words, FinetuneSettings(), 64)
    for turns, said in ((spaced, " 10"), (as_is, "10")):
        asked = [id_ for id_ in turns.targets if id_ != IGNORED]
        assert asked == [*words.encode(said), words.end_id]
        assert turns.inputs[0] == words.end_id
        assert turns.targets[0] == IGNORED
        assert list(turns.inputs[1:]) == words.encode(turns_prompt(turns, words)) + asked[:-1]


def test_in_a_chat_the_assistants_messages_are_learned(tiny):
    words = nextword.load(tiny).vocabulary
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "So long"},
    ]
    (turns,) = read_turns(rows([{"messages": chat}]), words, FinetuneSettings(), 200)
    asked = [id_ for id_ in turns.targets if id_ != IGNORED]
    end = words.end_id
    assert asked == [*words.encode(" Ho"), end, *words.encode(" So long"), end]
    # Each answer's end is read too, so what is asked for is always what stands there next.
    first = words.encode("System: Be brief.\nUser: Hi\nAssistant: Ho")
    assert list(turns.inputs) == [
        *(end, *first, end),
        *words.encode("\nUser: Bye\nAssistant: So long"),
    ]
    for place, target in enumerate(turns.targets[:-1]):
        assert target in (IGNORED, turns.inputs[place + 1])


def turns_prompt(turns, words):
    return words.decode(list(turns.prompt[1:]))


def test_examples_with_one_prompt_fall_on_one_side():
    """Several people may have answered the same: who saw one answer is not judged by another."""
    from nextword.finetune.answers import divide

    examples = [Turns((E, 5 + n // 3, 40 + n), (N, 40 + n, E)) for n in range(60)]
    train, holdout = divide(examples, lambda one: one.prompt, FinetuneSettings())
    assert len(holdout) == 12
    assert not {one.prompt for one in train} & {one.prompt for one in holdout}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"prompt": "a"}, 'no field "answer"'),
        ({"prompt": "a", "answer": ""}, "is empty"),
        ({"messages": "hi"}, "no list"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "needs a role"),
        ({"messages": [{"role": "user", "content": "x"}]}, "nothing to learn"),
    ],
)
def test_bad_examples_are_named_by_their_line(tiny, value, words):
    vocabulary = nextword.load(tiny).vocabulary
    with pytest.raises(CorpusError, match=f"line 1.*{words}"):
        read_turns(rows([value]), vocabulary, FinetuneSettings(), 64)


def test_it_learns_to_answer_and_to_stop(tiny, place):
    """Capital letters of words: short answers, after which the model stops by itself."""
    names = {"one": "1", "two": "2", "three": "3", "four": "4"}
    lines = [{"prompt": f"{name} is", "answer": digit} for name, digit in names.items()] * 12
    (place.folder / "qa.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = {"finetune.steps": 150, "finetune.holdout": 0.0, "finetune.learning_rate": 0.01}
    done = finetune(tiny, [str(place.folder / "qa.jsonl")], resolve(given=options))
    model = nextword.load(str(done.folder))
    assert model.opened.objective.name == "answer"
    for name, digit in names.items():
        assert model.generate(f"{name} is", temperature=0, max_tokens=20) == f" {digit}"
    pipeline = pytest.importorskip("transformers").pipeline
    writer = pipeline("text-generation", model=str(model.opened.folder))
    for name, digit in names.items():  # and a pipeline of transformers stops there, too
        asked = {"max_new_tokens": 20, "do_sample": False, "return_full_text": False}
        assert writer(f"{name} is", **asked)[0]["generated_text"] == f" {digit}"


def test_a_model_of_another_objective_cannot_answer(place):
    (place.folder / "t.txt").write_text("one two three four five six seven eight nine ten. " * 90)
    options = {"training.steps": 2, "vocabulary.kind": "byte", "objective.name": "masked"}
    nextword.train(place.folder / "t.txt", name="both", options=options)
    (place.folder / "qa.jsonl").write_text(json.dumps({"prompt": "a", "answer": "b"}))
    with pytest.raises(NextwordError, match="cannot write an answer"):
        finetune("both", [str(place.folder / "qa.jsonl")], resolve())
    assert not (place.folder / "runs" / "qa-1").exists()
