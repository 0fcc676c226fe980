"""The verbs as a user types them, with right and with wrong input."""

import errno
import gzip
import json
import os

import pytest

from nextword.cli import main, program

WRONG = [
    (["train", "--model.dept", "3"], ["--model.dept", "--model.depth"]),
    (["train", "--model.depth", "0"], ["model.depth", "at least 1"]),
    (["train", "--training.optimizer", "mun"], ["mun", "muon"]),
    (["train", "missing.txt"], ["missing.txt", "no such file"]),
    (["train", "--name", "a/b"], ["a/b"]),
    (["train", "--name", "latest"], ["latest"]),
    *(
        (["train", "--name", name], ["a run's name"])
        for name in ("..", "../a", "/tmp/a", "a\\b", "")
    ),
    (["train", "--corpus.builtin", "storys"], ["storys", "stories"]),
    (["train", "--machine.device", "tpu"], ["tpu", "cuda"]),
    (["train", "--training.steps", "5", "--training.tokens", "5"], ["give one"]),
    (["train", "--resume", "nothing"], ["nothing", "there are none yet"]),
    (["train", "--resume", "a", "--model.depth", "3"], ["--resume"]),
    (["train", "--recipe", "no.toml"], ["no.toml"]),
    (["generate", "nothing", "Once"], ["nothing"]),
    (["predict", "latest"], ["no run"]),
    (["evaluate", "nothing", "missing.txt"], ["missing.txt"]),
    (["trian"], ["trian", "train"]),
    (["generate"], ["run"]),
    (["explain", "latest", "caf\udce9"], ["not UTF-8"]),
    (["train", "--explanation.pin", "\udcff"], ["not UTF-8"]),
]


def test_a_disk_that_refuses_such_names_is_no_mistake_of_ours(place, capsys, monkeypatch):
    """As macOS does: it says that the name cannot be, where others say that there is none."""
    real = os.stat

    def strict(path, **more):
        if isinstance(path, str) and "\udce9" in path:
            raise OSError(errno.EILSEQ, os.strerror(errno.EILSEQ), path)
        return real(path, **more)

    monkeypatch.setattr(os, "stat", strict)
    with pytest.raises(SystemExit) as left:
        main(["explain", "latest", "caf\udce9"])
    assert left.value.code == 2
    assert "not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=lambda value: ascii(" ".join(value)))
def test_wrong_input_gets_one_line_and_status_2(place, capsys, arguments, words):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert said.startswith("nextword: ")
    assert said.count("\n") == 1
    for word in words:
        assert word.lower() in said.lower()
    assert not (place.folder / "runs").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
@pytest.mark.parametrize(
    "words",
    [("train", "pipe.txt"), ("train", "--recipe", "pipe.txt"), ("prepare", "pipe.txt", "-o", "x")],
)
def test_a_pipe_with_a_name_is_not_waited_for(place, words):
    os.mkfifo(place.folder / "pipe.txt")
    done = place.process(*words, timeout=60)
    assert done.returncode == 2
    assert "pipe.txt" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", b"", "no text"),
        ("short.txt", b"Too short.", "too short"),
        ("bad.txt", b"good \xff bad", "byte 5"),
        ("cut.txt.gz", gzip.compress(b"some text " * 500, mtime=0)[:50], "cut short"),
        ("a.jsonl", b'{"other": "x"}\n', "line 1"),
    ],
)
def test_a_bad_text_trains_nothing_and_leaves_nothing(place, capsys, name, content, words):
    (place.folder / name).write_bytes(content)
    with pytest.raises(SystemExit) as left:
        main(["train", name])
    assert left.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert words in said
    assert not (place.folder / "runs").exists()


def test_standard_input_and_both_spellings_of_an_option(place):
    text = "We are all humans born to make mistakes.\n" * 300
    options = ["--vocabulary.kind=char", "--training.steps", "3", "--training.evaluate_every", "2"]
    done = place.process("train", "-", *options, "--name", "in", stdin=text.encode())
    assert done.returncode == 0, done.stderr
    facts = json.loads((place.folder / "runs" / "in" / "run.json").read_text())
    assert facts["corpus"]["bytes"] == len(text)


def test_an_existing_name_is_never_overwritten(shared, small_run):
    done = shared.process("train", "--name", small_run)
    assert done.returncode == 2
    assert "exists already" in done.stderr


def test_quiet_says_nothing_and_json_says_it_all(place):
    done = place.process(
        "train", "--corpus.stories", "200", "--training.steps", "2", "--quiet", "--json"
    )
    assert done.returncode == 0
    assert done.stderr == ""
    values = json.loads(done.stdout)
    assert values["nats_per_token"] > 0
    assert values["run"].endswith("stories-1")


def test_a_recipe_is_overruled_by_what_is_given(place):
    (place.folder / "r.toml").write_text(
        "[training]\nsteps = 50\nevaluate_every = 2\n[corpus]\nstories = 200\n"
    )
    done = place.nextword("train", "--recipe", "r.toml", "--training.steps", "3", "--quiet")
    assert done.returncode == 0, done.stderr
    from nextword.settings import read_recipe, resolve

    settings = resolve(read_recipe(place.folder / "runs" / "stories-1" / "settings.toml"))
    assert (settings.training.steps, settings.training.evaluate_every, settings.corpus.stories) == (
        3,
        2,
        200,
    )


@pytest.mark.parametrize("which", ["", "@last", "@best", "@6", "@12"])
def test_checkpoints_are_found(shared, small_run, which):
    done = shared.nextword("predict", small_run + which, "Once", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["candidates"]) == 10


def test_a_wrong_checkpoint_lists_those_there_are(shared, small_run):
    done = shared.nextword("generate", small_run + "@7")
    assert done.returncode == 2
    assert "6" in done.stderr
    assert "12" in done.stderr


def test_a_path_to_a_checkpoint_is_a_model_folder(shared, small_run):
    path = shared.folder / "runs" / small_run / "checkpoints" / "step-000006"
    done = shared.nextword(
        "generate",
        str(path),
        "Once",
        "--max_tokens",
        "3",
        "--seed",
        "1",
        "--samples",
        "2",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["texts"]) == 2


def test_show_prints_the_arithmetic(shared, small_run):
    done = shared.nextword(
        "generate", small_run, "Once", "--show", "--max-tokens", "3", "--seed", "0"
    )
    assert done.returncode == 0
    assert done.stdout.count("logit") == 3
    assert done.stdout.count(" → id ") == 3


def test_evaluating_the_holdout_gives_what_training_said(shared, small_run):
    done = shared.nextword("evaluate", small_run + "@last", "--json")
    values = json.loads(done.stdout)
    lines = (shared.folder / "runs" / small_run / "metrics.jsonl").read_text().splitlines()
    last = [json.loads(line) for line in lines if '"evaluation"' in line][-1]
    assert values["nats_per_token"] == pytest.approx(last["nats_per_token"], abs=1e-5)
    assert values["bits_per_byte"] == pytest.approx(last["bits_per_byte"], abs=1e-5)
    assert values["floor_nats_per_token"] < values["nats_per_token"]


def test_evaluating_a_file(shared, small_run, tmp_path):
    file = tmp_path / "own.txt"
    file.write_text("Long ago, a kind man lived here.")
    done = shared.nextword("evaluate", small_run, str(file), "--json")
    values = json.loads(done.stdout)
    assert (values["documents"], values["bytes"]) == (1, 32)


def test_runs_are_listed(shared, small_run):
    rows = json.loads(shared.nextword("runs", "--json").stdout)["runs"]
    assert any(row["name"] == small_run and row["steps"] == 12 for row in rows)
    assert small_run in shared.nextword("runs").stdout


def test_lessons_of_a_text(shared, small_run):
    done = shared.nextword("targets", "We are all humans born to make mistakes")
    assert done.stdout.splitlines()[0] == '"We" → " are"'
    assert done.stdout.splitlines()[-1] == '"We are all humans born to make" → " mistakes"'
    rows = json.loads(
        shared.nextword("targets", "We are all", "--run", small_run, "--json").stdout
    )["lessons"]
    assert "".join([rows[-1]["context"], rows[-1]["target"]]) == "We are all"


def test_pieces_and_ids(shared, small_run):
    values = json.loads(shared.nextword("vocabulary", small_run, "We are", "--json").stdout)
    assert "".join(row["piece"] for row in values["pieces"]) == "We are"
    id_ = values["pieces"][0]["id"]
    assert (
        values["pieces"][0]["piece"]
        in shared.nextword("vocabulary", small_run, "--id", str(id_)).stdout
    )
    assert shared.nextword("vocabulary", small_run, "--id", "99999").returncode == 2


def test_a_public_folder_takes_every_verb(place):
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    from nextword.vocabulary.options import VocabularySettings
    from nextword.vocabulary.train import train_vocabulary

    torch.manual_seed(0)
    vocabulary = train_vocabulary(["We are all humans"], 100, VocabularySettings(kind="byte"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=vocabulary.tokenizer, eos_token="<|endoftext|>"
    )
    tokenizer.save_pretrained("public")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    config = Qwen3Config(vocab_size=259, **sizes, **heads)
    Qwen3ForCausalLM(config).save_pretrained("public")
    (place.folder / "own.txt").write_text("We are all humans")
    for arguments in (
        ["generate", "public", "We", "--max-tokens", "3"],
        ["predict", "public", "We"],
        ["evaluate", "public", "own.txt"],
        ["vocabulary", "public", "We are"],
        ["targets", "We are", "--run", "public"],
    ):
        done = place.nextword(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)
    done = place.nextword("evaluate", "public")
    assert done.returncode == 2
    assert "no hold-out of its own" in done.stderr


def test_every_option_is_taken_by_each_name_that_the_help_gives_it():
    names = [
        (verb, name)
        for verb in program.app.resolved_commands()
        if not verb.startswith("-")
        for argument in program.app[verb].assemble_argument_collection()
        for name in argument.names
        if name.startswith("--")
    ]
    assert ("train", "--objective.name") in names
    for verb, name in names:
        found = program.app[verb].assemble_argument_collection()
        argument, left_over, _ = found.match(name)
        assert name in argument.names, (verb, name)
        assert left_over == (), (verb, name)
