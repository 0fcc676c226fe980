"""What no network and no vocabulary can read is named, with what was expected instead."""

import numpy as np
import pytest
import torch

import nextword
from nextword.base.errors import CorpusError, ModelError, VocabularyError
from nextword.model.attention import KeyValueCache
from nextword.model.decode import Decoder
from nextword.model.inputs import check_ids
from nextword.model.labels import SequenceClassifier
from nextword.model.layouts import LabelHead
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.shards import READ_TOKENS, ShardWriter, TokenStream
from nextword.vocabulary.train import train_vocabulary
from tests.model.test_transformer import SHAPE, ids, scattered

ENTRIES, CONTEXT = SHAPE.vocab_size, SHAPE.context
OK = torch.zeros(2, 4, dtype=torch.long)
KINDS = ("bpe", "byte", "char", "word", "wordpiece", "unigram")

WRONG = {
    "one row alone": (OK[0], ["(4,)", "(rows, positions)"]),
    "a number": (torch.tensor(3), ["()", "(rows, positions)"]),
    "three dimensions": (OK[None], ["(1, 2, 4)", "(rows, positions)"]),
    "no position": (OK[:, :0], ["(2, 0)", "at least one"]),
    "numbers with a point": (OK.float(), ["float32", "int64"]),
    "yes and no": (OK.bool(), ["bool", "int64"]),
    "bytes": (OK.byte(), ["uint8", "int64"]),
    "more than the context": (ids(1, CONTEXT + 1), [f"{CONTEXT + 1} positions", f"{CONTEXT}"]),
    "beyond the last": (OK + ENTRIES, [f"id {ENTRIES}", f"0 to {ENTRIES - 1}"]),
    "far beyond": (OK + 2**40, [f"id {2**40}", f"0 to {ENTRIES - 1}"]),
    "negative": (OK - 1, ["id -1", f"0 to {ENTRIES - 1}"]),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("how", ["forward", "hidden", "without gradients"])
def test_the_network_says_what_it_expected(wrong, how):
    given, words = WRONG[wrong]
    model = scattered()
    with pytest.raises(ModelError) as said, torch.set_grad_enabled(how != "without gradients"):
        model.hidden(given) if how == "hidden" else model(given)
    for word in words:
        assert word in str(said.value)
    assert "\n" not in str(said.value)


def test_what_is_right_passes_to_the_last_entry_and_position():
    model = scattered()
    assert model(OK + ENTRIES - 1).shape == (2, 4, ENTRIES)
    assert model(OK.int()).shape == (2, 4, ENTRIES)
    assert model(ids(1, CONTEXT)).shape == (1, CONTEXT, ENTRIES)
    seen = torch.ones(2, 1, 1, 4, dtype=torch.bool)
    assert model.hidden(OK, seen=seen, positions=OK).shape == (2, 4, SHAPE.hidden_size)


def test_a_full_cache_names_what_is_left():
    model, cache = scattered(), KeyValueCache(SHAPE, 1, torch.device("cpu"))
    model(ids(1, CONTEXT - 3), cache)
    with pytest.raises(ModelError, match=f"4 positions after {CONTEXT - 3} .* at most 3"):
        model(ids(1, 4), cache)
    assert cache.length == CONTEXT - 3
    with pytest.raises(ModelError, match=r"\(2, 1\): expected \(1, positions\)"):
        model(ids(2, 1), cache)
    small = KeyValueCache(SHAPE, 1, torch.device("cpu"), 2)
    with pytest.raises(ModelError, match="3 positions: expected at most 2"):
        model(ids(1, 3), small)


@pytest.mark.parametrize("id_", [-1, ENTRIES, 2**40])
def test_the_decoder_of_single_tokens_says_the_same(id_):
    decoder, cache = Decoder(scattered()), KeyValueCache(SHAPE, 1, torch.device("cpu"), 1)
    with pytest.raises(ModelError, match=rf"id {id_}: .* 0 to {ENTRIES - 1}"):
        decoder.read([id_], cache)
    with pytest.raises(ModelError, match="2 ids: expected 1"):
        decoder.read([0, 0], cache)
    decoder.read([ENTRIES - 1], cache)
    with pytest.raises(ModelError, match=r"1 position after 1 .* of a context of 1"):
        decoder.read([0], cache)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"positions": OK[0]}, r"positions of shape \(4,\): expected \(2, 4\)"),
        ({"positions": OK[:, :3]}, r"positions of shape \(2, 3\): expected \(2, 4\)"),
        ({"seen": OK.bool()}, r"seen of shape \(2, 4\): expected \(2, 1, 4, 4\)"),
        ({"seen": torch.ones(2, 1, 4, 3).bool()}, r"\(2, 1, 4, 3\): expected \(2, 1, 4, 4\)"),
        ({"seen": torch.ones(3, 1, 4, 4).bool()}, r"\(3, 1, 4, 4\): expected \(2, 1, 4, 4\)"),
    ],
)
def test_who_looks_where_must_fit_the_ids(given, words):
    with pytest.raises(ModelError, match=words):
        scattered().hidden(OK, **given)


def test_a_network_with_labels_says_the_same():
    model = SequenceClassifier(SHAPE, LabelHead(("a", "b"), False))
    with pytest.raises(ModelError, match=r"\(rows, positions\)"):
        model.logits(OK[0], torch.tensor([4]))
    with pytest.raises(ModelError, match=r"lengths of shape \(3,\): expected \(2,\), from 1 to 4"):
        model.logits(OK, torch.tensor([4, 4, 4]))
    for wrong in (0, 5):
        with pytest.raises(ModelError, match=r"expected .* from 1 to 4"):
            model.logits(OK, torch.tensor([4, wrong]))


def test_a_graph_is_not_hindered_by_what_looks_at_values():
    class Looks(torch.nn.Module):
        def forward(self, ids):
            check_ids(ids, ENTRIES)
            return ids + 1

    graph = torch.export.export(Looks(), (OK,)).module()
    assert torch.equal(graph(OK), OK + 1)


@pytest.mark.gpu
def test_a_gpu_goes_on_after_an_id_outside():
    if not torch.cuda.is_available():
        pytest.skip("no accelerator")
    model = scattered().to("cuda")
    with torch.inference_mode():
        with pytest.raises(ModelError, match=f"id {ENTRIES}"):
            model(OK.to("cuda") + ENTRIES)
        assert model(OK.to("cuda")).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_ids_outside_a_vocabulary_are_its_own_error(kind):
    text = "the good cat sat on the warm mat. " * 30
    known = train_vocabulary([text], len(text), VocabularySettings(kind=kind, size=600))
    last = len(known) - 1
    assert isinstance(known.decode([last]), str)
    assert known.decode([]) == ""
    for wrong in (-1, len(known), 2**31, 2**40, -(2**70)):
        for ask in (known.piece, known.piece_bytes, lambda id_: known.decode([0, id_])):
            with pytest.raises(VocabularyError, match=f"no entry {wrong}: .* 0 to {last}"):
                ask(wrong)
    for wrong in (-1, len(known)):
        with pytest.raises(VocabularyError, match=f"no entry {wrong}: .* 0 to {last}"):
            known.count_bytes(np.array([0, wrong]))
    for none in (1.5, "a", None):
        with pytest.raises(VocabularyError, match=f"is no id: expected whole numbers, 0 to {last}"):
            known.decode([none])
    ids_ = known.encode("the good cat")
    for right in (ids_, tuple(ids_), np.array(ids_), torch.tensor(ids_)):
        assert known.decode(right) == known.decode(ids_)
    assert known.count_bytes(np.array([], dtype=np.int64)) == 0


@pytest.mark.parametrize("wrong", [5, None, b"text", [1, 2]])
def test_what_is_no_text_is_said(wrong):
    known = train_vocabulary(["ab"], 2, VocabularySettings(kind="byte"))
    for ask in (known.encode, lambda text: known.encode_many(["a", text])):
        with pytest.raises(VocabularyError, match=f"expected a text, not {type(wrong).__name__}"):
            ask(wrong)


def test_a_shard_with_ids_outside_is_named_wherever_they_stand(tmp_path):
    size = 3 * READ_TOKENS
    tokens = np.ones(size, dtype=np.uint16)
    tokens[size // 2] = 50
    writer = ShardWriter(tmp_path / "train-00000.ds", 50)
    writer.add(tokens, size, 0)
    writer.close()
    stream = TokenStream([writer.file], 50, 0)
    assert len(stream.read(0, size // 2)) == size // 2
    for start, stop in ((0, size), (size // 2, size // 2 + 1)):
        with pytest.raises(CorpusError, match=r"train-00000.ds: holds id 50, .* ends at 49"):
            stream.read(start, stop)


def test_generation_never_writes_what_the_vocabulary_lacks():
    from nextword.model.shape import Shape
    from nextword.prediction.generate import generate
    from nextword.prediction.options import GenerationSettings

    known = train_vocabulary(["abc"], 3, VocabularySettings(kind="char"))
    # As public folders have it: rows for more ids than there are entries, here the likeliest.
    model = scattered(Shape(**{**SHAPE.__dict__, "vocab_size": len(known) + 90}))
    for seed in range(20):
        settings = GenerationSettings(max_tokens=5, seed=seed, temperature=1.5, min_p=0)
        for chosen in generate(model, known, "ab", settings):
            assert chosen.id < len(known)


def test_zero_tokens_are_none(shared_environment, small_run, capsys):
    from nextword.cli import main

    model = nextword.load(small_run)
    assert model.generate("Once", max_tokens=0) == ""
    assert list(model.stream("Once", max_tokens=0)) == []
    asked = ["generate", small_run, "Once", "--max-tokens", "0"]
    for more, expected in (
        ([], "Once\n"),
        (["--samples", "2", "--json"], '{"prompt": "Once", "texts": ["", ""]}\n'),
        (["--show"], ""),
    ):
        with pytest.raises(SystemExit) as left:
            main([*asked, *more])
        assert not left.value.code
        assert capsys.readouterr().out == expected
    with pytest.raises(SystemExit) as left:
        main([*asked[:-1], "-1"])
    assert left.value.code == 2
