"""Supervised fine-tuning: classification, regression, multi-label, prompts and answers."""

from nextword.finetune.task import finetune, resume

__all__ = ["finetune", "resume"]
