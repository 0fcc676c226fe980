"""A tokenizer.json from elsewhere: looked at, tried under limits, and used only then."""

import json

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from nextword.base.errors import VocabularyError
from nextword.vocabulary import reading
from nextword.vocabulary.kinds import names
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.patterns import PATTERNS
from nextword.vocabulary.tokenizer import Vocabulary
from nextword.vocabulary.train import train_vocabulary


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEXTWORD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "model"
    place.mkdir()
    text = "we are all humans born to make mistakes " * 20
    train_vocabulary([text], len(text), VocabularySettings()).save(place)
    return place


def change(folder, **fields):
    file = folder / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def model_of(folder):
    return json.loads((folder / "tokenizer.json").read_text())["model"]


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (lambda model: {**model, "vocab": {}}, "length >= 1|array"),
        (lambda model: {**model, "vocab": {**model["vocab"], "x y": 10**9}}, "has the id"),
        (lambda model: {**model, "vocab": {**model["vocab"], "x y": -1}}, "vocab"),
        (lambda model: {**model, "vocab": {**model["vocab"], "x y": "1"}}, "vocab"),
        (lambda model: {**model, "unk_token": 5}, "model.unk_token"),
        (lambda model: {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "no"}, "unk_token"),
        (lambda model: {"type": "Nothing", "vocab": {"a": 0}}, "damaged vocabulary"),
        (lambda model: [], "model"),
    ],
)
def test_a_model_that_cannot_be_is_named_by_its_field(folder, alter, words):
    change(folder, model=alter(model_of(folder)))
    with pytest.raises(VocabularyError, match=words):
        Vocabulary.load(folder)


def test_padding_and_truncation_written_there_are_not_used(folder):
    ids = Vocabulary.load(folder).encode("we are all humans")
    change(
        folder,
        padding={"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None,
                 "pad_id": 0, "pad_type_id": 0, "pad_token": "x"},
        truncation={"max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
    )  # fmt: skip
    assert Vocabulary.load(folder).encode("we are all humans") == ids


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kind", names())
def test_what_is_built_here_needs_no_trial(tmp_path, monkeypatch, kind, pattern):
    text = "we are all humans born to make mistakes " * 20
    settings = VocabularySettings(kind=kind, pattern=pattern)
    train_vocabulary([text], len(text), settings).save(tmp_path)
    monkeypatch.setattr(reading, "_trial", lambda text: pytest.fail("tried"))
    assert Vocabulary.load(tmp_path).encode("we are")


def test_what_is_harmless_needs_no_trial_and_what_is_strange_one(folder, monkeypatch):
    tried = []
    monkeypatch.setattr(reading, "_trial", lambda text: tried.append(text) or "")
    Vocabulary.load(folder)
    assert not tried
    split = pre_tokenizers.Split(Regex(r"\w+|\W+"), "isolated")
    change(folder, pre_tokenizer=json.loads(split.__getstate__()))
    Vocabulary.load(folder)
    Vocabulary.load(folder)
    assert len(tried) == 1  # the finding is remembered


def test_a_public_tokenizer_with_a_pattern_of_its_own_passes_its_trial(folder):
    split = pre_tokenizers.Split(Regex(r"\w+|[^\w]"), "isolated")
    change(folder, pre_tokenizer=json.loads(split.__getstate__()))
    assert Vocabulary.load(folder).encode("we")


@pytest.mark.parametrize("which", ["backtracks", "multiplies"])
def test_what_hangs_panics_or_swells_is_refused(folder, monkeypatch, which):
    monkeypatch.setattr(reading, "SECONDS", 5)
    if which == "backtracks":
        split = pre_tokenizers.Split(Regex(r"(a+)+$|(\w+\s?)*!"), "isolated")
        change(folder, pre_tokenizer=json.loads(split.__getstate__()))
    else:
        swell = normalizers.Replace("a", "ab" * 100_000)
        change(folder, normalizer=json.loads(swell.__getstate__()))
    with pytest.raises(VocabularyError, match="damaged vocabulary"):
        Vocabulary.load(folder)


def test_a_panic_of_the_library_is_one_line():
    class PanicException(BaseException):
        """What pyo3 raises for one; no Exception."""

    with pytest.raises(VocabularyError, match=r"here \(boom\)"), reading.no_panic("here"):
        raise PanicException("boom")
    with pytest.raises(KeyboardInterrupt), reading.no_panic("here"):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "config",
    ["", "[]", '{"eos_token": 5}', '{"eos_token": {"content": 5}}', '{"pad_token": ["x"]}'],
)
def test_a_damaged_tokenizer_config_is_named(folder, config):
    (folder / "tokenizer_config.json").write_text(config)
    with pytest.raises(VocabularyError, match=r"tokenizer_config\.json"):
        Vocabulary.load(folder)


def test_old_files_without_the_models_type_are_read(tmp_path):
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    described = json.loads(tokenizer.to_str())
    del described["model"]["type"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    assert reading.read_tokenizer(tmp_path / "tokenizer.json").encode("ab").ids == [2]


@pytest.mark.parametrize("strange", [[], {}, ["Sequence"], 3, True])
def test_a_part_whose_kind_is_no_name_is_refused(folder, strange):
    split = {
        "type": "Split",
        "pattern": {"Regex": strange},
        "behavior": "Isolated",
        "invert": False,
    }
    for part in (
        {"type": strange},
        {"type": "Sequence", "normalizers": [{"type": strange}]},
        split,
    ):
        for name in ("normalizer", "pre_tokenizer", "decoder"):
            before = (folder / "tokenizer.json").read_bytes()
            change(folder, **{name: part})
            with pytest.raises(VocabularyError):
                Vocabulary.load(folder)
            (folder / "tokenizer.json").write_bytes(before)
