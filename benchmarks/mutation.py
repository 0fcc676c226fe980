"""Which planted mistakes do the tests notice, in loss, split, packing and evaluation?

    python benchmarks/mutation.py                    (about five minutes an area on two quiet cores)
    python benchmarks/mutation.py split --name before --commit 4a71fc2

mutmut (pip install -e '.[mutation]') writes the mutants and runs, for each, the fast tests that
reach it, in a copy of this folder or of a commit. Of each area at most 60 mutants are drawn, the
same ones every time, shared out evenly among its files. Left out are mutants that change nothing
but the words of a message. Writes results/mutation.json under the name given; what survived is
listed.
"""

import argparse
import ast
import json
import os
import platform
import random
import shutil
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "mutation.json"
MOST, SEED = 60, 0
AREAS = {
    "loss": (
        ["loss/cross_entropy.py", "loss/bits.py", "kernels/loss_rows.py", "kernels/loss_chunks.py"],
        [
            "loss/test_cross_entropy.py",
            "kernels/test_loss_rows.py",
            "loss/test_linear.py",
            "loss/test_linear_use.py",
        ],
    ),
    "split": (["corpus/split.py"], ["corpus/test_split.py"]),
    "packing": (
        ["objectives/answer.py", "targets/batch.py", "targets/windows.py"],
        ["finetune/test_answers.py", "targets", "objectives", "library/test_training.py"],
    ),
    "evaluation": (["prediction/evaluate.py"], ["prediction/test_evaluate.py"]),
}
STATUS = {0: "survived", 5: "no test", 33: "no test"}
"""By exit code; all others are a failing test, a crash or a loop without end: noticed."""
CONFIGURATION = """
[tool.mutmut]
source_paths = ["nextword"]
only_mutate = {files}
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-n0", "-p", "no:cacheprovider", {fast}]
also_copy = ["benchmarks", "README.md", "docs", "recipes", "examples"]
"""


def copy_checkout(folder: Path, commit: str | None) -> None:
    """Copy what git knows of here, or what a commit holds."""
    if commit:
        archive = ["git", "archive", commit]
        packed = subprocess.run(archive, cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "x"], cwd=folder, input=packed, check=True)
        return
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def mutmut(folder: Path, *names: str) -> int:
    """Run mutmut on mutants by name, with one thread; nothing is imported from elsewhere."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "NEXTWORD_CACHE": str(folder / "cache")}
    environment["CI"] = "1"  # Hypothesis then draws the same every time, and minds no clock
    words = ["mutmut", "run", "--max-children", str(os.cpu_count() or 1), *names]
    with open(folder / "said.txt", "a", encoding="utf-8") as said:
        return subprocess.run(
            words, cwd=folder, env=environment, stdout=said, stderr=said, check=False
        ).returncode


def without_messages(function: ast.AST) -> str:
    """Return code with every text that holds a blank, and the function's name, taken out."""
    for node in ast.walk(function):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            node.value = ""
        if isinstance(node, ast.FunctionDef):
            node.name = "f"
    return ast.unparse(function)


def mutants_of(folder: Path, file: str) -> list[str]:
    """Name the mutants of a file that change more than a message."""
    path = folder / "mutants" / file
    functions = {
        node.name: node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    plain = {name: without_messages(node) for name, node in functions.items()}
    meta = json.loads(path.with_name(path.name + ".meta").read_text(encoding="utf-8"))
    names = []
    for name in meta["exit_code_by_key"]:
        function = name.rpartition(".")[2]
        original = function.rpartition("__mutmut_")[0] + "__mutmut_orig"
        if plain[function] != plain[original]:
            names.append(name)
    return sorted(names)


def draw(by_file: dict[str, list[str]]) -> list[str]:
    """Draw mutants in turn from each file until there are enough or none left."""
    source = random.Random(SEED)
    shuffled = [source.sample(names, len(names)) for names in by_file.values()]
    turns = [names[turn] for turn in range(max(map(len, shuffled))) for names in shuffled
             if turn < len(names)]  # fmt: skip
    return sorted(turns[:MOST])


def judge(area: str, commit: str | None) -> dict:
    """Plant the mistakes of one area and count those that the tests notice."""
    files, tests = AREAS[area]
    files = [f"nextword/{name}" for name in files]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_checkout(folder, commit)
        configuration = folder / "pyproject.toml"
        there = configuration.read_text(encoding="utf-8")
        lines = CONFIGURATION.format(
            files=json.dumps(files),
            tests=json.dumps([f"tests/{one}" for one in tests]),
            fast='"-m", "not slow"' if '"slow: ' in there else "",
        )
        configuration.write_text(there + lines, encoding="utf-8")
        mutmut(folder, "none-is-called-this")  # only writes the mutants
        by_file = {file: mutants_of(folder, file) for file in files}
        drawn = draw(by_file)
        mutmut(folder, *drawn)
        codes = {}
        for file in files:
            meta = (folder / "mutants" / f"{file}.meta").read_text(encoding="utf-8")
            codes |= json.loads(meta)["exit_code_by_key"]
        found = {name: codes[name] for name in drawn}
        if None in found.values():
            raise SystemExit((folder / "said.txt").read_text(encoding="utf-8")[-4000:])
    left = {name: STATUS[code] for name, code in found.items() if code in STATUS}
    return {
        "mutants": sum(map(len, by_file.values())),
        "drawn": len(drawn),
        "noticed": len(drawn) - len(left),
        "score": round(1 - len(left) / len(drawn), 3),
        "seconds": round(time.perf_counter() - began),
        "left": left,
    }


def main() -> None:
    """Judge the areas named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("areas", nargs="*", help=f"of {', '.join(AREAS)}; default: all")
    parser.add_argument("--name", default="after", help="under which the results are written")
    parser.add_argument("--commit", help="judge what it holds, instead of what is here")
    given = parser.parse_args()
    if unknown := set(given.areas) - set(AREAS):
        parser.error(f"no area {', '.join(unknown)}; choose from {', '.join(AREAS)}")
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for area in given.areas or AREAS:
        load = os.getloadavg()
        found = judge(area, given.commit)
        results.setdefault(given.name, {})[area] = {
            "date": time.strftime("%Y-%m-%d"),
            "mutmut": version("mutmut"),
            "python": platform.python_version(),
            "load_before": load,
            **found,
        }
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        print(area, json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
