"""A run may begin with another run's model, or with a folder from elsewhere."""

import json

import pytest
import torch

import nextword
from nextword.base.errors import ModelError, NextwordError, SettingsError
from nextword.finetune import finetune
from nextword.settings import resolve
from tests.model.test_layouts import CLASSES, config_for, jogged

TEXT = "the good cat sat on the warm mat. the bad dog ran to the cold sea.\n"

pytestmark = pytest.mark.usefixtures("one_thread")


SMALL = {"training.batch_tokens": 512, "model.context": 64}


@pytest.fixture
def text(place):
    (place.folder / "t.txt").write_text(TEXT * 150)
    return place.folder / "t.txt"


def body(model):
    return {name: weight.clone() for name, weight in model.opened.model.named_parameters()}


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_it_goes_on_from_another_runs_weights_and_vocabulary(text, objective):
    options = {"training.steps": 8, "objective.name": objective, "model.context": 32}
    options |= {"model.hidden_size": 64}
    first = nextword.train(text, name="first", options=options)
    other = text.with_name("other.txt")
    other.write_text("the cold cat ran on the bad sea. " * 200)
    tiny = {
        "training.steps": 1,
        "training.learning_rate": 1e-9,
        "training.matrix_learning_rate": 1e-9,
    }
    second = nextword.train(other, name="second", start="first", options=tiny)
    assert second.opened.objective.name == objective
    assert second.vocabulary.tokenizer.to_str() == first.vocabulary.tokenizer.to_str()
    before = body(first)
    for name, weight in body(second).items():
        torch.testing.assert_close(weight, before[name], atol=1e-6, rtol=1e-6)
    facts = json.loads((second.opened.run / "run.json").read_text())
    assert facts["warm_start"] == str(first.opened.folder.absolute())
    assert facts["objective"] == objective


def test_going_on_starts_where_the_other_stopped(text):
    nextword.train(text, name="first", options={"training.steps": 60, **SMALL})
    again = nextword.train(
        text, name="second", start="first", options={"training.steps": 2, **SMALL}
    )
    lines = (again.opened.run / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert losses[0] < 2.0  # from new weights it would be ln V, above 5


@pytest.mark.parametrize("kind", CLASSES)
def test_folders_that_transformers_saved_are_trained_evaluated_explained_and_finetuned(
    text, kind, tmp_path
):
    import transformers

    words = nextword.train(
        text, name="words", options={"training.steps": 1, "model.hidden_size": 64}
    ).vocabulary
    sizes = {"vocab_size": len(words) + 3}  # public folders pad their tables
    ids = {"bos_token_id": 0, "eos_token_id": 0, "mask_token_id": words.mask_id}
    ending = "ForMaskedLM" if kind == "eurobert" else "ForCausalLM"
    config = config_for(kind, False, sizes, **ids)
    theirs = jogged(getattr(transformers, CLASSES[kind] + ending)(config))
    folder = tmp_path / "public"
    theirs.save_pretrained(folder, max_shard_size="40KB")
    words.save(folder)
    known = nextword.load(folder)
    assert known.explain("the cat").positions
    scores = known.evaluate(text)
    assert scores.at_hidden == (kind == "eurobert")
    rates = {"training.steps": 40, "training.matrix_learning_rate": 0.01}
    trained = nextword.train(text, name="on", start=folder, options=rates)
    assert trained.evaluate(text).nats_per_token < scores.nats_per_token
    reread = getattr(transformers, CLASSES[kind] + ending).from_pretrained(trained.opened.folder)
    row = torch.tensor([[0, *words.encode("the good cat sat")]])
    with torch.no_grad():
        ours = trained.opened.model(row)
        torch.testing.assert_close(reread(row).logits, ours, atol=1e-4, rtol=1e-4)
    rows = [{"text": f"the {n} cat", "label": "ab"[n % 2]} for n in range(20)]
    file = text.with_name("labels.jsonl")
    file.write_text("\n".join(map(json.dumps, rows)))
    done = finetune(str(folder), [str(file)], resolve(given={"finetune.steps": 2}))
    assert nextword.load(str(done.folder)).classify("the cat")[0].label in "ab"


@pytest.mark.parametrize("kind", ["llama", "eurobert"])
def test_a_public_folder_with_a_beginning_of_its_own_is_asked_after_it(text, kind, tmp_path):
    import transformers

    words = nextword.train(
        text, name="words", options={"training.steps": 1, "model.hidden_size": 64}
    ).vocabulary
    begin = words.pad_id  # any entry that is no piece of text
    ending = "ForMaskedLM" if kind == "eurobert" else "ForCausalLM"
    sizes = {"vocab_size": len(words)}
    config = config_for(kind, False, sizes, bos_token_id=begin, mask_token_id=words.mask_id)
    theirs = jogged(getattr(transformers, CLASSES[kind] + ending)(config))
    folder = tmp_path / "public"
    theirs.save_pretrained(folder)
    words.save(folder)
    file = folder / "tokenizer_config.json"
    described = json.loads(file.read_text())
    name = words.tokenizer.id_to_token(begin)
    file.write_text(json.dumps({**described, "bos_token": name, "pad_token": None}))
    model = nextword.load(folder)
    assert model.vocabulary.begin_id == begin
    ids = words.encode("the good cat sat")
    rows = [[begin, *ids]]
    if kind == "eurobert":
        rows = [[begin, *ids[:n], words.mask, *ids[n + 1 :]] for n in range(len(ids))]
    with torch.no_grad():
        logits = theirs(torch.tensor(rows)).logits
    odds = logits.double().log_softmax(-1)
    places = [(n, n + 1) if kind == "eurobert" else (0, n) for n in range(len(ids))]
    wanted = [-float(odds[row, at, id_]) for (row, at), id_ in zip(places, ids, strict=True)]
    found = [position.nats for position in model.explain("the good cat sat").positions]
    assert found == pytest.approx(wanted, abs=1e-4)
    (text.parent / "one.txt").write_text("the good cat sat")
    if kind == "llama":
        scored = model.evaluate(text.parent / "one.txt")
        last = -float(odds[0, len(ids), words.end_id])
        assert scored.nats == pytest.approx(sum(wanted) + last, abs=1e-3)
        best = model.predict("the good", 1).candidates[0]
        two = len(words.encode("the good"))
        assert best.logit == pytest.approx(float(logits[0, two].max()), abs=1e-3)
        first = model.generate("the good", temperature=0, max_tokens=1)
        assert first in (best.piece, "")
    else:
        assert model.evaluate(text).at_hidden
        assert model.pseudo(text.parent / "one.txt").tokens == len(ids)
        config_ = json.loads(file.read_text())
        file.write_text(json.dumps({**config_, "add_bos_token": False}))
        assert nextword.load(folder).vocabulary.begin_id == words.end_id


def test_the_context_may_be_chosen_and_no_other_size(text):
    nextword.train(text, name="first", options={"training.steps": 1, "model.context": 32})
    shorter = {"training.steps": 1, "model.context": 16}
    second = nextword.train(text, name="second", start="first", options=shorter)
    assert second.opened.model.shape.context == 16
    for options, words in (
        ({"model.depth": 3}, "model.depth = 3: first has 2"),
        ({"model.hidden_size": 64}, "model.hidden_size = 64"),
        ({"vocabulary.size": 300}, "brings its own vocabulary"),
        ({"objective.name": "masked"}, "cannot be turned around"),
    ):
        with pytest.raises(SettingsError, match=words):
            nextword.train(text, name="third", start="first", options=options)
    assert not (text.parent / "runs" / "third").exists()


def test_a_tokenizer_that_fills_the_network_is_taken_as_it_is(text, tmp_path):
    """Public folders have no entries to spare for padding and hiding; none are needed."""
    import shutil

    first = nextword.train(
        text, name="first", options={"training.steps": 1, "model.hidden_size": 64}
    )
    folder = tmp_path / "public"
    shutil.copytree(first.opened.folder, folder, ignore=shutil.ignore_patterns("training"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config = {**config, "pad_token": None, "mask_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    again = nextword.train(text, name="on", start=folder, options={"training.steps": 1})
    assert again.opened.model.shape.vocab_size == first.opened.model.shape.vocab_size
    assert again.vocabulary.pad_id is None


def test_a_long_context_is_kept_and_halved_only_for_a_short_text(text):
    options = {"training.steps": 1, "model.context": 512, "vocabulary.kind": "byte"}
    nextword.train(text, name="first", options=options)
    second = nextword.train(text, name="second", start="first", options={"training.steps": 1})
    assert second.opened.model.shape.context == 512
    text.write_text(TEXT * 40)
    third = nextword.train(text, name="third", start="first", options={"training.steps": 1})
    assert third.opened.model.shape.context == 128


def test_text_prepared_with_its_vocabulary_is_trained_on(text, place):
    nextword.train(text, name="first", options={"training.steps": 1, "model.hidden_size": 64})
    made = place.nextword("prepare", "t.txt", "-o", "shards", "--vocabulary.source", "first")
    assert made.returncode == 0, made.stderr
    done = place.nextword("train", "shards", "--from", "first", "--training.steps", "1")
    assert done.returncode == 0, done.stderr
    other = place.nextword("prepare", "t.txt", "-o", "other", "--vocabulary.kind", "byte")
    assert other.returncode == 0, other.stderr
    failed = place.nextword("train", "other", "--from", "first", "--name", "x")
    assert failed.returncode == 2
    assert "another vocabulary" in failed.stderr


def test_bad_weights_are_refused_before_a_run_is_made(text, tmp_path):
    import shutil

    first = nextword.train(
        text, name="first", options={"training.steps": 1, "model.hidden_size": 64}
    )
    folder = tmp_path / "broken"
    shutil.copytree(first.opened.folder, folder, ignore=shutil.ignore_patterns("training"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors only"):
        nextword.train(text, name="second", start=folder)
    options = {"objective.name": "masked", "model.qk_norm": True}
    with pytest.raises(SettingsError, match="qk_norm"):
        nextword.train(text, name="second", options=options)
    assert not (text.parent / "runs" / "second").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_parameters: 'yarn'"),
        ({"vocab_size": 20}, "vocab_size = 20"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_by_the_field(text, tmp_path, change, words):
    import shutil

    first = nextword.train(
        text, name="first", options={"training.steps": 1, "model.hidden_size": 64}
    )
    folder = tmp_path / "other"
    shutil.copytree(first.opened.folder, folder, ignore=shutil.ignore_patterns("training"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=words):
        nextword.train(text, name="second", start=folder)
    assert not (text.parent / "runs" / "second").exists()


def test_a_masked_run_is_resumed_bit_for_bit(text):
    options = {
        "training.steps": 8,
        "training.checkpoint_every": 4,
        "objective.name": "masked",
        "model.context": 32,
    }
    whole = nextword.train(text, name="masked", options=options)
    again = nextword.train(resume="masked@4")
    for name, weight in body(again).items():
        assert torch.equal(weight, body(whole)[name])


def test_other_programs_read_a_masked_text_as_it_is_read_here(text):
    """Its tokenizer writes the beginning, and the space before a mask belongs to what is hidden."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    options = {
        "training.steps": 4,
        "objective.name": "masked",
        "model.context": 32,
        "model.hidden_size": 64,
    }
    model = nextword.train(text, name="both", options=options)
    words = model.vocabulary
    assert words.has_spaced_pieces
    tokenizer = AutoTokenizer.from_pretrained(model.opened.folder)
    theirs = AutoModelForMaskedLM.from_pretrained(model.opened.folder).eval()
    assert tokenizer.mask_token_id == words.mask
    batch = tokenizer(f"the good {tokenizer.mask_token} sat on", return_tensors="pt")
    row = batch["input_ids"][0].tolist()
    wanted = [*words.encode("the good"), words.mask, *words.encode(" sat on")]
    assert row == [words.end_id, *wanted]
    with torch.no_grad():
        odds = theirs(**batch).logits[0, row.index(words.mask)].double().softmax(-1)
    for one in model.fill("the good [MASK] sat on", 5)[0].candidates:
        assert one.probability == pytest.approx(float(odds[one.id]), abs=1e-4)


def test_the_verb_takes_from(text, place):
    nextword.train(text, name="first", options={"training.steps": 1, "model.hidden_size": 64})
    options = ("--name", "second", "--training.steps", "1")
    done = place.nextword("train", "t.txt", "--from", "first", *options)
    assert done.returncode == 0, done.stderr
    failed = place.nextword("train", "t.txt", "--from", "nobody", *options[:1], "third")
    assert failed.returncode == 2
    assert "nobody" in failed.stderr
    failed = place.nextword("train", "--resume", "first", "--from", "first")
    assert failed.returncode == 2
    wrong = place.nextword("train", "t.txt", "--objective", "labelled")
    assert wrong.returncode == 2
    assert "nextword finetune" in wrong.stderr


def test_what_a_masked_model_cannot_do_is_said_in_one_line(text, place):
    options = {
        "training.steps": 2,
        "objective.name": "masked",
        "model.context": 32,
        "model.hidden_size": 64,
    }
    nextword.train(text, name="both", options=options)
    (place.folder / "FILE").write_text("a cat")
    for verb in (
        ("generate", "both", "a"),
        ("predict", "both", "a"),
        ("compress", "both", "FILE", "-o", "OUT"),
        ("ruler", "both"),
        ("tour", "both"),
    ):
        failed = place.nextword(*verb)
        assert failed.returncode == 2, verb
        assert "not the probability of a text" in failed.stderr
        assert failed.stderr.strip().splitlines()[-1].startswith("nextword: both")
    assert not (place.folder / "OUT").exists()
    for verb in (
        ("fill", "both", "the [MASK] cat"),
        ("explain", "both", "the good cat"),
        ("audit", "both", "the good cat"),
        ("replay", "both"),
        ("evaluate", "both"),
        ("evaluate", "both", "t.txt", "--pseudo"),
        ("report", "both"),
    ):
        done = place.nextword(*verb)
        assert done.returncode == 0, f"{verb}\n{done.stderr}"
    page = (place.folder / "both.html").read_text()
    assert "hidden" in page
    assert "<h2>Is that good?</h2>" not in page
    nextword.train(text, name="left", options={"training.steps": 2, "model.hidden_size": 64})
    failed = place.nextword("fill", "left", "the [MASK]")
    assert failed.returncode == 2
    assert "what stands before" in failed.stderr
    failed = place.nextword("evaluate", "left", "--pseudo")
    assert failed.returncode == 2
    with pytest.raises(NextwordError):
        nextword.load("left").fill("the [MASK]")
