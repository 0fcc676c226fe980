"""The house itself: imports go left only, help imports no torch, files stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nextword

HOUSE = Path(nextword.__file__).parent
LEFT = ["base", "machine", "corpus", "vocabulary", "targets", "model", "loss", "objectives"]
RIGHT = [
    "training",
    "prediction",
    "explanation",
    "settings",
    "origin",
    "run",
    "milestones",
    "pretrain",
    "finetune",
    "api",
    "cli",
]
ORDER = LEFT + RIGHT
ONLY_BASE_AND_MACHINE = {"model", "loss"}
NO_TORCH = [
    "nextword",
    "nextword.cli",
    "nextword.settings",
    "nextword.base.errors",
    "nextword.corpus.documents",
    "nextword.corpus.builtin",
    "nextword.vocabulary.train",
    "nextword.targets.batch",
]


def imports_of(file: Path) -> list[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if name.startswith("nextword.")]


def room_of(file: Path) -> str:
    return file.relative_to(HOUSE).parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "file", sorted(HOUSE.rglob("*.py")), ids=lambda file: str(file.relative_to(HOUSE))
)
def test_a_room_imports_only_from_rooms_to_its_left(file):
    room = room_of(file)
    if room in ("__init__", "__main__"):
        return
    for name in imports_of(file):
        other = name.split(".")[1]
        if other == "__version__":
            continue
        assert ORDER.index(other) <= ORDER.index(room), f"{file} imports {name}"
        if room in ONLY_BASE_AND_MACHINE:
            assert other in {"base", "machine", room}, f"{file} imports {name}"
        if room == "training":
            assert other not in {"prediction", "explanation"}


def test_every_room_stands_in_the_order():
    rooms = {
        entry.name.removesuffix(".py")
        for entry in HOUSE.iterdir()
        if not entry.name.startswith("_")
    }
    assert rooms == set(ORDER)


@pytest.mark.parametrize(
    "file", sorted(HOUSE.rglob("*.py")), ids=lambda file: str(file.relative_to(HOUSE))
)
def test_files_stay_under_400_lines(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400


def test_public_names_are_these():
    assert nextword.__all__ == ["Model", "linear_cross_entropy", "load", "train"]
    assert nextword.__all__ == sorted(nextword.__all__)
    for name in nextword.__all__:
        assert getattr(nextword, name).__doc__


@pytest.mark.parametrize("module", NO_TORCH)
def test_importing_it_imports_no_torch(module):
    code = f"import sys, {module}; sys.exit(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["generate", "--help"],
        ["train", "--model.dept", "3"],
        ["train", "missing.txt"],
    ],
)
def test_help_and_wrong_input_import_no_torch(arguments):
    code = (
        "import sys\nfrom nextword.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "sys.exit(int('torch' in sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode
        == 0
    )


def test_no_pickle_is_read():
    for file in HOUSE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert "pickle" not in text.replace("No pickle", "")
        assert "torch.load" not in text
