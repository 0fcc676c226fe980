"""The verbs of the command line: a file for each group of them, and for what they share.

Nothing heavy is imported before a verb runs, so every --help is instant.
"""

from nextword.cli import (
    chat,
    completion,
    compress,
    explain,
    export,
    inspect,
    plan,
    predict,
    serve,
    train,
)
from nextword.cli.examples import show_examples
from nextword.cli.program import app, main

show_examples(app)

__all__ = [
    "chat", "completion", "compress", "explain", "export", "inspect", "main", "plan", "predict",
    "serve", "train",
]  # fmt: skip
