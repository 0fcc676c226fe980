"""JSON from a disk: a record of the kind asked for, or one line that says what it is not."""

import json
import math
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from nextword.base.errors import ModelError, NextwordError, RunError
from nextword.base.records import Count, Size, as_record, read_json, read_record
from nextword.explanation.replay import read_pins
from nextword.model.config import read_config
from nextword.model.layouts import labels_of, shape_of
from nextword.prediction.loading import run_facts
from nextword.training.checkpoint import list_checkpoints
from nextword.training.journal import Journal
from nextword.training.vouched import find_damage
from nextword.vocabulary.prepared import read_manifest
from nextword.vocabulary.reading import read_tokenizer_config

NUMBERS = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, -1, 2**31, 2**63, 10**30, 1e308, math.nan])
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8))
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


class Inner(Struct):
    """A part of a record."""

    size: Size
    told: list[str] = []


class Outer(Struct):
    """A record."""

    step: Count
    inner: Inner | None = None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], r"file\.json: damaged \(Expected object, got array"),
        ({}, r"file\.json: the field 'step' is missing"),
        ({"step": "1"}, r"file\.json: step: expected int, got str"),
        ({"step": True}, r"file\.json: step: expected int, got bool"),
        ({"step": 1.5}, r"file\.json: step: expected int, got float"),
        ({"step": -1}, r"file\.json: step: expected int >= 0"),
        ({"step": 1, "inner": {}}, r"file\.json: the field 'size' is missing in inner"),
        ({"step": 1, "inner": {"size": 10**12}}, r"file\.json: inner\.size: expected int <="),
        ({"step": 1, "inner": {"size": 1, "told": [1]}}, r"inner\.told\[0\]: expected str"),
        ({"step": 1, "inner": {"size": 1, "told": ["\ud800"]}}, "a character is cut in two"),
    ],
)
def test_the_field_that_is_wrong_is_named(tmp_path, value, words):
    file = tmp_path / "file.json"
    file.write_text(json.dumps(value))
    with pytest.raises(ModelError, match=words) as caught:
        read_record(file, Outer, ModelError, advice="make it again")
    assert str(caught.value).endswith("; make it again")


def test_fields_that_nobody_knows_are_left_alone(tmp_path):
    file = tmp_path / "file.json"
    file.write_text(json.dumps({"step": 3, "inner": {"size": 1, "more": []}, "x": {}}))
    assert read_record(file, Outer, ModelError) == Outer(3, Inner(1))
    assert as_record({"step": 3}, Outer, file, ModelError) == Outer(3)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"9" * 6000, "not JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b'"' + b"x" * 2000 + b'"', "2,002 bytes, where 1,000 are more than enough"),
    ],
)
def test_what_is_no_json_is_said(tmp_path, raw, words):
    file = tmp_path / "file.json"
    file.write_bytes(raw)
    with pytest.raises(RunError, match=words):
        read_json(file, RunError, largest=1000 if b"x" in raw else 1 << 20)


def test_what_is_no_plain_file_is_not_waited_for(tmp_path):
    with pytest.raises(RunError, match="no such file"):
        read_json(tmp_path / "none", RunError)
    with pytest.raises(RunError, match="no such file"):
        read_json(tmp_path, RunError)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(RunError, match="no such file"):
            read_json(tmp_path / "pipe", RunError)


@given(value=JSON, name=st.sampled_from(["config", "run", "manifest", "state", "pins", "log"]))
def test_any_json_at_all_is_taken_or_refused_in_one_line(tmp_path_factory, value: Any, name: str):
    place = tmp_path_factory.getbasetemp() / "any"
    (place / "checkpoints/step-000001/training").mkdir(parents=True, exist_ok=True)
    files = {
        "config": ("config.json", "tokenizer_config.json"),
        "run": ("run.json",),
        "manifest": ("manifest.json", "checkpoints/step-000001/training/manifest.json"),
        "state": ("checkpoints/step-000001/training/state.json",),
        "pins": ("pins.json",),
        "log": ("metrics.jsonl",),
    }[name]
    for file in files:
        (place / file).write_text(json.dumps(value) + "\n")
    readers = {
        "config": (lambda: _sizes(place), lambda: read_tokenizer_config(place)),
        "run": (lambda: run_facts(place),),
        "manifest": (
            lambda: read_manifest(place),
            lambda: find_damage(place / "checkpoints/step-000001", whole=True),
        ),
        "state": (lambda: list_checkpoints(place),),
        "pins": (lambda: read_pins(place),),
        "log": (lambda: list(Journal(place).read()), Journal(place).curve),
    }[name]
    for read in readers:
        said = _refusal_of(read)
        assert said is None or "\n" not in said


def _sizes(place):
    config = read_config(place)
    shape_of(config, place)
    labels_of(config, place)


def _refusal_of(read):
    try:
        read()
    except NextwordError as error:
        return str(error)
    return None
