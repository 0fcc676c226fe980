"""The verbs of the command line.

Nothing heavy is imported before a verb runs, so every --help is instant.
"""

from nextword.cli import asking, coding, looking, making, seeing
from nextword.cli.program import main

__all__ = ["asking", "coding", "looking", "main", "making", "seeing"]
