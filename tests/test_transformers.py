"""A model folder says of itself what it needs: who knows only the folder asks as this program."""

import json
import shutil

import pytest
import torch

import nextword
from nextword.finetune import finetune
from nextword.settings import resolve
from nextword.vocabulary.kinds import RESERVED, names
from nextword.vocabulary.tokenizer import Vocabulary
from tests.compared import near

TEXT = 'the "good" cat sat on 1234 mats,\n\n  it\'s warm. the bad dog ran to the cold sea…\n'
JUDGED = "the good dog sat on 42 mats.\n\nthe cat's   sea"

pytestmark = pytest.mark.usefixtures("one_thread")


def train(place, name, **options):
    (place.folder / "t.txt").write_text(TEXT * 100)
    given = {"training.steps": 20, "model.context": 64, "model.depth": 1, **options}
    return nextword.train(place.folder / "t.txt", name=name, options=given)


def opened_elsewhere(folder, kind="AutoModelForCausalLM"):
    import transformers

    model = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32).eval()
    return transformers.AutoTokenizer.from_pretrained(folder), model


@torch.no_grad()
def nats_elsewhere(folder, text):
    """The sum of −ln P over a text and its end, from what the folder says alone."""
    tokenizer, model = opened_elsewhere(folder)
    ids = torch.tensor(tokenizer(text)["input_ids"])
    logits = model(ids[None]).logits[0].double()
    targets = torch.cat([ids[1:], torch.tensor([tokenizer.eos_token_id])])
    return float(-logits.log_softmax(-1).gather(1, targets[:, None]).sum()), len(targets)


@pytest.mark.parametrize("kind", names())
def test_a_causal_folder_gives_the_log_probabilities_of_evaluate(place, kind):
    model = train(place, kind, **{"vocabulary.kind": kind, "vocabulary.size": 400})
    (place.folder / "j.txt").write_text(text := JUDGED if kind != "byte" else JUDGED[:40])
    scores = model.evaluate(place.folder / "j.txt")
    nats, tokens = nats_elsewhere(model.opened.folder, text)
    assert tokens == scores.tokens
    near(
        "transformers, probabilities",
        scores.nats / tokens,
        nats / tokens,
        most=1e-5,
    )


def test_a_causal_folder_names_its_roles_and_its_context(place):
    model = train(place, "a")
    tokenizer, theirs = opened_elsewhere(model.opened.folder)
    config = json.loads((model.opened.folder / "config.json").read_text())
    end = model.vocabulary.end_id
    roles = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert roles == (end, end, model.vocabulary.pad_id)
    assert tuple(config[f"{role}_token_id"] for role in ("bos", "eos", "pad")) == roles
    assert tokenizer.bos_token == RESERVED[0]
    assert tokenizer.model_max_length == theirs.config.max_position_embeddings == 64
    assert tokenizer("the")["input_ids"][0] == end
    # Its name in somebody's text is ordinary text, there as here.
    named = f"a {RESERVED[0]} b"
    assert tokenizer(named)["input_ids"][1:] == model.vocabulary.encode(named)
    assert tokenizer.decode(tokenizer(JUDGED)["input_ids"], skip_special_tokens=True) == JUDGED


def test_a_pipeline_writes_what_generate_writes(place):
    from transformers import pipeline

    model = train(
        place, "a", **{"training.steps": 60, "model.depth": 2, "training.batch_tokens": 512}
    )
    folder = str(model.opened.folder)
    writer = pipeline("text-generation", model=folder, tokenizer=folder)
    asked = {"do_sample": False, "max_new_tokens": 20, "return_full_text": False}
    written = writer("the good", **asked)[0]["generated_text"]
    assert written == model.generate("the good", max_tokens=20, temperature=0.0)
    assert written.strip()


def test_a_masked_folder_names_what_may_stand_at_its_mask(place):
    options = {"objective.name": "masked", "training.steps": 40, "vocabulary.size": 400}
    model = train(place, "m", **options)
    tokenizer, theirs = opened_elsewhere(model.opened.folder, "AutoModelForMaskedLM")
    assert tokenizer.model_max_length == 64
    assert tokenizer.mask_token_id == model.vocabulary.mask_id
    ids = tokenizer(f"the good {tokenizer.mask_token} sat on", return_tensors="pt")["input_ids"]
    assert int(ids[0, 0]) == tokenizer.bos_token_id == model.vocabulary.end_id
    (place_,) = (ids[0] == tokenizer.mask_token_id).nonzero().tolist()
    with torch.no_grad():
        odds = theirs(ids).logits[0, place_[0]].double().softmax(-1)
    (filled,) = model.fill("the good [MASK] sat on", top=5)
    for candidate in filled.candidates:
        near(
            "transformers, probabilities",
            candidate.probability,
            odds[candidate.id],
            most=1e-5,
        )


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_a_folder_with_labels_says_what_classify_says(place, objective):
    train(place, "begun", **{"objective.name": objective, "vocabulary.size": 400})
    rows = [
        {"text": f"the {'cat' if n % 2 else 'dog'} {n}", "label": "ab"[n % 2]} for n in range(40)
    ]
    (place.folder / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = resolve(given={"finetune.steps": 30})
    done = finetune("begun", [str(place.folder / "l.jsonl")], given, name="labels")
    model = nextword.load(str(done.folder))
    tokenizer, theirs = opened_elsewhere(model.opened.folder, "AutoModelForSequenceClassification")
    assert tokenizer.model_max_length == 64
    texts = ["the cat 3", f"a dog {RESERVED[0]}"] if objective == "causal" else ["the cat 3", "dog"]
    for text, said in zip(texts, model.classify(*texts), strict=True):
        with torch.no_grad():
            odds = theirs(**tokenizer(text, return_tensors="pt")).logits[0].double().softmax(-1)
        for number, name in theirs.config.id2label.items():
            near(
                "transformers, probabilities",
                said.probabilities[name],
                odds[number],
                most=1e-5,
            )


def test_a_folder_written_before_still_opens(place):
    model = train(place, "a", **{"vocabulary.pattern": "gpt2"})
    before = model.evaluate(place.folder / "t.txt")
    old = place.folder / "old"
    shutil.copytree(model.opened.folder, old, ignore=shutil.ignore_patterns("training"))
    file = old / "tokenizer_config.json"
    config = json.loads(file.read_text())
    del config["bos_token"]
    file.write_text(json.dumps({**config, "model_max_length": int(1e30)}))
    tokenizer = json.loads((old / "tokenizer.json").read_text())
    (old / "tokenizer.json").write_text(json.dumps({**tokenizer, "post_processor": None}))
    again = nextword.load(old)
    assert again.evaluate(place.folder / "t.txt") == before
    assert again.vocabulary.begin_id == model.vocabulary.begin_id


def test_a_vocabulary_taken_from_a_folder_is_the_one_it_was_learned_as(place):
    model = train(place, "a", **{"vocabulary.size": 400})
    saved = Vocabulary.load(model.opened.folder)
    prepared = Vocabulary.load(model._prepared().folder)
    assert saved.tokenizer.to_str() == prepared.tokenizer.to_str()
    begun = nextword.train(
        place.folder / "t.txt",
        name="b",
        options={
            "vocabulary.source": str(model.opened.folder),
            "training.steps": 2,
            "model.context": 64,
        },
    )
    assert begun.vocabulary.encode(JUDGED) == model.vocabulary.encode(JUDGED)
