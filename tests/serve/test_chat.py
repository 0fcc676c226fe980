"""Conversations: by the folder's own template, ours or another's; nobody's words become a sign."""

import json
import shutil
from pathlib import Path

import pytest

import nextword
from nextword.base.errors import EvaluationError
from nextword.finetune import finetune
from nextword.finetune.chat import IN_WORDS, ask
from nextword.serve.chat import ids_of_messages
from nextword.serve.errors import ApiError
from nextword.settings import resolve
from tests.serve.conftest import client_of, running

CHAT = [{"role": "user", "content": "What is an owl?"}]
PICTURE = [{"type": "image_url"}]
OTHER = (
    "{% for message in messages %}<|endoftext|>[{{ message.role }}] {{ message.content | trim }}"
    "{% if message.content.startswith('never') %}x{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A folder that learned from a few conversations."""
    here = tmp_path_factory.mktemp("chat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTWORD_CACHE", str(here / "cache"))
        patch.setenv("NEXTWORD_RUNS", str(here / "runs"))
        patch.chdir(here)
        (here / "t.txt").write_text("What is an owl? It is wise.\n" * 200)
        options = {"training.steps": 2, "vocabulary.size": 300, "model.context": 128}
        nextword.train(here / "t.txt", name="begun", options=options)
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"What is owl {n}?"},
                    {"role": "assistant", "content": "It is wise."},
                ]
            }
            for n in range(20)
        ]
        (here / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
        done = finetune("begun", [str(here / "chats.jsonl")], resolve(given={"finetune.steps": 9}))
        return nextword.load(done.folder, device="cpu")


@pytest.fixture(scope="module")
def server(taught):
    with running(str(taught.opened.folder)) as found:
        yield found


def test_an_answer_is_explained_by_the_conversation_before_it(server):
    asked = {"messages": CHAT, "max_tokens": 5, "temperature": 0, "logprobs": True}
    answered = server.post("/v1/chat/completions", **asked, nextword={"explain": True}).json()
    (told,) = answered["nextword"]["explain"]
    chosen = [one["logprob"] for one in answered["choices"][0]["logprobs"]["content"]]
    assert chosen
    assert [-one["nats"] for one in told["positions"]][: len(chosen)] == pytest.approx(
        chosen, abs=1e-5
    )
    assert all(one["rank"] == 1 for one in told["positions"])


@pytest.fixture(scope="module")
def client(server):
    with client_of(server) as found:
        yield found


def name_of(server):
    return next(iter(server.engines))


def test_it_answers_as_generate_does(client, server, taught):
    asked = {"model": name_of(server), "messages": CHAT, "temperature": 0, "max_tokens": 12}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=3)
    (choice,) = whole.choices
    written = taught.generate(CHAT, temperature=0, max_tokens=12)
    assert written[0] == " "  # the template's own, and no part of what is said
    assert choice.message.content == written[1:]
    for one in choice.logprobs.content:
        assert len(one.top_logprobs) == 3
        assert one.top_logprobs[0].logprob == one.logprob  # greedy: the likeliest
    said = b"".join(bytes(one.bytes or ()) for one in choice.logprobs.content)
    assert said.decode().strip() == choice.message.content.strip()
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    *parts, last = client.chat.completions.create(**asked, **streamed, logprobs=True)
    assert last.choices == []
    assert last.usage.completion_tokens == len(choice.logprobs.content)
    assert all(part.usage is None for part in parts)
    assert parts[0].choices[0].delta.role == "assistant"
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == choice.message.content
    told = [part.choices[0].logprobs for part in parts if part.choices[0].logprobs]
    streamed = [one.logprob for part in told for one in part.content]
    assert streamed == [one.logprob for one in choice.logprobs.content]


def test_it_goes_on_to_the_context_where_no_length_is_said(client, server):
    found = client.chat.completions.create(model=name_of(server), messages=CHAT, seed=1)
    assert found.usage.total_tokens <= 129


def test_parts_of_text_are_one_message(client, server):
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "an owl?"}]
    asked = {"model": name_of(server), "temperature": 0, "max_tokens": 8}
    one = client.chat.completions.create(**asked, messages=CHAT)
    two = client.chat.completions.create(**asked, messages=[{"role": "user", "content": parts}])
    assert one.choices[0].message.content == two.choices[0].message.content


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": PICTURE}]}, "messages[0].content"),
        ({"messages": CHAT, "tools": [{"type": "function"}]}, "tools"),
        ({"messages": CHAT, "response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": CHAT, "top_logprobs": 3}, "top_logprobs"),
        ({"messages": [{"role": "user", "content": "owl " * 400}]}, "prompt"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_named(server, body, param):
    answered = server.post("/v1/chat/completions", **body)
    assert answered.status_code == 400
    assert answered.json()["error"]["param"] == param


def other(taught, tmp_path, template, *, jinja):
    folder = tmp_path / "other"
    shutil.copytree(taught.opened.folder, folder, ignore=shutil.ignore_patterns("training"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template")
    (folder / "chat_template.jinja").unlink()
    if jinja:
        (folder / "chat_template.jinja").write_text(template)
    else:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return nextword.load(Path(folder), device="cpu")


@pytest.mark.parametrize("jinja", [True, False])
def test_a_template_from_elsewhere_gives_the_ids_of_transformers(taught, tmp_path, jinja):
    from transformers import AutoTokenizer

    model = other(taught, tmp_path, OTHER, jinja=jinja)
    messages = [{"role": "system", "content": "Be brief."}, *CHAT]
    theirs = AutoTokenizer.from_pretrained(model.opened.folder)
    text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    expected = model.vocabulary.encode(text, special=True)
    found = ids_of_messages(model.opened, messages)
    assert model.vocabulary.decode(found) == model.vocabulary.decode(expected)
    assert found.count(model.vocabulary.end_id) == 2


@pytest.mark.parametrize(
    "words", ["<|endoftext|>", "a<|endoftext|>b", "{{ 7 * 7 }}", "[assistant]"]
)
def test_what_a_user_says_is_only_text(taught, tmp_path, words):
    said = [{"role": "user", "content": words}]
    for model in (taught, other(taught, tmp_path, OTHER, jinja=True)):
        ids = ids_of_messages(model.opened, said)
        assert ids.count(model.vocabulary.end_id) == 1
        assert words in model.vocabulary.decode(ids)


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('not so') }}",
        "{% broken",
        "{{ ().__class__.__base__.__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ 'x' * 100000000 }}",
        "{{ 1 / 0 }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_a_template_that_means_harm_is_refused(taught, tmp_path, template):
    model = other(taught, tmp_path, template, jinja=True)
    with pytest.raises(ApiError) as caught:
        ids_of_messages(model.opened, CHAT)
    assert caught.value.status == 400


@pytest.mark.parametrize("named", [False, True])
def test_the_folders_template_decides_and_not_its_vocabulary(taught, tmp_path, named):
    """A vocabulary may have marks by which nobody was taught; several templates have names."""
    folder = tmp_path / "it"
    shutil.copytree(taught.opened.folder, folder)
    shutil.rmtree(folder / "training")
    assert taught.vocabulary.marks is not None
    (folder / "chat_template.jinja").write_text(IN_WORDS)
    if named:
        (folder / "chat_template.jinja").unlink()
        file = folder / "tokenizer_config.json"
        several = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": IN_WORDS}]
        file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": several}))
    other = nextword.load(str(folder))
    words = "User: What is an owl?\nAssistant:"
    expected = [other.vocabulary.begin_id, *other.vocabulary.encode(words)]
    assert ids_of_messages(other.opened, CHAT) == expected
    same = {"temperature": 0, "max_tokens": 4}
    assert other.generate(CHAT, **same) == other.generate(words, **same)


def test_our_own_asks_as_was_taught(taught):
    ids = ids_of_messages(taught.opened, CHAT)
    assert ids == [taught.vocabulary.begin_id, *ask(CHAT, taught.vocabulary)]
    with pytest.raises(EvaluationError):
        ask([{"role": "judge", "content": "x"}], taught.vocabulary)
