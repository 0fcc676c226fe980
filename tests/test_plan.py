"""`nextword plan`: how a network would be divided among many cards."""

import json

import pytest

SMALL_PLAN = ("plan", "--model.depth", "2", "--model.context", "64", "--vocabulary.size", "500")
LLAMA = {
    "model_type": "llama", "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
}  # fmt: skip


def test_it_says_what_each_way_takes(place):
    done = place.nextword(*SMALL_PLAN, "--devices", "16", "--memory", "0.05")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "16 × h100 in 2 machines of 8" in done.stdout
    assert "given: memory 0.05" in done.stdout
    rows = lines[next(n for n, line in enumerate(lines) if line.startswith("way ")) + 1 :]
    ways = [line.split()[0] for line in rows if line[0] != " "]
    assert sorted(set(ways)) == ["ddp", "fsdp", "hsdp"]
    assert len(ways) == 2 * 9  # each layer by one card, and by two: there are two heads of keys
    assert sum(" t2 " in line for line in rows) == 9
    best = next(line for line in lines if line.startswith("options"))
    assert f"--machine.parallel {ways[0]}" in best


def test_it_says_what_cards_that_work_together_take(place):
    heads = ("--model.num-attention-heads", "4", "--model.num-key-value-heads", "4")
    groups = ("--machine.tensor", "2", "--machine.context", "2")
    done = place.nextword(*SMALL_PLAN, *heads, *groups, "--devices", "16")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    (table,) = [n for n, line in enumerate(lines) if line.startswith("way ")]
    assert {" ".join(line.split()[1:3]) for line in lines[table + 1 :]} == {"t2 c2"}
    words = " ".join(done.stdout.split())
    assert "2 cards at a time compute each layer together" in words
    assert "and 2 at a time share the positions of each row" in words
    assert "--machine.tensor 2 --machine.context 2" in words


def test_a_model_that_is_there_says_its_sizes(place, run):
    of = ("plan", "small", "--devices", "1", "--device", "a100", "--json")
    found = json.loads(place.nextword(*of).stdout)
    assert {one["parallel"] for one in found} == {"ddp"}
    assert {one["recompute"] for one in found} == {"none", "selective", "full"}
    weights = json.loads((run / "run.json").read_text())["parameters"]
    for one in found:
        assert one["memory"]["gradients"] == pytest.approx(4 * weights)
        assert sum(one["memory"].values()) == one["memory_bytes"]
        assert one["sent_within"] == one["sent_between"] == 0
        assert one["lacks"] == ""


def test_others_configurations_are_read_whatever_turns_their_positions(place, monkeypatch):
    from nextword.cli import plan

    (place.folder / "llama.json").write_text(json.dumps(LLAMA))
    shape = plan._shape("llama.json", {"model.context": 8192}, 1)
    assert shape.parameters() == 8_030_261_248  # as its model card says: 8.03 thousand million
    assert shape.context == 8192


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--machine.tensor", "9"), "--machine.tensor 9: must be 1 to 8"),
        (("--machine.tensor", "3"), "8 processes cannot be divided into groups of 3"),
        (("--device", "tpu"), "no accelerator 'tpu' in the table"),
        (("--devices", "0"), "--devices 0: must be 1 to"),
        (("--devices", "12"), "12 cards do not fill machines of 8"),
        (("--memory", "-1"), "--memory -1: must be above 0"),
        (("--training.tokens", "0"), "--training.tokens 0"),
        (("--training.optimizer", "sgd"), "training.optimizer = 'sgd'"),
        (("--training.batch-tokens", "0"), "training.batch_tokens"),
        (("--vocabulary.size", "0"), "vocabulary.size"),
        (("--model.depth", "0"), "model.depth"),
        (("nobody",), "no run 'nobody'"),
        (("gone.json",), "gone.json: no such file"),
        (("config.json",), "not JSON"),
        (("small", "--model.depth", "3"), "--model.depth is said by small"),
    ],
)
def test_what_is_wrong_is_one_line(place, run, words, said):
    (place.folder / "config.json").write_text("{")
    done = place.nextword("plan", *words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2  # what it begins with may be said before
    assert not done.stdout
