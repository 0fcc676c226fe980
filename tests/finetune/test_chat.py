"""Chats are taught as the folder's own template writes them: ids and masks of `transformers`."""

import json
import random

import pytest
import torch

import nextword
from nextword.base.errors import EvaluationError
from nextword.corpus.examples import Row
from nextword.finetune import finetune
from nextword.finetune.answers import read_turns
from nextword.finetune.chat import ask
from nextword.objectives.options import FinetuneSettings
from nextword.settings import resolve
from nextword.targets.batch import IGNORED

pytestmark = pytest.mark.usefixtures("one_thread")

SAID = (
    *("Hi", "How are you?", "Yes.", " leading", "trailing ", "two\nlines", "a\n\nb\n", "1,234.50"),
    *("Grüße, 世界 🙂", "User: not a turn", "if x:\n    return 1\n", "!?", "tab\there", "\n\nlate"),
)


def conversations(count=20, seed=0):
    """With and without a system message, one turn or several, tools, answers in a row."""
    source = random.Random(seed)
    for number in range(count):
        turns = [("system", source.choice(SAID))] if number % 3 == 0 else []
        for _ in range(1 + number % 4):
            turns.append(("user", source.choice(SAID)))
            if source.random() < 0.3:
                turns += [("assistant", source.choice(SAID)), ("tool", source.choice(SAID))]
            turns.append(("assistant", source.choice(SAID)))
        if number % 5 == 0:
            turns.append(("assistant", source.choice(SAID)))
        yield [{"role": role, "content": content} for role, content in turns]


@pytest.fixture(scope="module", params=["with marks", "in words"])
def taught(tmp_path_factory, request):
    """A folder that learned from twenty conversations; LoRA adds no entries for marks."""
    here = tmp_path_factory.mktemp("chat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTWORD_CACHE", str(here / "cache"))
        patch.setenv("NEXTWORD_RUNS", str(here / "runs"))
        patch.chdir(here)
        (here / "t.txt").write_text("\n".join(random.Random(1).choices(SAID, k=840)))
        options = {"training.steps": 40, "vocabulary.size": 400, "model.context": 128}
        options |= {"model.hidden_size": 64}
        begun = nextword.train(here / "t.txt", name="begun", options=options)
        lines = [json.dumps({"messages": chat}) for chat in conversations()]
        (here / "chats.jsonl").write_text("\n".join(lines))
        given = {"finetune.steps": 2, "examples.too_long": "truncate"}
        if request.param == "in words":
            given["finetune.lora_rank"] = 2
        done = finetune("begun", [str(here / "chats.jsonl")], resolve(given=given))
        return begun, nextword.load(done.folder)


def test_ids_and_masks_are_those_of_transformers(taught):
    """Every answer and its end is learned, in every turn, and nothing else."""
    from transformers import AutoTokenizer

    model = taught[1]
    theirs = AutoTokenizer.from_pretrained(model.opened.folder)
    words, learned = model.vocabulary, 0
    end = words.end_id if words.marks is None else words.marks.end
    for number, chat in enumerate(conversations()):
        (turns,) = read_turns(
            [Row(f"line {number}", {"messages": chat})], model.vocabulary, FinetuneSettings(), 9999
        )
        there = theirs.apply_chat_template(
            chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        assert [*turns.inputs, end] == there["input_ids"], chat
        asked = [0, *(int(target != IGNORED) for target in turns.targets)]
        assert asked == there["assistant_masks"], chat
        ends = sum(
            id_ == end and mask == 1
            for id_, mask in zip(there["input_ids"], there["assistant_masks"], strict=True)
        )
        assert ends == sum(message["role"] == "assistant" for message in chat)
        learned += sum(asked)
    assert learned > 100


def test_a_chat_is_asked_as_it_was_taught(taught):
    from transformers import AutoTokenizer

    model = taught[1]
    theirs = AutoTokenizer.from_pretrained(model.opened.folder)
    for chat in conversations():
        asked = chat[:-1] if chat[-2]["role"] != "assistant" else chat
        there = theirs.apply_chat_template(
            asked, tokenize=True, add_generation_prompt=True, return_dict=True
        )
        ours = [model.vocabulary.end_id, *ask(asked, model.vocabulary)]
        assert ours == there["input_ids"], asked
    (chat, *_) = conversations()
    (one,) = model.stream(chat[:-1], temperature=0, max_tokens=1)
    inputs = [model.vocabulary.end_id, *ask(chat[:-1], model.vocabulary)]
    with torch.no_grad():
        logits = model.opened.model(torch.tensor([inputs]))[0, -1]
    torch.testing.assert_close(one.logits, logits, atol=1e-4, rtol=1e-4)
    for wrong in ([{"role": "robot", "content": "x"}], [], ["x"]):
        with pytest.raises(EvaluationError, match=r"a message needs a role|no list of messages"):
            model.generate(wrong)


@pytest.mark.filterwarnings("ignore")
def test_a_pipeline_answers_as_this_program(taught):
    """With marks and in words, the latter by LoRA: what was merged is an ordinary folder."""
    from transformers import pipeline

    model = taught[1]
    writer = pipeline("text-generation", model=str(model.opened.folder))
    said = set()
    room = model.opened.model.shape.context - 13
    for chat in conversations(30):
        while chat[-1]["role"] == "assistant":  # which a pipeline would go on with
            chat.pop()
        if len(ask(chat, model.vocabulary)) > room:  # a pipeline reads on beyond the context
            continue
        asked = {"max_new_tokens": 12, "do_sample": False}
        theirs = writer(chat, **asked)[0]["generated_text"][-1]
        assert theirs["role"] == "assistant"
        ours = model.generate(chat, temperature=0, max_tokens=12)
        assert ours.strip() == theirs["content"].strip()
        said.add(ours)
    assert len(said) > 3


def test_only_what_was_taught_with_chats_says_how_to_write_one(taught, place):
    begun, model = taught

    def template(folder):
        return json.loads((folder / "tokenizer_config.json").read_text()).get("chat_template")

    assert "generation" in template(model.opened.folder)
    assert template(begun.opened.folder) is None
    (place.folder / "qa.jsonl").write_text('{"prompt": "Hi", "answer": "Yes."}\n' * 4)
    given = resolve(given={"finetune.steps": 1, "finetune.holdout": 0.0})
    done = finetune(str(begun.opened.folder), [str(place.folder / "qa.jsonl")], given)
    assert template(nextword.load(done.folder).opened.folder) is None
