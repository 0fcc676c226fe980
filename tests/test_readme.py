"""The README's commands are run, and its options exist."""

import re
import shlex
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def commands():
    blocks = re.findall(r"```console\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [line for line in lines if line.startswith("nextword ")]


def test_the_commands_on_the_default_run_work(shared, default_run, small_run):
    asked = [line for line in commands() if not line.startswith("nextword train")]
    assert {shlex.split(line)[1] for line in asked} == {
        "generate", "predict", "evaluate", "targets", "vocabulary", "runs", "prepare",
        "explain", "audit", "replay", "ruler", "compress", "decompress", "report",
        "fill", "finetune", "classify", "compare", "--version",
    }  # fmt: skip
    text = "We are all humans born to make mistakes, and to learn from them.\n" * 200
    (shared.folder / "book.txt").write_text(text)
    names = ("Ada", "Adam", "Eva", "Fred", "Dora", "Leo", "Lily", "John", "Anna", "Frank")
    rows = "".join(f"{name} was a clerk.,{'ab'[n % 2]}\n" for n, name in enumerate(names))
    (shared.folder / "labels.csv").write_text(f"text,label\n{rows}")
    few = ("--training.steps", "4", "--corpus.stories", "400")
    masked = shared.nextword("train", "--objective", "masked", "--name", "both", *few)
    assert masked.returncode == 0, masked.stderr
    for line in asked:
        done = shared.nextword(*shlex.split(line)[1:])
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert (done.stderr if "finetune" in line else done.stdout).strip()


def test_the_training_commands_have_known_options():
    from nextword.settings import all_options

    known = {"--" + option.path.replace("_", "-") for option in all_options()}
    known |= {"--name", "--recipe", "--resume", "--quiet", "--json", "--objective", "--from"}
    asked = [line for line in commands() if line.startswith("nextword train")]
    assert len(asked) >= 3
    for line in asked:
        for word in shlex.split(line.split("#")[0]):
            assert not word.startswith("--") or word in known, line
