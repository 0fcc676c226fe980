"""From examples that a person prepared to a model that labels, or that answers."""

from nextword.finetune.choose import finetune

__all__ = ["finetune"]
