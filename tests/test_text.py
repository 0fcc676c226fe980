"""Any text, any vocabulary, as one asks for it on the command line."""

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from nextword.vocabulary.tokenizer import Vocabulary

QUICK = ["--model.context", "32", "--training.steps", "6", "--training.evaluate-every", "3"]


@pytest.fixture
def books(place):
    """A folder of two texts in different formats and a third one beside it."""
    folder = place.folder / "books"
    folder.mkdir()
    (folder / "one.txt").write_text("the cat sat on the mat.\n" * 300)
    rows = "".join(f'"a dog, number {number}, ran"\n' for number in range(300))
    (folder / "two.csv").write_text("text\n" + rows)
    (place.folder / "other.txt").write_text("ships sail far over the sea.\n" * 300)
    return place


def losses(place, name):
    lines = (place.folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
    return [event["loss"] for event in map(json.loads, lines) if event["event"] == "step"]


def test_text_is_prepared_once_for_many_runs(books):
    done = books.nextword("prepare", "books", "-o", "shards", "--vocabulary.kind", "word")
    assert done.returncode == 0, done.stderr
    assert "nextword train shards" in done.stdout
    assert "(word)" in done.stdout
    again = books.nextword(
        "prepare", "books", "-o", "shards", "--vocabulary.kind", "word", "--json"
    )
    facts = json.loads(again.stdout)
    assert facts["documents"] == 301
    assert facts["leaks"]["checked"]
    for name in ("first", "second"):
        done = books.nextword("train", "shards", "--name", name, *QUICK)
        assert done.returncode == 0, done.stderr
        assert "learning the vocabulary" not in done.stderr
    assert losses(books, "first") == losses(books, "second")


def test_a_mixture_trains_says_its_shares_and_resumes_bit_for_bit(books):
    paths = ["books/=2", "other.txt=1"]
    done = books.nextword("train", *paths, "--name", "whole", *QUICK)
    assert done.returncode == 0, done.stderr
    assert re.search(r"books/: 66\.7% of the tokens, [\d.]+ times its [\d,]+ tokens", done.stderr)
    assert "other.txt: 33.3% of the tokens" in done.stderr
    options = ["--training.checkpoint-every", "2"]
    half = [*QUICK[:2], "--training.steps", "6", *options]
    done = books.nextword(
        "train", *paths, "--name", "half", *half, "--training.evaluate-every", "3"
    )
    assert done.returncode == 0, done.stderr
    done = books.nextword("train", "--resume", "half@2")
    assert done.returncode == 0, done.stderr
    assert losses(books, "half") == losses(books, "whole")
    weights = [
        (books.folder / "runs" / name / "checkpoints" / "step-000006" / "model.safetensors")
        for name in ("half", "whole")
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_another_models_vocabulary_is_used(books):
    done = books.nextword("train", "other.txt", "--name", "first", *QUICK)
    assert done.returncode == 0, done.stderr
    source = next((books.folder / "runs" / "first" / "checkpoints").iterdir())
    done = books.nextword(
        "train", "books", "--vocabulary.source", str(source), "--name", "second", *QUICK
    )
    assert done.returncode == 0, done.stderr
    first, second = (
        next((books.folder / "runs" / name / "checkpoints").iterdir()) / "tokenizer.json"
        for name in ("first", "second")
    )
    assert first.read_bytes() == second.read_bytes()


def test_unknown_words_are_counted_and_bits_withheld(books):
    done = books.nextword(
        "train", "other.txt", "--vocabulary.source", "none/tokenizer.json", "--name", "x"
    )
    assert done.returncode == 2
    assert "none/tokenizer.json: no such file" in done.stderr
    (books.folder / "late.txt").write_text("abc abd abe. " * 400 + "xyz xyw. " * 60)
    done = books.nextword("train", "late.txt", "--vocabulary.kind", "word", "--name", "x", *QUICK)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"\d+ tokens \([\d.]+%\) are text that the vocabulary does not hold", done.stderr
    )
    assert "bits per byte are withheld" in done.stderr
    assert "bits/byte" not in done.stderr


def test_vocabularies_are_put_side_by_side(books):
    done = books.nextword("vocabulary", "compare", "books", "--kinds", "bpe,word,byte", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["vocabularies"]
    assert [row["kind"] for row in rows] == ["bpe"] * 3 + ["word"] * 3 + ["byte"]
    byte = rows[-1]
    assert byte["bytes_per_token"] == 1
    assert len(byte["pieces"]) == len("We are all humans born to make mistakes")
    assert 0 < byte["embedding_share"] < rows[0]["embedding_share"] < 1
    done = books.nextword("vocabulary", "compare", "books", "--kinds", "word", "--sizes", "300")
    assert "words" in done.stdout
    assert "pieces" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["vocabulary", "compare", "books", "--kinds", "wrod"], "Did you mean word"),
        (["vocabulary", "compare", "books", "--sizes", "many"], "whole numbers"),
        (["vocabulary", "compare", "nowhere"], "nowhere: no such file or folder"),
        (["prepare", "nowhere", "-o", "made"], "nowhere: no such file or folder"),
        (["train", "nowhere=2", "other.txt=1"], "nowhere: no such file or folder"),
        (["train", "other.txt=0", "books=1"], "a weight must be above 0"),
        (["train", "other.txt", "--corpus.format", "cvs"], "corpus.format = 'cvs'"),
        (["train", "s3://bucket/x.txt"], "s3://bucket/x.txt"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(books, arguments, words):
    done = books.nextword(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (books.folder / "runs").exists()
    assert not (books.folder / "made").exists()


def test_evaluate_reads_other_formats(books):
    done = books.nextword("train", "books", "--name", "model", *QUICK)
    assert done.returncode == 0, done.stderr
    done = books.nextword("evaluate", "model", "books/two.csv", "--json")
    assert json.loads(done.stdout)["documents"] == 300


def test_pieces_are_told_by_script(books):
    done = books.nextword("train", "other.txt", "--name", "model", *QUICK)
    assert done.returncode == 0, done.stderr
    done = books.nextword("vocabulary", "model", "the sea 海海海")
    assert "latin:" in done.stdout
    assert "chinese: 1.0" in done.stdout


def test_a_run_is_a_source_of_its_vocabulary_and_a_dash_is_standard_input(books):
    done = books.nextword("train", "other.txt", "--name", "first", *QUICK)
    assert done.returncode == 0, done.stderr
    done = books.nextword("prepare", "books", "-o", "made", "--vocabulary.source", "first")
    assert done.returncode == 0, done.stderr
    checkpoint = next((books.folder / "runs" / "first" / "checkpoints").iterdir())
    made, first = Vocabulary.load(books.folder / "made"), Vocabulary.load(checkpoint)
    assert made.tokenizer.to_str() == first.tokenizer.to_str()
    done = books.process("predict", "first", "-", "--json", stdin=b"ships sail\n")
    assert json.loads(done.stdout)["prompt"] == "ships sail"


def test_ctrl_c_while_preparing_says_that_the_same_command_goes_on(books, monkeypatch, capsys):
    from nextword.cli import main
    from nextword.vocabulary import training_data

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(training_data, "gather", stop)
    with pytest.raises(SystemExit) as left:
        main(["prepare", "other.txt", "-o", "made"])
    assert left.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err


def code_blocks(page):
    text = (Path(__file__).parents[1] / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.S)


def test_the_page_about_scale_names_what_datatrove_has(monkeypatch):
    """The Slurm script is built as the page shows it; only its sending off is left out."""
    from datatrove.executor import SlurmPipelineExecutor

    monkeypatch.setattr(SlurmPipelineExecutor, "run", lambda self: None)
    slurm, ray = code_blocks("scale.md")
    scope = {}
    exec(slurm, scope)
    assert scope["SlurmPipelineExecutor"] is SlurmPipelineExecutor
    import inspect

    from datatrove.executor import RayPipelineExecutor

    known = inspect.signature(RayPipelineExecutor.__init__).parameters
    for name in re.findall(r"^    (\w+)=", ray, re.M):
        assert name in known


def test_nothing_heavy_is_imported_for_help():
    import subprocess

    code = (
        "import sys\nfrom nextword.cli import main\n"
        "try: main(['prepare', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'datasets', 'pyarrow', 'fsspec', 'tokenizers', 'rensa', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
        "sys.exit(len(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "layers", "dropout"),
    [
        ([], 3, 0.1),
        (["--model.context", "32"], 2, 0.0),  # whoever says a size is given no other by the text
        (["--model.depth", "3", "--training.soft-targets", "0"], 3, 0.0),
        (["--model.depth", "4", "--training.dropout", "0.3"], 4, 0.3),
        (["--objective", "masked"], 2, 0.0),
    ],
)
def test_a_small_text_of_ones_own_is_given_a_third_layer(books, options, layers, dropout):
    done = books.nextword("train", "other.txt", "--name", "it", "--training.steps", "1", *options)
    assert done.returncode == 0, done.stderr
    run = books.folder / "runs" / "it"
    assert json.loads((run / "run.json").read_text())["shape"]["num_hidden_layers"] == layers
    assert tomllib.loads((run / "settings.toml").read_text())["training"]["dropout"] == dropout
    assert (f"{dropout:.0%} of the channels" in done.stderr) == (dropout > 0)


def test_a_mixture_and_the_stories_have_two_layers(books):
    for words in (["books=1", "other.txt=1"], ["--corpus.stories", "60"]):
        done = books.nextword(
            "train", *words, "--name", "it-" + words[0][:2], "--training.steps", "1"
        )
        assert done.returncode == 0, done.stderr
        assert "network     2 layers" in done.stderr
