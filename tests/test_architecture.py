"""The house itself: imports go left only, help imports no torch, files stay small."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nextword

HOUSE = Path(nextword.__file__).parent
LEFT = ["base", "machine", "corpus", "vocabulary", "targets", "kernels"]
RIGHT = [
    "model",
    "loss",
    "objectives",
    "training",
    "prediction",
    "explanation",
    "rendering",
    "settings",
    "warm_start",
    "run",
    "callbacks",
    "fit",
    "language_modeling",
    "forecast",
    "pretrain",
    "finetune",
    "language_model",
    "api",
    "serve",
    "watch",
    "track",
    "evals",
    "export",
    "cli",
]
ORDER = LEFT + RIGHT
ONLY_BASE_MACHINE_AND_KERNELS = {"model", "loss", "kernels"}
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


def imports_of(file: Path, house: str = "nextword") -> list[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{file}: a relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if name.startswith(f"{house}.")]


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
        if room in ONLY_BASE_MACHINE_AND_KERNELS:
            assert other in {"base", "machine", "kernels", room}, f"{file} imports {name}"
        if room == "training":
            assert other not in {"prediction", "explanation", "rendering"}


def module_of(file: Path, house: Path) -> str:
    parts = file.relative_to(house.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_between(house: Path) -> dict[str, set[str]]:
    """Draw who imports whom, also within functions."""
    files = {module_of(file, house): file for file in house.rglob("*.py")}
    drawn: dict[str, set[str]] = {name: set() for name in files}
    for name, file in files.items():
        for imported in imports_of(file, house.name):
            parts = imported.split(".")
            known = (".".join(parts[:n]) for n in range(len(parts), 1, -1))
            drawn[name] |= {next((one for one in known if one in files), name)} - {name}
    return drawn


def circles(drawn: dict[str, set[str]]) -> list[list[str]]:
    """Find groups of modules in which each reaches each other (Tarjan's strong components)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack, found = [], []

    def visit(name):
        order[name] = lowest[name] = len(order)
        stack.append(name)
        for other in sorted(drawn[name]):
            if other not in order:
                visit(other)
            if other in stack:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == order[name]:
            place = stack.index(name)
            group = stack[place:]
            del stack[place:]
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(drawn):
        if name not in order:
            visit(name)
    return found


def test_no_modules_import_each_other_in_a_circle():
    assert circles(imports_between(HOUSE)) == []


@pytest.mark.parametrize("length", [2, 3, 7])
def test_a_circle_of_any_length_is_found(tmp_path, length):
    house = tmp_path / "house"
    house.mkdir()
    for number in range(length):
        after = (number + 1) % length
        line = f"import house.m{after}" if number % 2 else f"from house.m{after} import x"
        hidden = f"def f():\n    {line}\n" if number == 0 else f"{line}\n"
        (house / f"m{number}.py").write_text(hidden)
    (house / "apart.py").write_text("import house.m0\n")
    assert circles(imports_between(house)) == [[f"house.m{n}" for n in range(length)]]


def test_every_room_stands_in_the_order():
    rooms = {
        entry.name.removesuffix(".py")
        for entry in HOUSE.iterdir()
        if not entry.name.startswith("_") and entry.name != "py.typed"
    }
    assert rooms == set(ORDER)


@pytest.mark.parametrize("folder", ["nextword", "tests", "benchmarks", "docs"])
def test_files_stay_under_400_lines(folder):
    for file in (HOUSE.parent / folder).rglob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 400, file


FOLDERS = sorted(file.parent.relative_to(HOUSE).as_posix() for file in HOUSE.rglob("__init__.py"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_more_than_a_dozen_files_says_what_each_is_for(folder):
    if len(list((HOUSE / folder).glob("*.py"))) > 12:
        first = (HOUSE / folder / "__init__.py").read_text(encoding="utf-8").splitlines()[0]
        assert "a file for each" in first


def test_architecture_fits_two_screens_and_names_what_there_is():
    page = (HOUSE.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert len(page.splitlines()) <= 120
    for name in set(re.findall(r"`(\w+(?:/\w+)*/\w*\.py)`", page)):
        places = (HOUSE / name, HOUSE.parent / name)
        assert any(place.is_file() for place in places), name
    order = re.sub(r"\s", "", page[page.index("base < ") : page.index("| room |")]).split("<")
    assert order == ORDER


def test_public_names_are_these():
    assert nextword.__all__ == sorted(nextword._PLACES)
    assert set(nextword.__all__) <= set(dir(nextword))
    assert (HOUSE / "py.typed").is_file()
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


OTHERWISE = {"Broken", "Interrupted", "Unusable", "_DamageError", "DisagreementError"}
"""What is no error of the user's: somebody asked to stop; or it is caught within its own room."""


def test_errors_are_one_tree():
    """Who catches NextwordError catches all that is raised on purpose; one place draws it."""
    known, tree = {"NextwordError"}, (HOUSE / "base" / "errors.py").read_text(encoding="utf-8")
    classes = [
        node
        for file in sorted(HOUSE.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    bases = {node.name: {ast.unparse(base) for base in node.bases} for node in classes}
    for _ in bases:
        known |= {name for name, above in bases.items() if above & known}
    raised = {name for name, above in bases.items() if above & {"Exception", "BaseException"}}
    assert raised - OTHERWISE == {"NextwordError"}
    assert known > {"ApiError", "DivergedError"}
    for name in known:
        assert re.search(rf"[├└]── {name} ", tree) or name == "NextwordError", name
