"""docs/gpu.md lists every place of the program that is for a GPU."""

import ast
import re
from pathlib import Path

import nextword

PACKAGE = Path(nextword.__file__).parent
PAGE = PACKAGE.parent / "docs" / "gpu.md"
FOR_A_GPU = re.compile(
    r"is_cuda|torch\.(cuda|xpu|mps)|backends\.mps|\"(cuda|xpu|mps)\"|\.device\.type"
    r"|device\.type\b|\"capturable\"|\"[nx]ccl\"|has_bfloat16\(|_triton\b"
)


def places():
    """Yield (file, function or constant) of every line that is for a GPU."""
    for file in sorted(PACKAGE.rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        if not FOR_A_GPU.search(source):
            continue
        name = file.relative_to(PACKAGE).as_posix()
        for node in ast.parse(source).body:
            written = ast.get_source_segment(source, node) or ""
            if isinstance(node, ast.ClassDef):
                inner = [one for one in node.body if isinstance(one, ast.FunctionDef)]
                for one in inner:
                    if FOR_A_GPU.search(ast.get_source_segment(source, one) or ""):
                        yield name, one.name
            elif isinstance(node, ast.FunctionDef) and FOR_A_GPU.search(written):
                yield name, node.name
            elif isinstance(node, ast.Assign | ast.AnnAssign) and FOR_A_GPU.search(written):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                yield name, ast.unparse(target)


def rows():
    """Return the page's table: (file, place) → what checks it."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 3:
            file, *names = re.findall(r"`([^`]+)`", cells[0])
            for name in names:
                found[file, name] = cells[2]
    return found


def test_every_place_for_a_gpu_is_listed_with_what_checks_it():
    listed = rows()
    assert set(places()) == set(listed)
    for place, check in listed.items():
        tests = re.findall(r"`(tests/[\w/]+\.py)`", check)
        assert tests, place
        for test in tests:
            assert (PACKAGE.parent / test).is_file(), test
