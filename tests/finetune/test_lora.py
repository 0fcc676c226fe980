"""LoRA: peft's numbers, its file, and all that any other fine-tuning keeps."""

import json

import pytest
import torch
import torch.nn.functional as F

import nextword
from nextword.base.errors import RunError
from nextword.export.peft import write_adapter
from nextword.finetune import finetune, resume
from nextword.model.folder import read_model, write_model
from nextword.model.layouts import Ids
from nextword.settings import resolve
from nextword.training.gradients import update
from nextword.training.lora import A, adapt
from nextword.training.optimizers import groups_of
from nextword.training.options import TrainingSettings
from nextword.training.step import LanguageModelLoss, accumulate
from tests.compared import near
from tests.model.test_transformer import ids, scattered

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
RATE, STEPS = 0.01, 8
BETAS = (TrainingSettings().beta1, TrainingSettings().beta2)
EPS = 1e-4
"""Of AdamW: with its usual one it makes much of the last bit of a gradient that is nearly nothing,
and transformers computes norms in float32 whatever it is given."""


def batches(steps=STEPS):
    return [ids(rows=4, length=20, seed=step) for step in range(steps)]


def ours(model, rank=4, alpha=8.0, clip=1.0):
    """Teach a network by LoRA; return its first A, and each step's loss and gradient's length."""
    settings = TrainingSettings(optimizer="adamw", learning_rate=RATE, weight_decay=0.1)
    thin = adapt(groups_of(model), settings, rank, alpha)
    thin.param_groups[0]["eps"] = EPS
    matrices = groups_of(model)["matrices"].values()
    first = {weight: thin.state[weight][A].clone() for weight in matrices}
    loss, seen = LanguageModelLoss(model, precision=torch.float64), []
    for rows in batches():
        halves = [(part[:, :-1].numpy(), part[:, 1:].numpy()) for part in (rows[:2], rows[2:])]
        nats = accumulate(loss, halves, rows[:, 1:].numel(), torch.device("cpu"))
        seen.append((nats, update(model, [thin], 1.0, clip)))
    return first, seen


def theirs(folder, model, first, rank=4, alpha=8.0, clip=1.0):
    """The same by peft and torch's AdamW."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder).double()
    names = [name.split(".")[-2] for name in groups_of(model)["matrices"]]
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=sorted(set(names)))
    wrapped = peft.get_peft_model(base, config, autocast_adapter_dtype=False).double()
    parameters = dict(wrapped.named_parameters())
    with torch.no_grad():
        for name, weight in groups_of(model)["matrices"].items():
            place = f"base_model.model.{name.removesuffix('.weight')}.lora_A.default.weight"
            parameters[place].copy_(first[weight])
    learned = [weight for weight in wrapped.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learned, RATE, BETAS, EPS, weight_decay=0.1)
    seen = []
    for rows in batches():
        logits = wrapped(input_ids=rows[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(learned, clip)
        optimizer.step()
        optimizer.zero_grad()
        seen.append((float(loss), float(norm)))
    return wrapped, seen


@pytest.fixture
def base(tmp_path):
    model = scattered()
    folder = tmp_path / "base"
    folder.mkdir()
    write_model(model, folder, Ids(0, None, None))
    return model, folder


def test_losses_gradients_and_weights_are_pefts(base):
    model, folder = base
    model.double()
    first, here = ours(model)
    wrapped, there = theirs(folder, model, first)
    near("peft, losses and gradients", here, there, most=1e-5, relative=True)
    assert here[-1][0] < here[0][0] - 0.05  # it learns
    merged = dict(wrapped.merge_and_unload().named_parameters())
    for name, weight in model.named_parameters():
        near("peft, merged weights", weight, merged[name], most=1e-6)


def test_a_step_that_is_left_out_leaves_nothing_behind(base):
    model, _ = base
    settings = TrainingSettings(optimizer="adamw", learning_rate=RATE)
    thin = adapt(groups_of(model), settings, 4, 8.0)
    before = [weight.detach().clone() for weight in model.parameters()]
    loss = LanguageModelLoss(model, precision=torch.float32)
    (rows,) = batches(1)
    part = [(rows[:, :-1].numpy(), rows[:, 1:].numpy())]
    accumulate(loss, part, rows[:, 1:].numel(), torch.device("cpu"))
    assert update(model, [thin], 1.0, 0.0, longest=1e-9) > 0
    assert thin.own_gradients() == []
    assert all(map(torch.equal, before, model.parameters()))


TEXT = "the good cat sat on the warm mat. the bad dog ran to the cold sea.\n"


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
    rows = [{"prompt": f"the {n}", "answer": "cat" if n % 2 else "dog"} for n in range(40)]
    (place.folder / "answers.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rows = [{"text": f"the {n} cat", "label": "ab"[n % 2]} for n in range(40)]
    (place.folder / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return place


def taught(place, file, name, **options):
    asked = {
        "finetune.steps": 8,
        "finetune.lora_rank": 2,
        "training.checkpoint_every": 4,
        **options,
    }
    return finetune("begun", [str(place.folder / file)], resolve(given=asked), name=name)


def weights_of(folder):
    return dict(read_model(folder).named_parameters())


@pytest.mark.parametrize("file", ["answers.jsonl", "labels.jsonl"])
def test_only_the_matrices_move_and_a_resumed_run_is_the_same_bit_for_bit(begun, file, monkeypatch):
    done = taught(begun, file, "whole")
    start = weights_of(nextword.load("begun").opened.folder)
    last = weights_of(nextword.load("whole").opened.folder)
    for name, weight in last.items():
        if name in start:
            moved = not torch.equal(weight, start[name])
            assert moved == (weight.ndim == 2 and "proj" in name), name
    from nextword.training import loop

    real, steps = loop.move, []

    def failing(*arguments):
        steps.append(1)
        if len(steps) == 7:
            raise RuntimeError("the power is gone")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "move", failing)
        with pytest.raises(RuntimeError):
            taught(begun, file, "parts")
    again = resume("parts")
    for name, weight in weights_of(nextword.load("parts").opened.folder).items():
        assert torch.equal(weight, last[name]), name
    assert again.scores.as_dict() == done.scores.as_dict()


@pytest.mark.parametrize("file", ["answers.jsonl", "labels.jsonl"])
def test_peft_opens_the_adapter_on_the_model_that_it_was_taught_on(begun, file):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    taught(begun, file, "thin")
    done = begun.nextword("export", "thin", "--to", "peft", "-o", "adapter", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rank"] == 2
    told = json.loads((begun.folder / "adapter" / "adapter_config.json").read_text())
    kind = AutoModelForCausalLM if told["task_type"] == "CAUSAL_LM" else (
        AutoModelForSequenceClassification
    )  # fmt: skip
    base = kind.from_pretrained(told["base_model_name_or_path"])
    wrapped = peft.PeftModel.from_pretrained(base, begun.folder / "adapter").eval()
    merged = kind.from_pretrained(nextword.load("thin").opened.folder).eval()
    base.config.pad_token_id = merged.config.pad_token_id
    rows = torch.tensor([[0, 5, 9, 30, 12, 7]])
    with torch.no_grad():
        one, two = wrapped(input_ids=rows).logits, merged(input_ids=rows).logits
        plain = wrapped.get_base_model().eval()
        wrapped.disable_adapter_layers()
        three = plain(input_ids=rows).logits
    near("peft, logits of an adapter", two, one, most=1e-4)
    assert not torch.allclose(one, three, atol=1e-3)


def test_what_has_no_adapter_is_one_line(begun):
    taught(begun, "answers.jsonl", "whole", **{"finetune.lora_rank": 0})
    done = begun.nextword("export", "whole", "--to", "peft")
    assert done.returncode == 2
    assert "was not taught with LoRA" in done.stderr
    taught(begun, "answers.jsonl", "thin")
    assert begun.nextword("export", "thin", "--to", "peft").returncode == 0
    assert "is there already" in begun.nextword("export", "thin", "--to", "peft").stderr
    assert begun.nextword("export", "thin", "--to", "peft", "--force").returncode == 0
    (begun.folder / "mine").mkdir()
    (begun.folder / "mine" / "thesis.txt").write_text("years of work")
    done = begun.nextword("export", "thin", "--to", "peft", "-o", "mine", "--force")
    assert done.returncode == 2
    assert "for it is no adapter" in done.stderr
    assert (begun.folder / "mine" / "thesis.txt").is_file()
    with pytest.raises(RunError, match="is there already"):
        write_adapter(nextword.load("thin").opened, begun.folder / "thin-adapter")
