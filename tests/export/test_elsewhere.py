"""Folders in other programs: sentence-transformers, MLX, pipelines; and what vLLM would ask."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import nextword
from nextword.export.embeddings import write_embeddings
from nextword.export.vllm import CHECKS, vllm_checks
from nextword.prediction.loading import open_model
from tests.compared import near
from tests.export.test_gguf import made
from tests.serve.conftest import running

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
TEXTS = ["We are", "The owl said to the baker that she was wrong.", "x", "We are all humans\n\nyes"]
FEW = ("--corpus.stories", "100", "--training.steps", "3", "--quiet")


@pytest.fixture
def both(place):
    """A masked run."""
    done = place.nextword("train", "--name", "both", "--objective", "masked", *FEW)
    assert done.returncode == 0, done.stderr
    return place.folder / "runs" / "both"


def served(run):
    with running(str(run)) as server:
        found = server.post("/v1/embeddings", input=TEXTS).json()["data"]
    return np.array([one["embedding"] for one in found])


def vectors(folder):
    library = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed"
    )
    model = library.SentenceTransformer(str(folder), device="cpu")
    together = model.encode(TEXTS)  # filled up to the longest
    alone = np.stack([model.encode(text) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    return model, together


@pytest.mark.parametrize("name", ["small", "both"])
def test_sentence_transformers_gives_the_vectors_of_the_endpoint(place, run, both, name):
    done = place.nextword("export", name, "--to", "sentence-transformers", "--json")
    assert done.returncode == 0, done.stderr
    folder = place.folder / f"{name}-embeddings"
    model, found = vectors(folder)
    expected = served(place.folder / "runs" / name)
    near("sentence-transformers, vectors", expected, found, most=1e-5)
    assert not np.allclose(found[0], found[1], atol=1e-2)
    assert model.max_seq_length == open_model(name).model.shape.context
    assert found.shape[1] == json.loads(done.stdout)["width"]
    assert not (folder / "training").exists()
    again = place.nextword("export", name, "--to", "sentence-transformers")
    assert "is there already" in again.stderr
    write_embeddings(open_model(name), folder, force=True)


def test_a_pipeline_extracts_the_states_of_this_program(place, run, both):
    from transformers import pipeline

    for name in ("small", "both"):
        opened = open_model(name)
        extract = pipeline("feature-extraction", model=str(opened.folder))
        for text in TEXTS:
            ids = [opened.vocabulary.begin_id, *opened.vocabulary.encode(text)]
            with torch.no_grad():
                states = opened.model.hidden(torch.tensor([ids]))[0]
            near("pipelines, states", states, np.array(extract(text))[0], most=1e-4)


def test_a_pipeline_fills_and_classifies_as_this_program(place, run, both):
    from transformers import pipeline

    model = nextword.load("both")
    fill = pipeline("fill-mask", model=str(model.opened.folder), top_k=5)
    (filled,) = model.fill("We are all [MASK] born", top=5)
    mask = fill.tokenizer.mask_token
    for ours, theirs in zip(filled.candidates, fill(f"We are all {mask} born"), strict=True):
        assert theirs["token"] == ours.id
        near("pipelines, scores", ours.probability, theirs["score"], most=1e-5)
    animals = ("the dog {}", "the cat {}")
    rows = [{"text": animals[n % 2].format(n), "label": "ab"[n % 2]} for n in range(20)]
    (place.folder / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for number, name in enumerate(("small", "both"), 1):
        done = place.nextword("finetune", name, "l.jsonl", "--finetune.steps", "5")
        assert done.returncode == 0, done.stderr
        taught = nextword.load(f"l-{number}")
        classify = pipeline("text-classification", model=str(taught.opened.folder), top_k=None)
        for text, said in zip(TEXTS[:3], taught.classify(*TEXTS[:3]), strict=True):
            for theirs in classify([text])[0]:
                ours = said.probabilities[theirs["label"]]
                near("pipelines, scores", ours, theirs["score"], most=1e-5)


@pytest.mark.parametrize(
    "sizes",
    [{}, {"qk_norm": False}, {"tie_word_embeddings": False}, {"head_dim": 24, "rope_theta": 5e5}],
)
def test_mlx_reads_a_folder_as_it_is(tmp_path, sizes):
    pytest.importorskip("mlx_lm", reason="MLX is not installed")
    import mlx.core as mx
    from mlx_lm import load

    mx.set_default_device(mx.cpu)
    opened = made(tmp_path / "it", **sizes)
    model, tokenizer = load(str(opened.folder))
    for text in TEXTS:
        ids = [opened.vocabulary.begin_id, *opened.vocabulary.encode(text)]
        assert tokenizer.encode(text) == ids
        with torch.no_grad():
            expected = opened.model(torch.tensor([ids]))
        near("MLX, logits", expected, np.array(model(mx.array([ids]))), most=1e-4)


def test_vllm_would_serve_a_run_of_usual_sizes(place, run):
    done = place.nextword("check", "small", "--for", "vllm")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok  ") == len(CHECKS)
    assert "vllm serve" in done.stdout
    said = json.loads(place.nextword("check", "small", "--for", "vllm", "--json").stdout)
    assert said["passed"]
    assert len(said["checks"]) == len(CHECKS)


def failing(opened):
    return {check.name for check in vllm_checks(opened) if not check.passed}


def test_each_thing_that_vllm_asks_can_fail(place, run, both, tmp_path):
    assert failing(open_model("small")) == set()
    assert failing(open_model("both")) == {"network known to vLLM"}
    done = place.nextword("check", "both", "--for", "vllm")
    assert done.returncode == 1
    assert "EuroBertForMaskedLM" in done.stdout
    assert failing(made(tmp_path / "odd", head_dim=20)) == {"heads as wide as kernels take"}
    assert failing(made(tmp_path / "wide", head_dim=264)) == {"heads as wide as kernels take"}
    opened = made(tmp_path / "it")
    file = opened.folder / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.0.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(weights, file)
    assert failing(opened) == {"weights by the names that are read"}
    opened = made(tmp_path / "less")
    (opened.folder / "tokenizer_config.json").unlink()
    assert failing(opened) == {"tokenizer beside the weights"}
    shutil.rmtree(opened.folder / "training", ignore_errors=True)
    rows = opened.model.shape.vocab_size
    object.__setattr__(opened.model.shape, "vocab_size", rows - 1)
    assert "a row for each entry" in failing(opened)
