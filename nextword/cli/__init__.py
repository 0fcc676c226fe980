"""The verbs of the command line.

Nothing heavy is imported before a verb runs, so every --help is instant.
"""

from nextword.cli import compress, explain, inspect, predict, serve, train
from nextword.cli.program import main

__all__ = ["compress", "explain", "inspect", "main", "predict", "serve", "train"]
