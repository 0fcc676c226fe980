"""Weights divided among processes: the same training, and checkpoints that know nothing of it."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nextword.machine.copies import Copies
from nextword.machine.parts import Part, rows_of
from nextword.machine.ranks import Ranks
from nextword.training.checkpoint import list_checkpoints
from nextword.training.vouched import find_damage
from tests.place import Place
from tests.several import POISONED, ROLLBACK, all_well, together

ROOT = Path(__file__).parents[2]
SMALL = [
    "--training.steps=20", "--training.evaluate-every=10", "--training.batch-tokens=512",
    "--training.micro-batch-tokens=160", "--training.clip-norm=0.5", "--model.depth=2",
    "--model.hidden-size=48", "--model.context=32", "--corpus.stories=120",
    "--machine.precision=float32", "--evaluation.batch-tokens=300", "--training.keep-last=3",
    "--generation.max-tokens=12",
]  # fmt: skip
KINDS = {
    "causal-muon": ["--training.optimizer=muon", "--training.dropout=0.1"],
    "causal-adamw": ["--training.optimizer=adamw"],
    "masked-muon": ["--objective.name=masked", "--training.optimizer=muon"],
    "masked-adamw": ["--objective.name=masked", "--training.optimizer=adamw"],
    # A text of one's own: a head of its own, begun with the odds of pairs; and layers twice. Tokens
    # that are seldom seen AdamW moves by their gradients' signs: at 0.012 some are 4e-4 apart.
    "own": ["own.txt", "--machine.recompute=full", "--training.learning-rate=0.003"],
    # A step whose loss is no number: all go back, and leave its batch out.
    "poisoned": [ROLLBACK, "--training.checkpoint-every=5"],
}
WAYS = {
    "ddp-2": ["causal-muon", "causal-adamw", "masked-muon", "masked-adamw", "own"],
    "ddp-4": ["causal-adamw", "masked-muon"],
    "fsdp-2": list(KINDS),
    "fsdp-4": ["causal-muon", "masked-adamw"],
    "hsdp-4": ["causal-muon", "masked-adamw"],
}
"""How many processes divide the weights which way, for which kinds; in hsdp two and two, in ddp
not at all: there one writes the sample and another looks at the hold-out."""
CASES = [(kind, way) for way, kinds in WAYS.items() for kind in kinds]


def run_of(place, name):
    return place.folder / "runs" / name


def events(place, name, kind):
    lines = (run_of(place, name) / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def last_of(place, name):
    return list_checkpoints(run_of(place, name))[-1].folder


def apart(one, other):
    """The most by which two files of tensors differ, which must hold the same ones."""
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    assert first
    return max(float((value - second[name]).abs().max()) for name, value in first.items())


def check_alike(place, one, other, *, lengths):
    """Two runs have learned and said the same: steps, weights, state, evaluations.

    `lengths`: by how much those of gradients may differ, of themselves.
    """
    for mine, theirs in zip(events(place, one, "step"), events(place, other, "step"), strict=True):
        if mine["loss"] is None:  # of a batch that was left out
            assert theirs["loss"] is None
            continue
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert mine["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=lengths)
    folders = last_of(place, one), last_of(place, other)
    for file in "model.safetensors", "training/optimizer.safetensors":
        assert apart(*(folder / file for folder in folders)) < 1e-4
    assert not find_damage(folders[1], whole=True)
    assert len(events(place, one, "replay")) == len(events(place, other, "replay"))
    pairs = zip(events(place, one, "evaluation"), events(place, other, "evaluation"), strict=True)
    for mine, theirs in pairs:
        assert mine["nats"] == pytest.approx(theirs["nats"], rel=1e-5)
        assert mine["tokens"] == theirs["tokens"]
        assert mine["sample"] == theirs["sample"]


def divided(way):
    return [f"--machine.parallel={way.split('-')[0]}"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Each kind of training by one process and by several, however they divide the weights."""
    place = Place(tmp_path_factory.mktemp("divided"))
    (place.folder / "own.txt").write_text("The hen and the fox, the fox and the hen. " * 900)
    alone = [["train", "--name", kind, *SMALL, *more] for kind, more in KINDS.items()]
    all_well(together(place, 1, *alone))
    said = ""
    for count in 2, 4:
        sent = {"SENT": str(place.folder / f"sent-{count}")}
        commands = [
            ["train", "--name", f"{kind}-{way}", *SMALL, *KINDS[kind], *divided(way)]
            for kind, way in CASES
            if way.endswith(str(count))
        ]
        said += all_well(together(place, count, *commands, on_machine=2, **sent))
    return place, said


@pytest.mark.parametrize(("kind", "way"), CASES)
def test_it_learns_what_one_process_does(trained, kind, way):
    place, said = trained
    # A vector that is nearly nothing makes its norm's gradient long, and the rounding with it:
    # 2e-4 in one step of twenty, where loss and weights differ by 2e-7 and 4e-5.
    check_alike(place, kind, f"{kind}-{way}", lengths=1e-3)
    assert "processes   2: they divide the weights among them, as was asked for" in said
    assert "processes   4: those of each machine divide the weights among them" in said


def test_all_go_back_together(trained):
    place, _ = trained
    for name in "poisoned", "poisoned-fsdp-2":
        (event,) = events(place, name, "rollback")
        assert {event["left_out"]} == POISONED
        assert event["step"] == 10


def sent_by(place, kind, way):
    """What each process sent a step, and what it held in the end."""
    kinds = [case for case in CASES if case[1][-1] == way[-1]]
    count = int(way[-1])
    lines = (place.folder / f"sent-{count}").read_text().splitlines()
    of_rank = {rank: [] for rank in range(count)}
    for told in map(json.loads, lines):
        of_rank[told["rank"]].append(told)
    return [told[kinds.index((kind, way))] for told in of_rank.values()]


def test_each_process_holds_its_share(trained):
    place, _ = trained
    whole = sum(one.nbytes for one in load_file(
        last_of(place, "causal-adamw") / "model.safetensors").values())  # fmt: skip
    for one in sent_by(place, "causal-adamw", "fsdp-2"):
        assert one["weights"] <= 0.51 * whole
        assert one["state"] <= 2 * 0.51 * whole
    for one in sent_by(place, "causal-muon", "fsdp-4"):
        assert one["weights"] <= 0.26 * whole
    for one in sent_by(place, "causal-muon", "hsdp-4"):
        assert one["weights"] <= 0.51 * whole


def test_muon_sends_little_more_than_adamw_does(trained):
    """Of a step's bytes, beside those that dividing the weights costs with any optimizer."""
    place, _ = trained
    muon, adamw = (
        sum(sum(one["sent"].values()) for one in sent_by(place, kind, "fsdp-2"))
        for kind in ("causal-muon", "causal-adamw")
    )
    assert adamw < muon <= 1.5 * adamw


def test_it_goes_on_with_other_processes_and_divided_otherwise(trained):
    """Data in the same order, bit for bit; losses go on within 1e-5; checkpoints know nothing."""
    place, _ = trained
    begun = run_of(place, "causal-muon")
    shutil.copytree(begun, run_of(place, "chain"))
    whole = str(1 << 40)
    of_chain = (3, "fsdp", 24, "50000"), (2, "ddp", 28, "90000"), (1, "auto", 32, whole)
    for count, way, upto, most in of_chain:  # the first two in several files of weights
        words = ["--resume", "chain", f"--training.steps={upto}", f"--machine.parallel={way}"]
        all_well(together(place, count, ["train", *words], FILE=most))
        assert list_checkpoints(run_of(place, "chain"))[-1].step == upto
        files = list(last_of(place, "chain").glob("model*.safetensors"))
        assert (len(files) > 1) == (most != whole)
        assert not find_damage(last_of(place, "chain"), whole=True)
    shutil.copytree(begun, run_of(place, "alone"))
    words = [["--resume", "alone", f"--training.steps={upto}"] for upto in (24, 28, 32)]
    all_well(together(place, 1, *(["train", *one] for one in words)))
    chain, alone = (events(place, name, "step") for name in ("chain", "alone"))
    assert [one["step"] for one in chain] == list(range(1, 33))
    for one, other in zip(chain, alone, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
    files = [last_of(place, name) / "model.safetensors" for name in ("chain", "alone")]
    assert apart(*files) < 1e-4
    assert not any(find_damage(one.folder, whole=True) for one in list_checkpoints(begun))


@pytest.mark.parametrize("how", ["dies", "finds no room"])
def test_a_process_that_fails_while_saving_leaves_the_checkpoint_before_it(trained, how):
    place, _ = trained
    name = f"it-{how.split()[0]}"
    words = ["train", "--name", name, "--machine.parallel=fsdp", *SMALL, *KINDS["causal-muon"]]
    # A save is two files: the second save's first is where it fails.
    ended = together(place, 2, words, HOW=how, AT="3", PATIENCE="5")
    assert all(status not in (0, None) for status, _ in ended)
    if how != "dies":
        for _, said in ended:
            assert "step-000020: cannot be written (No space left on device)" in said
    run = run_of(place, name)
    assert [one.step for one in list_checkpoints(run)] == [10]
    assert not find_damage(last_of(place, name), whole=True)
    all_well(together(place, 2, ["train", "--resume", name]))
    assert [one.name for one in (run / "checkpoints").iterdir() if one.name[0] == "."] == []
    theirs = last_of(place, "causal-muon-fsdp-2")
    assert apart(last_of(place, name) / "model.safetensors", theirs / "model.safetensors") == 0


@pytest.mark.parametrize("recompute", ["none", "selective"])
def test_layers_are_compiled_around_what_is_gathered(trained, recompute):
    """Once for all of them, whatever their number, and the same losses come of it."""
    place, _ = trained
    name = f"compiled-{recompute}"
    words = ["train", "--name", name, "--machine.parallel=fsdp", *SMALL, *KINDS["causal-muon"]]
    words += ["--machine.compile=on", f"--machine.recompute={recompute}"]
    said = all_well(together(place, 2, words, COUNTED="yes"))
    assert "compiling the layers, once for all of them" in said
    assert json.loads((run_of(place, name) / "run.json").read_text())["plan"]["compiled"]
    ours, theirs = (events(place, one, "step") for one in (name, "causal-muon-fsdp-2"))
    for one, other in zip(ours, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
    assert "graphs that were compiled: 1" in said


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_all_score_the_best_where_it_is_kept(trained, way):
    """What was learned by heart at the end is not what is told of."""
    place, _ = trained
    source = random.Random(0)
    noise = "".join(source.choice("abcdefgh ") for _ in range(3000))
    (place.folder / "noise.txt").write_text(noise)
    name = f"noise-{way}"
    given = ["train", "noise.txt", "--name", name, "--vocabulary.kind=char", *divided(way)]
    given += ["--training.steps=240", "--model.context=32", "--training.batch-tokens=512"]
    given += [
        "--model.hidden-size=64",
        "--machine.precision=float32",
        "--evaluation.batch-tokens=90",
    ]
    said = all_well(together(place, 2, given))
    assert "by heart" in said
    best, last = list_checkpoints(run_of(place, name))
    assert best.holdout_loss < last.holdout_loss
    asked = place.nextword("evaluate", name, "--json")
    assert f"it never saw, {json.loads(asked.stdout)['nats_per_token']:.4f} nats/token" in said


def test_what_cannot_be_is_said_in_a_line(trained):
    place, _ = trained
    asked = [
        (["--machine.parallel=hsdp"], "the 2 processes run on one machine"),
    ]
    for words, why in asked:
        (status, said), _ = together(place, 2, ["train", "--name", "no", *SMALL, *words])
        assert status == 2
        assert why in said.splitlines()[-1]
        assert "Traceback" not in said
        assert not run_of(place, "no").exists()


def test_a_network_that_fits_nowhere_whole_is_divided(trained):
    """By what is free, of which a machine with less is told here."""
    place, _ = trained
    least = 2.45  # times what it takes whole: each of two has 1.225, and 1.25 would be enough
    held = 4 * 7 * 74160
    program = {"FREE": str(int(least * held))}
    words = ["train", "--name", "auto", *SMALL, "--training.optimizer=adamw"]
    said = all_well(together(place, 2, words, **program))
    assert "processes   2: they divide the weights among them; whole they take" in said
    theirs = last_of(place, "causal-adamw-fsdp-2")
    assert apart(last_of(place, "auto") / "model.safetensors", theirs / "model.safetensors") == 0
    plenty = {"FREE": str(8 * held)}
    words[2] = "plenty"
    said = all_well(together(place, 2, words, **plenty))
    assert "processes   2: each holds all weights, which fit" in said


def test_how_much_of_a_network_one_memory_holds():
    eight = Ranks(size=8, on_machine=4)
    for kind, shares in {
        "cpu": {"ddp": 4, "hsdp": 1, "fsdp": 0.5, "auto": 0.5},
        "cuda": {"ddp": 1, "hsdp": 0.25, "fsdp": 0.125, "auto": 0.125},
    }.items():
        for way, share in shares.items():
            assert eight.least_share(way, torch.device(kind)) == share
    assert Ranks().least_share("auto", torch.device("cpu")) == 1


def test_machines_that_are_not_alike_do_not_divide_among_themselves():
    assert Ranks(size=8, on_machine=4, is_even=True).are_several_machines
    assert not Ranks(size=8, on_machine=4, is_even=False).are_several_machines
    assert not Ranks(size=4, on_machine=4, is_even=True).are_several_machines


def test_rows_that_several_write_are_one_file_that_every_reader_opens(tmp_path):
    values = {
        "a": torch.arange(35.0).reshape(7, 5),
        "b": torch.arange(3, dtype=torch.int64),
        "count": torch.tensor(4.0),
        "narrow": torch.arange(8, dtype=torch.bfloat16).reshape(4, 2),
    }
    for size in 1, 2, 3, 5, 9:
        file = tmp_path / f"{size}.safetensors"
        every = []
        for rank in range(size):
            parts = {}
            for name, value in values.items():
                first, end = rows_of(value.shape, rank, size) if value.ndim else (0, 1)
                rows = value[first:end] if value.ndim else value
                parts[name] = Part(rows, value.shape, first if value.ndim else 0)
            every.append(Copies.of(parts, divided=True))
        assert every[0].write(file, {"format": "pt"}) == ""
        for copies in every[1:]:
            copies.write_rows(file, {"format": "pt"})
            assert copies.memory.nbytes <= 4096 * -(-sum(
                part.rows.nbytes for part in copies.parts.values()) // 4096)  # fmt: skip
        found = load_file(file)
        assert found.keys() == values.keys()
        assert all(value.equal(found[name]) for name, value in values.items())
        assert file.read_bytes() == (tmp_path / "1.safetensors").read_bytes()
    again = Copies.of({name: 2 * value for name, value in values.items()}, divided=True)
    other = Copies.of(
        {name: Part(value, value.shape, is_copy=True) for name, value in values.items()},
        divided=True,
    )
    again.write(file, {"format": "pt"})
    other.write_rows(file, {"format": "pt"})  # who holds the same as another writes nothing
    assert load_file(file)["a"].equal(2 * values["a"])
    Copies.of(values).write(tmp_path / "whole", {"format": "pt"})
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "1.safetensors").read_bytes()


def test_the_network_knows_nothing_of_processes():
    """What gives it weights and takes them deals in rows; what computes with them does not."""
    gives = {"bigrams.py", "folder.py", "initialize.py"}
    for file in sorted((ROOT / "nextword" / "model").rglob("*.py")):
        words = file.read_text()
        assert "torch.distributed" not in words, file
        assert ("nextword.machine.parts" in words) == (file.name in gives), file
        assert "nextword.machine.ranks" not in words, file


def test_nobody_waits_for_longer_than_a_step():
    """As `python -m tests.idle` has measured; after the last step there is none to wait with."""
    kept = json.loads((ROOT / "benchmarks" / "results" / "idle.json").read_text())
    found = kept["seconds_waited_at_most"]
    assert {one["parallel"] for one in found} == {"ddp", "fsdp"}
    for one in found:
        assert all(waited <= one["step"] for waited in one["evaluation"][:-1] + one["replay"])
