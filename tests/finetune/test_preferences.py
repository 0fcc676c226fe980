"""Preferences (DPO): trl's numbers, shapes of rows, and all that any other fine-tuning keeps."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

import nextword
from nextword.base.errors import CorpusError, NextwordError, RunError, SettingsError
from nextword.base.files import digest_of_file
from nextword.corpus.examples import Row
from nextword.finetune import finetune, resume
from nextword.finetune.preferences import read_preferences
from nextword.finetune.tally import Tally
from nextword.model.folder import read_model
from nextword.objectives.options import ExamplesSettings, FinetuneSettings
from nextword.prediction.loading import find_checkpoint
from nextword.settings import resolve
from nextword.vocabulary.tokenizer import Vocabulary
from tests.compared import near

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
TEXT = "the good cat sat on the warm mat. the bad dog ran to the cold sea.\n"
RATE = 5e-5
ROWS = [
    {
        "prompt": f"the {'good' if n % 3 else 'bad'} {n}",
        "chosen": " cat sat on the mat" if n % 2 else " cat ran",
        "rejected": " dog ran" if n % 2 else " dog sat on the cold sea",
    }
    for n in range(40)
]


@pytest.fixture
def begun(place):
    (place.folder / "t.txt").write_text(TEXT * 60)
    options = {
        "training.steps": 4,
        "model.context": 64,
        "vocabulary.size": 300,
        "model.hidden_size": 64,
    }
    nextword.train(place.folder / "t.txt", name="begun", options=options)
    (place.folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return place


def taught(place, name, **options):
    asked = {"finetune.steps": 10, "training.checkpoint_every": 5, **options}
    return finetune("begun", [str(place.folder / "pairs.jsonl")], resolve(given=asked), name=name)


def losses_of(place, name):
    lines = (place.folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
    events = [one for one in map(json.loads, lines) if one["event"] == "step"]
    return [one["loss"] for one in events], [RATE * one["rate_factor"] for one in events]


def test_losses_are_trls(begun):
    trl = pytest.importorskip("trl", reason="trl is not installed")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    # All pairs in each step, so that their order says nothing; rates as they came.
    options = {"finetune.holdout": 0.0, "finetune.batch_examples": 40, "finetune.beta": 0.3}
    options["finetune.learning_rate"] = RATE
    # As trl computes; in bfloat16 the first loss is 2e-4 beside log 2.
    options["machine.precision"] = "float32"
    taught(begun, "ours", **options)
    ours, rates = losses_of(begun, "ours")
    folder = nextword.load("begun").opened.folder
    training = resolve(given={}).training
    model = AutoModelForCausalLM.from_pretrained(folder)
    optimizer = torch.optim.AdamW(
        model.parameters(), rates[0], (training.beta1, training.beta2), weight_decay=0.0
    )
    told = iter(rates)

    class AsOurs(TrainerCallback):
        def on_step_begin(self, *arguments, **known):
            for group in optimizer.param_groups:
                group["lr"] = next(told)

    arguments = trl.DPOConfig(
        output_dir=str(begun.folder / "trl"),
        per_device_train_batch_size=40,
        max_steps=10,
        beta=0.3,
        max_grad_norm=training.clip_norm,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_dropout=True,
    )
    trainer = trl.DPOTrainer(
        model,
        AutoModelForCausalLM.from_pretrained(folder),
        arguments,
        train_dataset=Dataset.from_list(ROWS),
        processing_class=AutoTokenizer.from_pretrained(folder, split_special_tokens=False),
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)),
        callbacks=[AsOurs()],
    )
    trainer.train()
    theirs = [one["loss"] for one in trainer.state.log_history if "loss" in one]
    assert ours[0] == pytest.approx(math.log(2), abs=1e-5)
    assert ours[-1] < 0.6
    near("trl, losses", ours, theirs, most=1e-4)


@pytest.fixture(scope="module")
def words():
    from nextword.vocabulary.options import VocabularySettings
    from nextword.vocabulary.train import train_vocabulary

    return train_vocabulary([TEXT * 20], 9000, VocabularySettings(kind="byte"))


def read(words, *rows, context=200, **settings):
    tally = Tally(len(rows), ExamplesSettings(bad_share=0.9, **settings))
    given = [Row(f"line {number}", row) for number, row in enumerate(rows, 1)]
    return read_preferences(given, words, FinetuneSettings(), context, tally), tally


def said(words, turns):
    """What is read, and of that what is asked for."""
    asked = [one for one in turns.targets if one != -100]
    return words.decode(list(turns.inputs[1:])), words.decode(asked[:-1])


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def test_shapes_of_rows(words):
    rows = [
        {"prompt": "Who?", "chosen": "All of us", "rejected": "Nobody"},
        {"chosen": "Who errs? All of us", "rejected": "Who errs? Nobody"},
        {"prompt": "Who?", "chosen": [assistant("All")], "rejected": [assistant("None")]},
        {"prompt": [user("Who?")], "chosen": [assistant("All")], "rejected": [assistant("None")]},
        {
            "chosen": [user("Hi"), assistant("Ho"), user("Who?"), assistant("All")],
            "rejected": [user("Hi"), assistant("Ho"), user("Who?"), assistant("None")],
        },
    ]
    rows.append({**rows[4], "prompt": "Hi", "chosen": rows[4]["chosen"][:2]})
    rows[5]["rejected"] = [user("Hi"), assistant("Hu")]
    rows.append({name: json.dumps(value) for name, value in rows[4].items()})
    pairs, tally = read(words, *rows)
    found = [tuple(said(words, one) for one in pair) for pair in pairs]
    assert found == [
        (("Who? All of us", " All of us"), ("Who? Nobody", " Nobody")),
        (("Who errs? All of us", " All of us"), ("Who errs? Nobody", " Nobody")),
        (("User: Who?\nAssistant: All", " All"), ("User: Who?\nAssistant: None", " None")),
        (("User: Who?\nAssistant: All", " All"), ("User: Who?\nAssistant: None", " None")),
        (
            ("User: Hi\nAssistant: Ho\nUser: Who?\nAssistant: All", " All"),
            ("User: Hi\nAssistant: Ho\nUser: Who?\nAssistant: None", " None"),
        ),
        (("User: Hi\nAssistant: Ho", " Ho"), ("User: Hi\nAssistant: Hu", " Hu")),
        tuple(said(words, one) for one in pairs[4]),
    ]  # fmt: skip
    assert not tally.chats
    assert read(words, *rows[2:])[1].chats


GOOD = {"prompt": "Who?", "chosen": "All", "rejected": "None"}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({**GOOD, "rejected": "All"}, "are the same"),
        ({**GOOD, "chosen": " "}, 'the field "chosen" is empty'),
        ({**GOOD, "prompt": ""}, 'the field "prompt" is empty'),
        ({**GOOD, "rejected": 5}, "which is no text"),
        ({"prompt": "Who?", "chosen": "All"}, "no field 'rejected'"),
        ({"chosen": "All", "rejected": "None"}, "share no beginning"),
        ({"chosen": "We are ", "rejected": "We are all"}, "the beginning of the other"),
        (
            {"chosen": [user("a")], "rejected": [user("a"), assistant("b")]},
            "end with the assistant",
        ),
        ({"chosen": [assistant("a")], "rejected": [assistant("b")]}, "share no beginning"),
    ],
)
def test_what_cannot_be_used_is_left_out_with_its_reason(words, row, why):
    pairs, tally = read(words, GOOD, row)
    assert len(pairs) == 1
    assert why in tally.left[0].words


def test_what_is_too_long_is_left_out_or_refused(words):
    long = {**GOOD, "rejected": "None " * 50}
    pairs, tally = read(words, GOOD, long, context=60)
    assert (len(pairs), tally.left[0].why, tally.longest[0]) == (1, "too_long", "line 2")
    with pytest.raises(CorpusError, match=r"line 2: .* tokens, and the model reads 60 at once"):
        read(words, GOOD, long, context=60, too_long="refuse")
    with pytest.raises(CorpusError, match=r"line 1: .* tokens.*nothing was learned"):
        read(words, long, context=60)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_resumed_run_is_the_same_bit_for_bit_and_says_what_it_learned(begun, monkeypatch, rank):
    options = {"finetune.lora_rank": rank, "finetune.beta": 0.5}
    whole = taught(begun, "whole", **options)
    assert whole.task == "preferences"
    assert whole.scores.right / whole.scores.examples > 0.7
    assert whole.scores.loss < math.log(2)
    from nextword.training import loop

    real, steps = loop.move, []

    def failing(*arguments):
        steps.append(1)
        if len(steps) == 8:
            raise RuntimeError("the power is gone")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "move", failing)
        with pytest.raises(RuntimeError):
            taught(begun, "parts", **options)
    assert resume("parts").scores == whole.scores
    one, two = (
        dict(read_model(nextword.load(name).opened.folder).named_parameters())
        for name in ("whole", "parts")
    )
    assert all(torch.equal(weight, two[name]) for name, weight in one.items())


def test_the_command_says_it_and_what_it_began_with_must_stay(begun):
    done = begun.nextword(
        *("finetune", "begun", "pairs.jsonl", "--name", "it", "--json"),
        *("--finetune.steps", "4"),
    )
    assert done.returncode == 0, done.stderr
    assert "DPO (known by their fields: chosen and rejected)" in done.stderr
    assert "nats a pair (before: 0.6931)" in done.stderr
    assert json.loads(done.stdout)["task"] == "preferences"
    generated = begun.nextword("generate", "it", "the good", "--max-tokens", "3")
    assert generated.returncode == 0, generated.stderr
    # Other weights under the same name would be another reference, whoever vouches for them.
    folder = find_checkpoint(begun.folder / "runs" / "begun", "best").folder
    weights, manifest = folder / "model.safetensors", folder / "training" / "manifest.json"
    known = {file: file.read_bytes() for file in (weights, manifest)}
    save_file({name: 2 * one for name, one in load_file(weights).items()}, weights)
    digests = {**json.loads(manifest.read_text()), weights.name: digest_of_file(weights)}
    manifest.write_text(json.dumps(digests))
    with pytest.raises(RunError, match="is another now"):
        resume("it", steps=6)
    for file, raw in known.items():
        file.write_bytes(raw)
    assert resume("it", steps=5).task == "preferences"
    (begun.folder / "runs" / "begun").rename(begun.folder / "gone")
    with pytest.raises(RunError, match="beside which preferences are learned"):
        resume("it", steps=6)


def test_there_must_be_something_to_compare_with(begun):
    pairs = [str(begun.folder / "pairs.jsonl")]
    with pytest.raises(SettingsError, match="beside the model that it begins with"):
        finetune("begun", pairs, resolve(given={"finetune.steps": 2}), from_nothing=True)
    asked = {"finetune.task": "preferences", "labels.kind": "class"}
    with pytest.raises(NextwordError, match="contradict each other"):
        finetune("begun", pairs, resolve(given=asked))


def test_a_saved_vocabulary_reads_the_same(words, tmp_path):
    words.save(tmp_path)
    again = Vocabulary.load(tmp_path)
    assert read(again, GOOD)[0] == read(words, GOOD)[0]
