"""Several models on one text: parts add up, and chance is called chance."""

import json
import math

import numpy as np
import pytest

import nextword
from nextword.base.errors import EvaluationError
from nextword.explanation.compare import compare_documents, compare_text
from nextword.rendering.compare import describe_comparison_of_models
from tests.place import Place

TEXT = "the good cat sat on the warm mat. the bad dog ran to the cold sea.\n"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Four models, trained once: the tests here only read them."""
    place = Place(tmp_path_factory.mktemp("library"))
    (place.folder / "t.txt").write_text(TEXT * 150)
    kinds = {
        "bpe": {},
        "chars": {"vocabulary.kind": "char"},
        "longer": {"training.steps": 30},
        "both": {"objective.name": "masked"},
    }
    with place.entered():
        for name, options in kinds.items():
            given = {"training.steps": 5, "model.context": 32, **options}
            nextword.train(place.folder / "t.txt", name=name, options=given)
        return place, {name: nextword.load(name).opened for name in kinds}


@pytest.fixture
def models(library):
    with library[0].entered():
        yield library[1]


def test_parts_add_up_whatever_the_vocabularies(models):
    found = compare_text([models["bpe"], models["chars"]], TEXT.strip())
    assert "".join(part.text for part in found.parts) == TEXT.strip()
    for number, name in enumerate(("bpe", "chars")):
        nats = math.fsum(part.nats[number] for part in found.parts)
        judged = nextword.load(name).explain(TEXT.strip())
        assert nats == pytest.approx(judged.nats, rel=1e-5)
        assert found.bits_per_byte(number) == pytest.approx(judged.bits_per_byte, rel=1e-5)
    pieces = [
        models["bpe"].vocabulary.piece(id_) for id_ in models["bpe"].vocabulary.encode(TEXT.strip())
    ]
    assert [part.text for part in found.parts] == pieces


def test_a_masked_model_is_told_from_the_others(models):
    found = compare_text([models["bpe"], models["both"]], TEXT.strip())
    assert [judge.both_sides for judge in found.judges] == [False, True]
    said = describe_comparison_of_models(found)
    assert "B reads both sides" in said
    assert "pseudo-log-likelihood" in said
    assert "No two models here" in said
    assert "compare bits a byte" not in said


def test_documents_cost_what_evaluate_says(models, tmp_path):
    documents = [TEXT.strip(), "the cat ran.", "a dog sat on a mat by the sea."] * 4
    file = tmp_path / "d.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in documents))
    found = compare_documents([models["bpe"], models["longer"]], documents)
    for number, name in enumerate(("bpe", "longer")):
        scores = nextword.load(name).evaluate(file)
        assert found.judges[number].nats == pytest.approx(scores.nats, rel=1e-5)
        assert found.judges[number].tokens == scores.tokens
    assert found.documents == 12


def test_a_model_beside_itself_differs_by_chance_alone(models):
    documents = [TEXT.strip()[: 30 + number] for number in range(12)]
    found = compare_documents([models["bpe"], models["bpe"]], documents)
    (difference,) = found.differences
    assert difference.bits_per_byte == 0.0
    assert difference.may_be_chance
    assert "could be chance" in describe_comparison_of_models(found)


def test_a_difference_on_every_document_is_no_chance_and_one_that_comes_and_goes_is(
    models, monkeypatch
):
    documents = [TEXT.strip()[:40] + str(number) for number in range(20)]
    source = np.random.default_rng(0)
    costs = {"bpe": 50 + source.normal(size=20), "longer": 40 + source.normal(size=20)}
    wobbly = {"bpe": costs["bpe"], "longer": costs["bpe"] + source.normal(size=20)}

    def judged(table):
        places = dict.fromkeys(table, 0)

        def cost(opened, ids):
            name = opened.run.name
            places[name] += 1
            return float(table[name][places[name] - 1])

        monkeypatch.setattr("nextword.explanation.compare.document_nats", cost)
        return compare_documents([models["bpe"], models["longer"]], documents).differences[0]

    sure, doubtful = judged(costs), judged(wobbly)
    assert not sure.may_be_chance
    assert (sure.better, sure.worse) == (1, 0)
    sizes = sum(len(text) for text in documents)
    apart = (costs["bpe"] - costs["longer"]).sum() / math.log(2) / sizes
    assert sure.bits_per_byte == pytest.approx(apart)
    assert sure.low < apart < sure.high
    assert doubtful.may_be_chance


def test_the_interval_is_that_of_the_bootstrap(models, monkeypatch):
    """With documents of one size, the mean's spread is known from the differences' own."""
    documents = ["x" * 40] * 30
    source = np.random.default_rng(1)
    costs = iter([*np.full(30, 5.0), *(6.0 + source.normal(size=30))])
    monkeypatch.setattr(
        "nextword.explanation.compare.document_nats", lambda opened, ids: float(next(costs))
    )
    found = compare_documents([models["bpe"], models["longer"]], documents).differences[0]
    apart = (6.0 + np.random.default_rng(1).normal(size=30) - 5.0) / math.log(2) / 40
    spread = apart.std() / math.sqrt(30)
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.1)


def test_one_text_says_nothing_of_chance(models):
    found = compare_documents([models["bpe"], models["longer"]], [TEXT])
    assert found.differences == ()
    assert "cannot be told from 1 text" in describe_comparison_of_models(found)
    with pytest.raises(EvaluationError, match="empty"):
        compare_text([models["bpe"]], " ")


def test_the_verb_takes_texts_and_paths(models, library):
    place = library[0]
    done = place.nextword("compare", "bpe", "longer", "both", "the good cat")
    assert done.returncode == 0, done.stderr
    for words in ("bpe@", "longer@", "bits a byte", "reads both sides"):
        assert words in done.stdout
    long = place.nextword("compare", "bpe", "longer", "the good cat " * 100)
    assert long.returncode == 0, long.stderr
    (place.folder / "d.csv").write_text("text\n" + "\n".join([TEXT.strip()] * 9))
    done = place.nextword("compare", "bpe", "longer", "d.csv", "--json")
    values = json.loads(done.stdout)
    assert values["documents"] == 9
    assert len(values["models"]) == 2
    assert set(values["differences"][0]) >= {"low", "high", "may_be_chance"}
    for wrong, words in (
        (("compare", "bpe", "a text"), "two runs or more"),
        (("compare", "bpe", "longer", "both"), "both: is a run"),
        (("compare", "bpe", "nobody", "a text"), "nobody"),
        (("compare", "bpe", "longer", "bok.jsonl"), "bok.jsonl: no such file"),
    ):
        failed = place.nextword(*wrong)
        assert failed.returncode == 2
        assert words in failed.stderr
