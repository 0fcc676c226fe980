"""The prose that every Python installation carries.

Language-reference topics and the library's docstrings.

Real English, about 2 MB, written by many hands. Sources are parsed with `ast`; nothing is imported
or run.
"""

import ast
import inspect
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from nextword.base.errors import CorpusError

MIN_DOCSTRING = 80
_SKIPPED = {
    "test",
    "tests",
    "idlelib",
    "site-packages",
    "lib2to3",
    "turtledemo",
    "__pycache__",
    "ensurepip",
    "encodings",
}


def read_python_prose(library: Path | None = None) -> Iterator[str]:
    """Yield one document a topic and one a module, in a fixed order.

    Args:
        library: the standard library's folder (default: of the Python that runs).

    Raises:
        CorpusError: this Python came without the sources of its library.
    """
    folder = library or Path(sysconfig.get_path("stdlib"))
    files = sorted(
        file for file in folder.rglob("*.py") if not _SKIPPED & set(file.relative_to(folder).parts)
    )
    if not files:
        raise CorpusError(
            f"{folder}: this Python has no sources of its library; train on a text of your own"
        )
    for file in files:
        tree = _parse(file)
        if tree is None:
            continue
        if file.parent.name == "pydoc_data":
            yield from _topics(tree)
        elif prose := _docstrings(tree):
            yield prose


def _parse(file: Path) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return None  # a file that is broken on purpose, for the library's own tests


def _topics(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for value in node.value.values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value.strip() + "\n"


def _docstrings(tree: ast.Module) -> str:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (
        ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, kinds)
    )
    texts = (inspect.cleandoc(text) for text in found if text and len(text) >= MIN_DOCSTRING)
    return "".join(text + "\n\n" for text in dict.fromkeys(texts) if text)
