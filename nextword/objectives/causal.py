"""Causal language modeling (GPT): predict the next token at every position.

This is the objective of GPT (Radford et al. 2018): self-supervised, for nobody labelled anything.
"""

from torch import Tensor

from nextword.objectives import Objective
from nextword.targets.batch import shift


def documents_of(inputs: Tensor, end_id: int) -> Tensor:
    """Number the documents of each row, from 0 or 1 on.

    A document begins with the end-of-text that closed the one before it, as it does when the model
    is asked later; what an unrelated text said is no context.

    Args:
        inputs: ids, (B, T).
        end_id: the end-of-text token.

    Returns:
        (B, T): the document that each position belongs to.
    """
    return (inputs == end_id).cumsum(dim=1)


OBJECTIVE = Objective(
    name="causal",
    asks="What comes next?",
    supervised=False,
    attention="before",
    head="vocabulary",
    loss=("cross-entropy",),
    metrics=("nats_per_token", "bits_per_byte", "perplexity", "top1_accuracy", "top5_accuracy"),
    layouts=("Qwen3ForCausalLM", "LlamaForCausalLM"),
    make_batch=shift,
    documents=documents_of,
    cannot={
        "fill": "it has read only what stands before a place and not what follows; "
        "ask a run trained with --objective masked, or `nextword predict`",
        "classify": "it gives no labels; `nextword finetune` teaches it some",
    },
)
