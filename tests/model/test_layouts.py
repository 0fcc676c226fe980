"""Every layout is read and written as `transformers` reads and writes it, logits alike."""

import dataclasses
import json

import pytest
import torch

from nextword.base.errors import ModelError, SettingsError
from nextword.model.folder import read_body, read_model, write_model
from nextword.model.labels import SequenceClassifier
from nextword.model.layouts import Ids, LabelHead
from nextword.model.shape import Shape
from tests.compared import near
from tests.model.test_transformer import SHAPE, scattered

BOTH = dataclasses.replace(SHAPE, qk_norm=False, causal=False)
SHAPES = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "untied": {"tie_word_embeddings": False},
    "grouped": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
    "one key head": {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8},
    "wide heads": {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 48},
    "other base": {"rope_theta": 160_000.0},
}


def ids(rows=3, length=17):
    return torch.randint(
        0, SHAPE.vocab_size, (rows, length), generator=torch.Generator().manual_seed(1)
    )


def jogged(model, seed=0):
    """Weights that nobody would choose, so that every one of them matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
            if weight.ndim == 1:
                weight.add_(1.0)
    return model.eval()


@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
def test_masked_folders_open_in_transformers_with_the_same_logits(tmp_path, sizes):
    from transformers import AutoModelForMaskedLM

    model = scattered(dataclasses.replace(BOTH, **sizes))
    write_model(model, tmp_path, Ids(0, 1, 2))
    theirs = AutoModelForMaskedLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert theirs.config.mask_token_id == 2
    with torch.no_grad():
        near("transformers, logits", model(ids()), theirs(ids()).logits, most=1e-4)


def config_for(kind, tied, sizes, **more):
    import transformers

    known = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "pad_token_id": 1,
        "tie_word_embeddings": tied,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
    }
    name = {"qwen3": "Qwen3Config", "llama": "LlamaConfig", "eurobert": "EuroBertConfig"}[kind]
    return getattr(transformers, name)(**{**known, **sizes, **more})


CLASSES = {"qwen3": "Qwen3", "llama": "Llama", "eurobert": "EuroBert"}


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "sizes", [SHAPES["plain"], SHAPES["grouped"], SHAPES["one key head"], SHAPES["wide heads"]]
)
@pytest.mark.parametrize("kind", CLASSES)
def test_folders_that_transformers_saved_open_here(tmp_path, kind, sizes, tied, sharded):
    import transformers

    ending = "ForMaskedLM" if kind == "eurobert" else "ForCausalLM"
    theirs = jogged(getattr(transformers, CLASSES[kind] + ending)(config_for(kind, tied, sizes)))
    theirs.save_pretrained(tmp_path, max_shard_size="20KB" if sharded else "1GB")
    assert (tmp_path / "model.safetensors.index.json").is_file() == sharded
    ours = read_model(tmp_path)
    with torch.no_grad():
        near("transformers, logits", ours(ids()), theirs(ids()).logits, most=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "late", "bos"])
@pytest.mark.parametrize("kind", CLASSES)
def test_labels_are_those_of_transformers_with_padding_too(tmp_path, kind, pooling):
    import transformers

    if kind != "eurobert" and pooling != "mean":
        pooling = "mean"
    more = {"classifier_pooling": pooling} if kind == "eurobert" else {}
    config = config_for(kind, False, {}, num_labels=3, **more)
    theirs = jogged(getattr(transformers, CLASSES[kind] + "ForSequenceClassification")(config))
    theirs.save_pretrained(tmp_path)
    ours = read_model(tmp_path)
    assert isinstance(ours, SequenceClassifier)
    lengths = torch.tensor([17, 4, 9])
    rows = ids().clamp(min=2)
    real = torch.arange(17) < lengths[:, None]
    rows[~real] = 1
    with torch.no_grad():
        there = theirs(rows, attention_mask=real.long()).logits
        near("transformers, logits", ours.logits(rows, lengths), there, most=1e-4)


@pytest.mark.parametrize("causal", [True, False])
def test_a_folder_with_labels_comes_back_and_opens_in_transformers(tmp_path, causal):
    from transformers import AutoModelForSequenceClassification

    shape = SHAPE if causal else BOTH
    model = jogged(SequenceClassifier(shape, LabelHead(("bad", "good"), is_number=False)))
    write_model(model, tmp_path, Ids(0, 1, 2))
    again = read_model(tmp_path)
    assert again.labels == model.labels
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert theirs.config.id2label == {0: "bad", 1: "good"}
    assert theirs.config.problem_type == "single_label_classification"
    rows, lengths = ids().clamp(min=2), torch.full((3,), 17)
    with torch.no_grad():
        near("transformers, logits", model.logits(rows, lengths), theirs(rows).logits, most=1e-4)
        assert torch.equal(again.logits(rows, lengths), model.logits(rows, lengths))


@pytest.mark.parametrize("causal", [True, False])
def test_the_body_of_a_language_model_is_taken_and_the_new_head_kept(tmp_path, causal):
    model = scattered(SHAPE if causal else BOTH)
    write_model(model, tmp_path, Ids(0, 1, 2))
    labeller = SequenceClassifier(model.shape, LabelHead(("a", "b"), is_number=False))
    read_body(labeller, tmp_path)
    with torch.no_grad():
        assert torch.equal(labeller.hidden(ids()), model.hidden(ids()))
        assert not labeller.last.weight.any()


def test_what_stands_after_a_texts_end_changes_no_label():
    for shape in (SHAPE, BOTH):
        model = jogged(SequenceClassifier(shape, LabelHead(("a", "b"), is_number=False)))
        rows, lengths = ids(), torch.tensor([5, 17, 1])
        other = rows.clone()
        other[0, 5:], other[2, 1:] = 7, 9
        with torch.no_grad():
            first, second = model.logits(rows, lengths), model.logits(other, lengths)
        torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-6)


def test_a_masked_network_sees_both_sides_and_a_causal_one_does_not():
    changed = ids(1)
    changed[0, -1] = (changed[0, -1] + 1) % SHAPE.vocab_size
    with torch.no_grad():
        for shape, moves in ((SHAPE, False), (BOTH, True)):
            model = scattered(shape)
            apart = (model(ids(1))[0, 0] - model(changed)[0, 0]).abs().max()
            assert bool(apart > 1e-6) == moves


def test_a_head_of_an_unknown_form_is_refused(tmp_path):
    write_model(
        SequenceClassifier(BOTH, LabelHead(("a", "b"), is_number=False)), tmp_path, Ids(0, 1, 2)
    )
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "classifier_pooling": "max"}))
    with pytest.raises(ModelError, match="classifier_pooling"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        (LabelHead(("a", "b"), is_number=False), "single_label_classification"),
        (LabelHead(("price",), is_number=True), "regression"),
        (LabelHead(("a", "b"), is_number=False, several=True), "multi_label_classification"),
        (LabelHead(("a",), is_number=False, several=True), "multi_label_classification"),
    ],
)
@pytest.mark.parametrize("shape", [SHAPE, BOTH])
def test_what_a_head_is_for_is_written_and_read(tmp_path, shape, head, problem):
    write_model(SequenceClassifier(shape, head), tmp_path, Ids(0, 1, 2))
    assert json.loads((tmp_path / "config.json").read_text())["problem_type"] == problem
    assert read_model(tmp_path).labels == head


def test_sizes_that_eurobert_cannot_have_are_refused():
    with pytest.raises(SettingsError, match="qk_norm"):
        Shape(**{**SHAPE.__dict__, "causal": False})
    with pytest.raises(SettingsError, match="multiple"):
        dataclasses.replace(BOTH, num_attention_heads=3, num_key_value_heads=3)


def test_attention_to_both_sides_costs_twice_the_operations():
    both = dataclasses.replace(SHAPE, causal=False, qk_norm=False)
    attention = 6 * SHAPE.num_hidden_layers * SHAPE.num_attention_heads * SHAPE.head_dim
    assert both.flops_per_token() - SHAPE.flops_per_token() == attention * SHAPE.context
