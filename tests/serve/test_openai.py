"""OpenAI's own client against the endpoint: whole, streamed, many at once, and wrong."""

import asyncio
import time

import httpx
import numpy as np
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from nextword.serve.metrics import Metrics, exposition
from tests.serve.conftest import client_of, running


@pytest.fixture(scope="module")
def client(server):
    with client_of(server) as found:
        yield found


def test_models(client, small):
    (model,) = client.models.list().data
    assert model.id == "small"
    assert client.models.retrieve("small").id == "small"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other")
    assert caught.value.code == "model_not_found"


def test_a_completion_whole_and_streamed(client):
    asked = {"model": "small", "prompt": "We are all", "max_tokens": 24, "seed": 7, "logprobs": 2}
    whole = client.completions.create(**asked)
    again = client.completions.create(**asked)
    assert whole.choices[0].text == again.choices[0].text
    options = {"include_usage": True}
    parts = list(client.completions.create(**asked, stream=True, stream_options=options))
    told = [part for part in parts if part.choices]
    assert "".join(part.choices[0].text for part in told) == whole.choices[0].text
    logprobs = [part.choices[0].logprobs for part in told if part.choices[0].logprobs]
    for name in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
        joined = [one for part in logprobs for one in getattr(part, name)]
        assert joined == getattr(whole.choices[0].logprobs, name)
    assert told[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert parts[-1].choices == []
    assert parts[-1].usage.total_tokens == whole.usage.total_tokens
    assert all(part.usage is None for part in parts[:-1])


@pytest.mark.parametrize("echo", [False, True])
def test_parts_of_characters_have_their_places_in_a_stream_too(client, small, echo):
    halves = {
        id_: raw
        for id_ in range(len(small.vocabulary))
        if (raw := small.vocabulary.piece_bytes(id_)) in (b"\xc3", b"\xa9")
    }
    assert len(halves) == 2
    ends_within = [small.vocabulary.begin_id, *halves]
    asked = {"model": "small", "prompt": ends_within, "max_tokens": 24, "seed": 7, "logprobs": 0}
    asked |= {"echo": echo, "logit_bias": {str(id_): 60 for id_ in halves}}
    whole = client.completions.create(**asked).choices[0]
    parts = [one.choices[0] for one in client.completions.create(**asked, stream=True)]
    places = [place for one in parts if one.logprobs for place in one.logprobs.text_offset]
    assert places == whole.logprobs.text_offset
    assert len(set(places[-24:])) < 24  # some ended what another had begun
    text = "".join(part.text for part in parts)
    assert text == whole.text
    start = 0 if echo else len(small.vocabulary.decode(ends_within))
    for token, place in zip(whole.logprobs.tokens, places, strict=True):
        signs = text[place - start : place - start + 1]
        assert signs in ("é", "\ufffd") or not token.startswith("bytes:")


def test_several_choices_and_the_best_of_more(client):
    asked = {"model": "small", "prompt": ["We are", "The owl"], "max_tokens": 8, "seed": 3}
    found = client.completions.create(**asked, n=3)
    assert [choice.index for choice in found.choices] == list(range(6))
    assert len({choice.text for choice in found.choices[:3]}) > 1
    single = client.completions.create(**{**asked, "prompt": "The owl"}, n=3)
    assert [c.text for c in single.choices] == [c.text for c in found.choices[3:]]
    several = client.completions.create(**asked, n=4, logprobs=0)
    best = client.completions.create(**asked, n=1, best_of=4, logprobs=0)

    def mean(choice):
        return np.mean(choice.logprobs.token_logprobs)

    for place in range(2):
        most = max(mean(choice) for choice in several.choices[4 * place : 4 * place + 4])
        assert mean(best.choices[place]) == pytest.approx(most)


def test_bias_and_penalties(client, small):
    word = small.vocabulary.encode(" all")[0]
    asked = {"model": "small", "prompt": "We are", "max_tokens": 12, "temperature": 0}
    plain = client.completions.create(**asked).choices[0].text
    more = client.completions.create(**asked, logit_bias={str(word): 100}).choices[0].text
    assert more == " all" * 12
    fewer = client.completions.create(
        **asked, frequency_penalty=2, presence_penalty=2, logit_bias={str(word): 10}
    )
    assert fewer.choices[0].text != " all" * 12
    assert plain != more


def test_echo_streams_the_prompt_first(client):
    asked = {"model": "small", "prompt": "We are", "max_tokens": 4, "temperature": 0, "echo": True}
    parts = list(client.completions.create(**asked, stream=True, logprobs=1))
    assert parts[0].choices[0].text == "We are"
    assert parts[0].choices[0].logprobs.token_logprobs[0] is None
    whole = client.completions.create(**asked, logprobs=1).choices[0]
    assert "".join(part.choices[0].text for part in parts) == whole.text
    tokens = [token for part in parts for token in part.choices[0].logprobs.tokens]
    assert tokens == whole.logprobs.tokens


def test_many_at_once_by_the_asynchronous_client(server):
    async def ask():
        async with openai.AsyncOpenAI(
            base_url=f"{server.address}/v1", api_key="none", max_retries=0, timeout=300
        ) as client:

            async def one(number):
                stream = await client.completions.create(
                    model="small", prompt=f"The {number}", max_tokens=10, seed=number, stream=True
                )
                return "".join([part.choices[0].text async for part in stream])

            return await asyncio.gather(*(one(number % 12) for number in range(36)))

    texts = asyncio.run(ask())
    assert texts[:12] == texts[12:24] == texts[24:]
    assert len(set(texts)) > 6


def test_embeddings_have_length_1_in_both_encodings(client):
    found = client.embeddings.create(model="small", input=["We are", "The owl"])
    rows = np.array([one.embedding for one in found.data])
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    plain = client.embeddings.create(model="small", input="We are", encoding_format="float")
    assert rows[0] == pytest.approx(np.array(plain.data[0].embedding), abs=1e-6)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": "We", "dimensions": 7}, "dimensions"),
        ({"input": "We", "encoding_format": "int8"}, "encoding_format"),
        ({"input": ["We"] * 2049}, "2049 texts in one request; this server reads 2048 at most"),
        ({"input": [[10**6]]}, "no entry 1000000"),
        ({"input": "We are " * 500}, "this model's context holds"),
    ],
)
def test_vectors_that_cannot_be_given_are_refused(server, body, words):
    answered = server.post("/v1/embeddings", **body)
    assert answered.status_code == 400
    assert words in answered.json()["error"]["message"]


def test_vectors_may_take_only_so_long(small_place):
    with running(small_place, timeout_seconds=1e-6) as slow:
        late = slow.post("/v1/embeddings", input=["We are", "The owl"])
        assert late.status_code == 408
        explained = slow.post(
            "/v1/completions", prompt="We", max_tokens=0, nextword={"explain": True}
        )
        assert explained.status_code == 408


def test_who_goes_away_waits_for_no_vectors(small_place):
    with running(small_place) as server:
        read, real = [], server.engine.call
        server.engine.call = lambda work: (read.append(1), time.sleep(0.02), real(work))[2]
        body = {"input": ["We are all humans"] * 128}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(server.address + "/v1/embeddings", json=body, timeout=0.3)
        time.sleep(0.2)
        known = len(read)
        assert 0 < known < 128
        time.sleep(0.5)
        assert len(read) == known


@pytest.mark.parametrize("objective", ["masked"])
def test_a_model_that_writes_nothing_still_gives_vectors(place, objective):
    few = ["--corpus.stories", "100", "--training.steps", "3", "--quiet"]
    asked = ["train", "--name", "both", "--objective", objective, *few]
    assert place.nextword(*asked).returncode == 0
    with running(str(place.folder / "runs" / "both")) as server:
        found = server.post("/v1/embeddings", input=["We are", "The owl"]).json()["data"]
        rows = np.array([one["embedding"] for one in found])
        assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
        assert not np.allclose(rows[0], rows[1])
        for path, body in (
            ("/v1/completions", {"prompt": "We"}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ):
            refused = server.post(path, **body)
            assert refused.status_code == 400
            assert "writes no text" in refused.json()["error"]["message"]


def test_a_chat_is_refused_where_none_was_learned(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="small", messages=[{"role": "user", "content": "Hi"}])
    assert caught.value.code == "no_chat_template"


WRONG = {
    "prompt": [3, {"a": 1}, [], [[]], ["a", 1], [[1, "a"]], [10**9], [-1], [1.5], [True]],
    "max_tokens": [-1, "many", 1.5, 10**30],
    "temperature": [-1, "hot", 10**400],
    "top_p": [0, 0.0, 2],
    "n": [0, 10**6, 4096],
    "best_of": [0],
    "logprobs": [-1, 1000],
    "logit_bias": [{"x": 1}, {"999999": 1}, {"1": "a"}, {"1": 1000}],
    "stop": ["", [""], [1], "x" * 2000, ["x"] * 17],
    "stream_options": [3],
    "suffix": ["end"],
    "seed": ["a", 1 << 70],
    "model": ["other", 3],
    "presence_penalty": [3],
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(server, name):
    for value in WRONG[name]:
        answered = server.post("/v1/completions", **{"prompt": "We", name: value})
        assert answered.status_code == (404 if value == "other" else 400), (value, answered.text)
        error = answered.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert name in (error["param"] or "") or value in (10**400, [10**9]), (value, error)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b'{"prompt": "\\ud800"}', b"[" * 10**5])
def test_no_json_is_said(server, raw):
    import httpx

    answered = httpx.post(f"{server.address}/v1/completions", content=raw)
    assert answered.status_code == 400
    assert answered.json()["error"]["type"] == "invalid_request_error"


def test_what_is_too_long_names_both_lengths(server, small):
    context = small.model.shape.context
    answered = server.post("/v1/completions", prompt=[5] * (context + 1), max_tokens=0)
    error = answered.json()["error"]
    assert (answered.status_code, error["code"]) == (400, "context_length_exceeded")
    assert str(context + 1) in error["message"]
    assert str(context) in error["message"]
    answered = server.post("/v1/completions", prompt="We", max_tokens=context + 1)
    assert answered.json()["error"]["param"] == "max_tokens"
    full = server.choice([5] * context, max_tokens=1)  # the last token need not be read
    assert full["finish_reason"] in ("length", "stop")
    unsaid = server.choice([5] * (context - 3))  # 16 where there is room, else what there is
    assert unsaid["finish_reason"] in ("length", "stop")


def test_tokens_there_and_back(server, small):
    text = "The owl <|endoftext|> 🙂"
    told = server.post("/tokenize", prompt=text, return_token_strs=True).json()
    assert told["tokens"] == [small.vocabulary.begin_id, *small.vocabulary.encode(text)]
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    bare = server.post("/tokenize", content=text, add_special_tokens=False).json()["tokens"]
    assert server.post("/detokenize", tokens=bare).json()["prompt"] == text
    assert small.vocabulary.end_id not in bare
    read = server.post("/tokenize", prompt=text, parse_special=True, add_special_tokens=False)
    assert small.vocabulary.end_id in read.json()["tokens"]
    info = server.get("/tokenizer_info").json()
    assert info["vocab_size"] == len(small.vocabulary)
    for body in ({}, {"prompt": "a", "content": "b"}):
        assert server.post("/tokenize", **body).status_code == 400
    assert server.post("/detokenize", tokens=[10**6]).status_code == 400


def test_other_paths_and_methods_are_errors_of_the_same_shape(server):
    for answered, status in (
        (server.get("/v1/nothing"), 404),
        (server.get("/v1/completions"), 405),
        (server.post("/health"), 405),
    ):
        assert answered.status_code == status
        assert answered.json()["error"]["message"]


def test_what_was_done_is_counted(server):
    before = server.get("/metrics").text
    server.complete("We", max_tokens=3)
    after = server.get("/metrics").text

    def count(text, name):
        line = next(line for line in text.splitlines() if line.startswith(name))
        return float(line.split()[-1])

    name = 'nextword_generated_tokens_total{model="small"}'
    assert 1 <= count(after, name) - count(before, name) <= 3
    name = "nextword_time_to_first_token_seconds_count"
    assert count(after, name) - count(before, name) == 1
    # Prometheus' own reader finds each figure once, with its kind.
    families = [*text_string_to_metric_families(after)]
    kinds = {family.name: family.type for family in families}
    assert len(kinds) == len(families)
    assert kinds["nextword_generated_tokens"] == "counter"
    assert kinds["nextword_writing"] == "gauge"
    assert kinds["nextword_time_to_first_token_seconds"] == "histogram"


def test_figures_of_several_models_stand_together():
    told = [line for name in ("one", 'two "2"') for line in Metrics().lines(name, {"writing": 1})]
    families = {family.name: family for family in text_string_to_metric_families(exposition(told))}
    assert families["nextword_writing"].type == "gauge"
    names = [sample.labels["model"] for sample in families["nextword_writing"].samples]
    assert names == ["one", 'two "2"']
    waits = families["nextword_time_to_first_token_seconds"]
    assert waits.type == "histogram"
    assert {sample.labels["model"] for sample in waits.samples} == {"one", 'two "2"'}
