"""Probabilities of what was read and of what was written: those of `evaluate`, to the digit."""

import json
import math

import pytest

TEXTS = (
    "We are all humans born to make mistakes.",
    "The owl is wise.\n\nLong ago, a fox — ünïcode 🙂 — sang.",
    " leading and trailing ",
    "<|endoftext|> is text",
    "x",
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_prompt_is_judged_as_evaluate_judges_it(server, small, text):
    found = server.choice(text, max_tokens=0, echo=True, logprobs=3)
    assert found["text"] == text
    told, score = found["logprobs"], small.score(text)
    first, *values = told["token_logprobs"]
    assert first is None
    assert told["top_logprobs"][0] is None
    assert values == pytest.approx(score.log_probabilities, abs=1e-5)
    assert math.fsum(values) == pytest.approx(score.log_likelihood, abs=1e-4)
    for token, value, top in zip(told["tokens"][1:], values, told["top_logprobs"][1:], strict=True):
        assert top[token] == value  # the very same float
        assert len(top) in (3, 4)
        assert max(top.values()) >= value


@pytest.mark.parametrize("text", TEXTS)
def test_places_are_those_of_the_whole_text(server, text):
    told = server.choice(text, max_tokens=0, echo=True, logprobs=0)["logprobs"]
    for token, place in zip(told["tokens"][1:], told["text_offset"][1:], strict=True):
        if not token.startswith("bytes:"):
            assert text[place : place + len(token)] == token
    assert told["text_offset"] == sorted(told["text_offset"])


def test_a_token_that_is_part_of_a_character_shows_its_bytes(server, small):
    told = server.choice("🙂", max_tokens=0, echo=True, logprobs=0)["logprobs"]
    assert len(told["tokens"]) > 2
    raw = b"".join(
        bytes.fromhex(token.removeprefix("bytes:").replace("\\x", ""))
        for token in told["tokens"][1:]
    )
    assert raw == "🙂".encode()
    assert set(told["text_offset"]) == {0}


def test_ids_are_read_as_they_are(server, small):
    text = "We are all humans"
    ids = small.vocabulary.encode(text)
    begun = [small.vocabulary.begin_id, *ids]
    whole = server.choice(text, max_tokens=3, echo=True, logprobs=2, temperature=0)
    same = server.choice(begun, max_tokens=3, echo=True, logprobs=2, temperature=0)
    assert same["logprobs"] == whole["logprobs"]
    bare = server.choice(ids, max_tokens=0, echo=True, logprobs=0)["logprobs"]
    assert len(bare["tokens"]) == len(ids)
    assert bare["token_logprobs"][0] is None


def test_one_token_is_one_entry_even_where_the_text_ends(server, small):
    end = small.vocabulary.end_id
    found = server.choice("We are", max_tokens=1, echo=True, logprobs=1, logit_bias={str(end): 100})
    tokens = small.vocabulary.encode("We are")
    assert len(found["logprobs"]["tokens"]) == 1 + len(tokens) + 1
    assert found["logprobs"]["tokens"][-1] == "<|endoftext|>"
    assert found["text"] == "We are"
    assert found["finish_reason"] == "stop"
    # What is told is what the model thinks, not what the bias made of it.
    assert found["logprobs"]["token_logprobs"][-1] < -0.5


def test_what_is_written_is_judged_as_it_is_when_read(server):
    wrote = server.choice("We are all", max_tokens=12, temperature=0, logprobs=2)
    read = server.choice("We are all" + wrote["text"], max_tokens=0, echo=True, logprobs=2)
    written, again = wrote["logprobs"], read["logprobs"]
    count = len(written["tokens"])
    assert again["tokens"][-count:] == written["tokens"]
    assert again["token_logprobs"][-count:] == pytest.approx(written["token_logprobs"], abs=1e-5)
    assert again["text_offset"][-count:] == written["text_offset"]


def test_greedy_is_what_generate_writes(server, small):
    wrote = server.choice("We are all", max_tokens=20, temperature=0)["text"]
    assert wrote == small.generate("We are all", max_tokens=20, temperature=0)


def test_explain_gives_the_trace_that_the_verb_prints(server, small, shared_environment):
    found = server.complete(
        "We are all humans", max_tokens=0, echo=True, nextword={"explain": True}
    )
    (told,) = found["nextword"]["explain"]
    asked = shared_environment.nextword(
        "explain", "small", "We are all humans", "--json", "--top", "5"
    )
    printed = json.loads(asked.stdout)
    assert len(told["positions"]) == len(small.vocabulary.encode("We are all humans"))
    for one, other in zip(told["positions"], printed["positions"], strict=True):
        for name in ("piece", "id", "rank", "seen"):
            assert one[name] == other[name]
        for name in ("nats", "logit", "entropy"):
            assert one[name] == pytest.approx(other[name], abs=1e-4)
        for guess, known in zip(one["candidates"], other["candidates"], strict=True):
            assert (guess["piece"], guess["id"]) == (known["piece"], known["id"])
            assert guess["probability"] == pytest.approx(known["probability"], abs=1e-5)
            assert guess["logit"] == pytest.approx(known["logit"], abs=1e-4)


def test_a_prompt_begins_and_is_read_as_is_asked_for(server, small):
    vocabulary = small.vocabulary
    asked = {"max_tokens": 1, "temperature": 0, "logprobs": 1}
    plain = vocabulary.encode("We are")
    cases = (
        ({}, [vocabulary.begin_id, *plain]),
        ({"add_special_tokens": False}, plain),
    )
    for more, ids in cases:
        by_text = server.complete("We are", **asked, **more)
        by_ids = server.complete(ids, **asked)
        assert by_text["usage"]["prompt_tokens"] == len(ids)
        assert by_text["choices"][0]["logprobs"] == by_ids["choices"][0]["logprobs"]
    name = vocabulary.tokenizer.id_to_token(vocabulary.end_id)
    as_text = server.complete(f"a{name}b", **asked)["usage"]["prompt_tokens"]
    as_sign = server.complete(f"a{name}b", **asked, parse_special=True)["usage"]["prompt_tokens"]
    assert as_sign == 1 + len([*vocabulary.encode("a"), vocabulary.end_id, *vocabulary.encode("b")])
    assert as_text == 1 + len(vocabulary.encode(f"a{name}b")) > as_sign


def test_what_is_explained_are_the_very_ids_that_were_read(server, small):
    """Decoded and encoded again, these would be other pieces."""
    letters = [id_ for letter in "We are" for id_ in small.vocabulary.encode(letter)]
    ids = [small.vocabulary.begin_id, *letters]
    assert small.vocabulary.encode(small.vocabulary.decode(ids[1:])) != ids[1:]
    asked = {"max_tokens": 3, "temperature": 0, "logprobs": 1, "nextword": {"explain": True}}
    found = server.complete(ids, **asked)
    (told,) = found["nextword"]["explain"]
    assert [one["id"] for one in told["positions"]][: len(ids) - 1] == ids[1:]
    written = told["positions"][len(ids) - 1 :]
    chosen = found["choices"][0]["logprobs"]["token_logprobs"]
    assert [-one["nats"] for one in written] == pytest.approx(chosen, abs=1e-5)
    assert all(one["rank"] == 1 for one in written)
    streamed = server.post("/v1/completions", prompt=ids, stream=True, **asked).text
    events = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    assert events[-1]["choices"] == []
    (again,) = events[-1]["nextword"]["explain"]
    assert [one["id"] for one in again["positions"]] == [one["id"] for one in told["positions"]]


def test_the_end_is_no_text_and_other_ends_may_be_asked_for(server):
    asked = {"max_tokens": 30, "temperature": 1, "seed": 5}
    whole = server.choice("We", **asked)["text"]
    assert len(whole) > 12
    for start in range(0, len(whole) - 6, 5):  # most begin or end within a token
        for size in (1, 6):
            stop = whole[start : start + size]
            cut = server.choice("We", **asked, stop=["never \0 there", stop])
            assert cut["text"] == whole[: whole.index(stop)]
            assert cut["finish_reason"] == "stop"
