import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from nextword.base.errors import ModelError
from nextword.model.folder import read_model, read_shape, write_model
from nextword.model.layouts import Ids
from nextword.model.shape import Shape
from tests.compared import near
from tests.model.test_transformer import SHAPE, ids, scattered


@pytest.mark.parametrize("many", [True, False])
@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_opens_it_with_the_same_logits(tmp_path, monkeypatch, qk_norm, tied, many):
    from transformers import AutoModelForCausalLM

    if many:  # as more than 5 GB would be written
        monkeypatch.setattr("nextword.model.folder.MOST_FILE_BYTES", 10_000)

    shape = Shape(
        **{
            **SHAPE.__dict__,
            "qk_norm": qk_norm,
            "tie_word_embeddings": tied,
            "rope_theta": 50_000.0,
        }
    )
    model = scattered(shape)
    write_model(model, tmp_path, Ids(0, 1))
    files = list(tmp_path.glob("*.safetensors"))
    assert (len(files) > 1) == many == (tmp_path / "model.safetensors.index.json").is_file()
    if many:
        told = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        sizes = [value.nbytes for file in files for value in load_file(file).values()]
        assert told["metadata"]["total_size"] == sum(sizes) == 4 * shape.parameters()
        assert {tmp_path / name for name in told["weight_map"].values()} == set(files)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        near("transformers, logits", model(ids()), theirs(ids()).logits, most=1e-4)
    assert theirs.config.model_type == ("qwen3" if qk_norm else "llama")
    assert theirs.generation_config.eos_token_id == 0


@pytest.mark.parametrize("tied", [True, False])
def test_a_qwen3_folder_that_transformers_saved_opens_here(tmp_path, tied):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    rope = {"rope_type": "default", "rope_theta": 1_000_000.0}
    config = Qwen3Config(
        vocab_size=97, tie_word_embeddings=tied, rope_parameters=rope, **sizes, **heads
    )
    theirs = Qwen3ForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = read_model(tmp_path)
    assert ours.shape.rope_theta == 1_000_000.0
    with torch.no_grad():
        near("transformers, logits", ours(ids()), theirs(ids()).logits, most=1e-4)


def test_every_field_of_the_config_is_written(tmp_path):
    write_model(scattered(), tmp_path, Ids(0, 1))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["head_dim"] == 8
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10_000.0
    assert config["vocab_size"] == 97
    assert set(load_file(tmp_path / "model.safetensors")) == {
        name for name, _ in scattered().named_parameters()
    }


def test_writing_and_reading_changes_nothing(tmp_path):
    model = scattered()
    write_model(model, tmp_path, Ids(0, 1))
    again = read_model(tmp_path)
    assert again.shape == model.shape
    assert torch.equal(again(ids()), model(ids()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt2"}, "not known here"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_parameters: .yarn."),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"hidden_size": 64}, "has shape"),
        ({"num_hidden_layers": 1}, "of no use"),
        ({"num_hidden_layers": 3}, "missing"),
        (
            {"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 1e4}},
            "rope_parameters",
        ),
        (
            {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope_scaling",
        ),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"model_type": "mistral"}, "model_type"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"hidden_size": "wide"}, "hidden_size"),
    ],
)
def test_what_would_be_computed_wrong_is_refused(tmp_path, change, words):
    write_model(scattered(), tmp_path, Ids(0, 1))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=words):
        read_model(tmp_path)


def test_damage_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        read_shape(tmp_path)
    write_model(scattered(), tmp_path, Ids(0, 1))
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.norm\.weight is missing"):
        read_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(ModelError, match="damaged weights"):
        read_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no such file"):
        read_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": 10**9}, "describes|max|weights"),
        ({"hidden_size": 2**63}, "hidden_size"),
        ({"vocab_size": -1}, "vocab_size"),
        ({"num_hidden_layers": 10**6}, "layers"),
        ({"max_position_embeddings": 10**9}, "max_position_embeddings"),
        ({"rms_norm_eps": "x"}, "rms_norm_eps"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps"),
        ({"rope_parameters": {"rope_theta": float("nan")}}, "rope_theta"),
        ({"rope_parameters": {"rope_theta": 0}}, "rope_theta"),
        ({"rope_parameters": []}, "rope_parameters"),
        ({"architectures": "Qwen3ForCausalLM"}, "architectures"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"model_type": ["qwen3"]}, "model_type"),
        ({"rope_parameters": {}, "rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_scaling"),
    ],
)
def test_fields_of_other_types_or_beyond_reason_are_named(tmp_path, change, words):
    write_model(scattered(), tmp_path, Ids(0, 1))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=words):
        read_model(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    model = scattered()
    with torch.no_grad():
        model.model.norm.weight[3] = value
    write_model(model, tmp_path, Ids(0, 1))
    with pytest.raises(ModelError, match=r"model\.norm\.weight holds NaN or infinity"):
        read_model(tmp_path)


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.complex64, torch.uint8])
def test_weights_of_other_types_are_refused_by_name(tmp_path, kind):
    write_model(scattered(), tmp_path, Ids(0, 1))
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"].to(kind)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=rf"model\.norm\.weight is of type {str(kind)[6:]}"):
        read_model(tmp_path)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b", "x" * 5000, "\0"])
def test_an_index_names_only_files_of_its_folder(tmp_path, name):
    write_model(scattered(), tmp_path, Ids(0, 1))
    index = {"weight_map": {"model.norm.weight": name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError):
        read_model(tmp_path)


def test_a_link_leads_to_weights_of_its_folder_only(tmp_path):
    folder, elsewhere = tmp_path / "it", tmp_path / "elsewhere"
    for place in (folder, elsewhere):
        place.mkdir()
    write_model(scattered(), folder, Ids(0, 1))
    file = folder / "model.safetensors"
    file.rename(elsewhere / file.name)
    file.symlink_to(elsewhere / file.name)
    with pytest.raises(ModelError, match="leads out of its folder"):
        read_model(folder)
    file.unlink()
    (elsewhere / file.name).rename(folder / "kept")
    file.symlink_to("kept")
    read_model(folder)
    (tmp_path / "named").symlink_to(folder)  # the folder itself may be called otherwise
    read_model(tmp_path / "named")


def test_the_hubs_cache_which_is_linked_is_read(tmp_path):
    """models--owner--name/snapshots/COMMIT/file links to ../../blobs/DIGEST."""
    cache = tmp_path / "models--owner--name"
    folder, blobs = cache / "snapshots" / "abc", cache / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    write_model(scattered(), folder, Ids(0, 1))
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(blobs / str(number))
        file.symlink_to(f"../../blobs/{number}")
    read_model(folder)
    (folder / "model.safetensors").unlink()
    (tmp_path / "other").write_bytes(b"")
    (folder / "model.safetensors").symlink_to(tmp_path / "other")
    with pytest.raises(ModelError, match="leads out of its folder"):
        read_model(folder)
