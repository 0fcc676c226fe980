"""The verbs of the command line.

Nothing heavy is imported before a verb runs, so every --help is instant.
"""

from nextword.cli import asking, looking, making, seeing
from nextword.cli.program import main

__all__ = ["asking", "looking", "main", "making", "seeing"]
