"""Optional dependencies: imported where they are needed, and named in one line where missing."""

import importlib
from typing import Any

from nextword.base.errors import CorpusError

LONGEST_QUOTE = 300


def import_package(package: str, needed_for: str, extra: str = "hub") -> Any:
    """Import a package of an extra.

    Args:
        package: its name, dotted for a part of it.
        needed_for: the file or address that cannot be read without it.
        extra: of this program, that installs it.

    Raises:
        CorpusError: it is not installed; the message names the pip command.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        what = f"the package {package.split('.')[0]}"
        raise missing_package(needed_for, what, extra) from None


def missing_package(needed_for: str, what: str, extra: str = "hub") -> CorpusError:
    """Say how to install what a file or address cannot be read without."""
    return CorpusError(f"{needed_for}: reading this needs {what}; pip install 'nextword[{extra}]'")


def one_line(error: Exception) -> str:
    """Quote another package's error on one line of bounded length."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= LONGEST_QUOTE else words[:LONGEST_QUOTE] + "…"
