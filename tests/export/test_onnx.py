"""ONNX, read by onnxruntime itself: the same numbers, a token at a time and all at once."""

import itertools
import json

import numpy as np
import pytest
import torch

import nextword
from nextword.base.errors import RunError
from nextword.export import onnx as exporting
from nextword.export.onnx import FILE, write_onnx
from nextword.export.onnx_graph import build
from nextword.model.labels import SequenceClassifier
from nextword.model.layouts import POOLINGS, LabelHead
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer
from nextword.prediction.loading import open_model
from tests.compared import near

pytestmark = pytest.mark.usefixtures("one_thread")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

SHAPE = Shape(
    vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=10, context=40, rope_theta=10_000.0,
    rms_norm_eps=1e-6, qk_norm=True, tie_word_embeddings=True, causal=True,
)  # fmt: skip


def shaken(model, seed=0):
    """A network whose every weight matters."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return model.eval()


def network(labels=None, **sizes):
    shape = Shape(**{**vars(SHAPE), **sizes})
    return shaken(Transformer(shape) if labels is None else SequenceClassifier(shape, labels))


def session(graph):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class Reading:
    """A session of a causal model, with what it has read."""

    def __init__(self, graph, rows):
        self.session = session(graph)
        self.kept = {
            one.name: np.zeros((rows, one.shape[1], 0, one.shape[3]), np.float32)
            for one in self.session.get_inputs()
            if one.name.startswith("past_key_values.")
        }

    def read(self, ids, mask, positions):
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        logits, *present = self.session.run(None, {**given, **self.kept})
        self.kept = dict(zip(self.kept, present, strict=True))
        return logits


def draw(rows, length, seed=0):
    return np.random.default_rng(seed).integers(0, SHAPE.vocab_size, (rows, length))


def close(found, expected):
    near("onnxruntime, logits", expected, found, most=1e-4)


@pytest.mark.parametrize(
    "sizes",
    [
        {}, {"qk_norm": False}, {"tie_word_embeddings": False}, {"num_key_value_heads": 4},
        {"num_key_value_heads": 1, "rope_theta": 500.0, "rms_norm_eps": 1e-3},
    ],
)  # fmt: skip
def test_a_causal_model_says_the_same_whole_and_in_parts(sizes):
    model = network(**sizes)
    ids = draw(3, 30)
    expected = model(torch.from_numpy(ids))
    assert expected.std() > 1  # odds that differ
    graph = build(model).SerializeToString()
    for parts in ([30], [1] * 30, [7, 1, 20, 2]):
        reading, start, found = Reading(graph, 3), 0, []
        for many in parts:
            end = start + many
            positions = np.broadcast_to(np.arange(start, end), (3, many))
            found.append(reading.read(ids[:, start:end], np.ones((3, end), np.int64), positions))
            start = end
        close(np.concatenate(found, axis=1), expected)


def test_texts_of_different_lengths_do_not_disturb_each_other():
    model = network()
    graph, lengths = build(model).SerializeToString(), (5, 12, 9)
    rows = [draw(1, length, seed=length)[0] for length in lengths]
    width = max(lengths)
    ids, mask, positions = (np.zeros((3, width), np.int64) for _ in range(3))
    for row, one in enumerate(rows):  # filled up at the front, as whoever goes on with texts does
        ids[row, width - len(one) :] = one
        mask[row, width - len(one) :] = 1
        positions[row, width - len(one) :] = np.arange(len(one))
    reading = Reading(graph, 3)
    found = reading.read(ids, mask, positions)
    more = draw(3, 1, seed=7)
    mask = np.concatenate((mask, np.ones((3, 1), np.int64)), axis=1)
    after = reading.read(more, mask, np.array(lengths)[:, None])
    for row, one in enumerate(rows):
        whole = torch.from_numpy(np.concatenate((one, more[row])))[None]
        expected = model(whole)[0]
        close(found[row, width - len(one) :], expected[:-1])
        close(after[row, 0], expected[-1])


def test_a_masked_model_says_the_same():
    model = network(causal=False, qk_norm=False)
    ids, lengths = draw(3, 20), (20, 3, 11)
    mask = (np.arange(20) < np.array(lengths)[:, None]).astype(np.int64)
    asked = {"input_ids": ids, "attention_mask": mask}
    (found,) = session(build(model).SerializeToString()).run(None, asked)
    for row, length in enumerate(lengths):
        close(found[row, :length], model(torch.from_numpy(ids[row : row + 1, :length]))[0])


@pytest.mark.parametrize("kind", ["classes", "number", "several"])
@pytest.mark.parametrize(
    ("causal", "pooling"), [(True, POOLINGS[0]), *((False, one) for one in POOLINGS)]
)
def test_a_model_with_labels_says_the_same(causal, pooling, kind):
    names = ("cats",) if kind == "number" else ("a", "b", "c")
    labels = LabelHead(names, kind == "number", pooling, several=kind == "several")
    model = network(labels, causal=causal, qk_norm=causal)
    ids, lengths = draw(4, 17), np.array((17, 1, 5, 16))
    mask = (np.arange(17) < lengths[:, None]).astype(np.int64)
    asked = {"input_ids": ids, "attention_mask": mask}
    (found,) = session(build(model).SerializeToString()).run(None, asked)
    close(found, model(torch.from_numpy(ids), torch.from_numpy(lengths)))
    assert np.ptp(found, axis=0).min() > 0.1


def test_a_weight_that_is_wrong_is_seen():
    model = network()
    graph = build(model).SerializeToString()
    with torch.no_grad():
        model.model.layers[1].self_attn.k_norm.weight[3] += 0.5
    ids = draw(1, 20)
    found = Reading(graph, 1).read(ids, np.ones_like(ids), np.arange(20)[None])
    with pytest.raises(AssertionError):
        close(found, model(torch.from_numpy(ids)))


def test_the_folder_is_one_that_others_open(place, run):
    from transformers import AutoConfig, AutoTokenizer

    done = place.nextword("export", "small", "--to", "onnx", "--json")
    assert done.returncode == 0, done.stderr
    folder = place.folder / "small-onnx"
    assert json.loads(done.stdout)["folder"] == folder.name
    assert AutoConfig.from_pretrained(folder).num_hidden_layers == 2
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert not (folder / "training").exists()
    assert not list(folder.glob("*.safetensors"))
    # Greedy, written out with nothing but onnxruntime: the same words as `generate`.
    reading = Reading(str(folder / FILE), 1)
    ids = tokenizer("We are", return_tensors="np")["input_ids"]
    words, start = [], 0
    for _ in range(12):
        end = start + ids.shape[1]
        mask, positions = np.ones((1, end), np.int64), np.arange(start, end)[None]
        ids = reading.read(ids, mask, positions)[:, -1:].argmax(-1)
        words.append(int(ids[0, 0]))
        start = end
    model = nextword.load("small")
    assert tokenizer.decode(words) == model.generate("We are", max_tokens=12, temperature=0.0)


def test_weights_too_large_for_one_file_lie_beside_it(place, run, monkeypatch):
    opened = open_model("small")
    write_onnx(opened, place.folder / "one")
    monkeypatch.setattr(exporting, "LARGEST", 100_000)
    done = write_onnx(opened, place.folder / "two")
    assert {file.name for file in (place.folder / "two" / "onnx").iterdir()} == {
        "model.onnx", "model.onnx_data"
    }  # fmt: skip
    assert done.bytes == sum(f.stat().st_size for f in (place.folder / "two" / "onnx").iterdir())
    assert (place.folder / "two" / FILE).stat().st_size < 400_000
    ids = np.arange(20)[None]
    one, two = (
        Reading(str(place.folder / name / FILE), 1).read(ids, np.ones_like(ids), ids)
        for name in ("one", "two")
    )
    np.testing.assert_array_equal(one, two)


def test_what_is_in_the_way_stays(place, run, monkeypatch):
    assert place.nextword("export", "small", "--to", "onnx", "-o", "a").returncode == 0
    for name in ("a", "cache"):
        done = place.nextword("export", "small", "--to", "onnx", "-o", name)
        assert done.returncode == 2
        assert f"{name}: is there already" in done.stderr
    assert place.nextword("export", "small", "--to", "onnx", "-o", "a", "--force").returncode == 0
    done = place.nextword("export", "small", "--to", "onnx", "-o", "cache", "--force")
    assert "for it is no ONNX folder" in done.stderr
    assert any((place.folder / "cache").iterdir())
    done = place.nextword("export", "small", "--to", "onnx", "--type", "q8_0", "-o", "b")
    assert done.returncode == 2
    assert "--type" in done.stderr
    before = {file: file.read_bytes() for file in (place.folder / "a").rglob("*.onnx")}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnx.save", full)
    with pytest.raises(RunError, match="cannot be written"):
        write_onnx(open_model("small"), place.folder / "a", force=True)
    assert {file: file.read_bytes() for file in (place.folder / "a").rglob("*.onnx")} == before
    names = {file.name for file in place.folder.iterdir()}
    assert not [name for name in itertools.chain(names) if name.startswith(".a")]
