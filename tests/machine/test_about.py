"""What a report of a mistake needs, and mistakes of the program's own that name it."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import nextword
from nextword.cli import main
from nextword.machine import about as told
from nextword.machine.about import about, cores, describe_about, version_of, versions

HIDING = """
import importlib.metadata as metadata
found = metadata.Distribution.from_name
def hide(name):
    if name in {"nextword", "safetensors"}:
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.Distribution.from_name = hide
"""


def run_cli(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    return left.value.code or 0, capsys.readouterr()


def test_a_source_tree_that_is_not_installed_trains_and_says_what_it_does_not_know(place):
    house = Path(nextword.__file__).parent
    shutil.copytree(house, place.folder / "nextword", ignore=shutil.ignore_patterns("__pycache__"))
    (place.folder / "sitecustomize.py").write_text(HIDING)
    (place.folder / "t.txt").write_text("the good cat sat on the warm mat.\n" * 60)
    options = ["--training.steps", "1", "--vocabulary.kind", "byte", "--model.context", "32"]
    done = subprocess.run(
        [sys.executable, "-m", "nextword", "train", "t.txt", "--name", "bare", *options],
        cwd=place.folder,
        env={**place.environment(), "PYTHONPATH": str(place.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads((place.folder / "runs" / "bare" / "run.json").read_text())
    assert facts["versions"]["safetensors"] == "unknown"
    assert facts["versions"]["nextword"] == nextword.__version__
    assert facts["versions"]["torch"] == version("torch")


def test_versions_are_those_installed_unknown_or_missing(monkeypatch):
    assert versions()["tokenizers"] == version("tokenizers")
    assert version_of("no_such_package") == "not installed"

    def nothing(name):
        raise told.PackageNotFoundError(name)

    monkeypatch.setattr(told, "version", nothing)
    assert version_of("json") == "unknown"


def test_version_alone_is_one_word_and_imports_no_torch():
    code = (
        "import sys\nfrom nextword.cli import main\n"
        "try: main(['--version'])\nexcept SystemExit: pass\n"
        "sys.exit(int('torch' in sys.modules or 'nextword.machine.about' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout == f"{nextword.__version__}\n"


def test_verbose_says_what_a_report_needs(capsys):
    status, said = run_cli(capsys, "--version", "--verbose")
    assert status == 0
    lines = dict(line.split("  ", 1) for line in said.out.splitlines() if line[0] != " ")
    lines = {name: value.strip() for name, value in lines.items()}
    assert lines["nextword"] == nextword.__version__
    assert lines["torch"] == version("torch")
    assert lines["threads"] == str(torch.get_num_threads())
    assert lines["devices"].startswith("cpu: ")
    assert lines["chosen"].split(", ")[1] in ("float32", "bfloat16")
    assert lines["cores"].endswith(str(os.cpu_count()))
    assert {"python", "platform", "transformers", "triton", "driver", "memory"} <= lines.keys()
    status, said = run_cli(capsys, "--version", "--verbose", "--json")
    assert json.loads(said.out).keys() == lines.keys()


@pytest.mark.gpu
def test_verbose_names_the_card_and_its_driver():
    if not torch.cuda.is_available():
        pytest.skip("no accelerator")
    facts = about()
    assert torch.cuda.get_device_name(0) in facts["devices"][1]
    assert facts["chosen"].startswith("cuda")
    assert facts["driver"][0].isdigit()
    assert "CUDA" in facts["torch built for"] or "ROCm" in facts["torch built for"]


def test_a_torch_that_cannot_be_imported_is_said_and_the_rest_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    facts = about()
    assert "torch cannot say (" in facts["devices"]
    assert facts["python"] == versions()["python"]
    assert "memory" in describe_about(facts)


def test_fewer_cores_than_there_are_is_said(monkeypatch):
    monkeypatch.setattr(told.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(told.os, "sched_getaffinity", lambda which: {0, 5}, raising=False)
    assert cores() == "2 of 64"


def test_a_driver_is_read_or_asked_for_or_unknown(monkeypatch, tmp_path):
    file = tmp_path / "version"
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu\nGCC 12.2.0\n")
    monkeypatch.setattr(told, "_DRIVERS", (str(tmp_path / "no"), str(file)))
    assert told.driver() == "570.86.15"
    monkeypatch.setattr(told, "_DRIVERS", ())
    monkeypatch.setattr(told.shutil, "which", lambda name: None)
    assert told.driver() == "unknown"
    monkeypatch.setattr(told.shutil, "which", lambda name: sys.executable)  # answers with an error
    assert told.driver() == "unknown"


def test_a_mistake_of_the_programs_own_ends_in_one_line_that_names_it(place, capsys, monkeypatch):
    from nextword import language_model

    def broken(target):
        raise KeyError("planted")

    monkeypatch.setattr(language_model, "load", broken)
    monkeypatch.setattr("tempfile.tempdir", str(place.folder))
    status, said = run_cli(capsys, "predict", "RUN", "x")
    assert status == 1
    (last,) = said.err.splitlines()
    assert last.startswith("nextword: ")
    assert re.search(r"KeyError in test_about\.py, line \d+; nextword \S+, python \S+, torch", last)
    assert "`nextword --version --verbose`" in last
    account = re.search(r"report it: (\S+) holds", last)[1]
    assert "KeyError: 'planted'" in Path(account).read_text()
    status, said = run_cli(capsys, "predict", "RUN", "x", "--debug")
    assert status == 1
    assert "KeyError: 'planted'" in said.err.splitlines()


def test_debug_shows_where_an_error_of_the_users_came_from(place, capsys):
    for words in (["--debug", "predict", "RUN", "x"], ["predict", "RUN", "x", "--debug"]):
        status, said = run_cli(capsys, *words)
        assert status == 2
        assert said.err.startswith("Traceback")
        assert said.err.splitlines()[-1].startswith("nextword: no run 'RUN'")
    status, said = run_cli(capsys, "predict", "RUN", "x")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x.ds"), "x.ds: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), "runs: Permission denied"),
        (MemoryError(), "the memory is not enough"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "CUDA out of memory"),
    ],
    ids=["disk", "closed", "memory", "gpu"],
)
def test_what_the_machine_lacks_is_no_mistake_of_the_program(capsys, monkeypatch, error, words):
    from nextword import language_model

    def full(target):
        raise error

    monkeypatch.setattr(language_model, "load", full)
    status, said = run_cli(capsys, "predict", "RUN", "x")
    assert status == 2
    assert said.err.count("\n") == 1
    assert words in said.err
    assert "report" not in said.err
