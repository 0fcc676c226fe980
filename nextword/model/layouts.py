"""config.json: a network's sizes in the layouts of Qwen3, Llama, EuroBERT, read and written.

    Qwen3ForCausalLM      causal, queries and keys normalized
    LlamaForCausalLM      causal, without that norm
    EuroBertForMaskedLM   to both sides, without that norm

and of each the form with labels, …ForSequenceClassification.
"""

from pathlib import Path
from typing import Any, NamedTuple

from nextword.base.errors import ModelError, SettingsError
from nextword.model.config import Config
from nextword.model.shape import Shape

LABELS = "ForSequenceClassification"
SEVERAL = "multi_label_classification"
POOLINGS = ("mean", "late", "bos")
"""How EuroBERT's form with labels makes one vector of a text: the average of all states before or
after one more layer, or the state at the first token."""


class Layout(NamedTuple):
    """What sets a kind of network apart."""

    name: str
    """Of its classes."""
    qk_norm: bool
    causal: bool

    @property
    def language_model(self) -> str:
        """Name of its class with a vocabulary as head."""
        return self.name + ("ForCausalLM" if self.causal else "ForMaskedLM")


KINDS = {
    "qwen3": Layout("Qwen3", qk_norm=True, causal=True),
    "llama": Layout("Llama", qk_norm=False, causal=True),
    "eurobert": Layout("EuroBert", qk_norm=False, causal=False),
}
"""By `model_type`."""


class Ids(NamedTuple):
    """Entries of the vocabulary that a configuration names."""

    end: int
    pad: int | None = None
    mask: int | None = None
    more_ends: tuple[int, ...] = ()
    """At which writing stops too, beside `end`."""


class LabelHead(NamedTuple):
    """What the outputs of a head with labels stand for."""

    names: tuple[str, ...]
    """One for each class; a single one for a number."""
    is_number: bool
    pooling: str = POOLINGS[0]
    several: bool = False
    """Whether a text may have any number of the classes, each said yes or no to."""

    @property
    def problem_type(self) -> str:
        """What Hugging Face's layouts call this."""
        if self.is_number:
            return "regression"
        return SEVERAL if self.several else "single_label_classification"


def kind_of(shape: Shape) -> str:
    """Return the `model_type` of a network."""
    wanted = (shape.qk_norm, shape.causal)
    return next(kind for kind, layout in KINDS.items() if (layout.qk_norm, layout.causal) == wanted)


def config_of(shape: Shape, ids: Ids, labels: LabelHead | None = None) -> dict[str, Any]:
    """Return config.json's content, every field written out.

    Args:
        shape: the network's sizes.
        ids: entries to name.
        labels: of a head with labels; None for the vocabulary as head.
    """
    kind = kind_of(shape)
    layout = KINDS[kind]
    config: dict[str, Any] = {
        "architectures": [layout.name + LABELS if labels else layout.language_model],
        "model_type": kind,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "rope_scaling": None,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": layout.causal,
        "bos_token_id": ids.end,
        "eos_token_id": ids.end,
        "pad_token_id": ids.pad,
        "dtype": "float32",
        "torch_dtype": "float32",
    }
    if shape.qk_norm:
        layers = ["full_attention"] * shape.num_hidden_layers
        config.update(
            use_sliding_window=False,
            sliding_window=None,
            max_window_layers=shape.num_hidden_layers,
            layer_types=layers,
        )
    else:
        config.update(mlp_bias=False, pretraining_tp=1)
    if not layout.causal:
        config.update(
            mask_token_id=ids.mask, classifier_pooling=labels.pooling if labels else POOLINGS[0]
        )
    if labels is not None:
        config.update(
            id2label={str(number): name for number, name in enumerate(labels.names)},
            label2id={name: number for number, name in enumerate(labels.names)},
            num_labels=len(labels.names),
            problem_type=labels.problem_type,
        )
        if ids.pad is None:
            config["pad_token_id"] = ids.end  # of several texts at once the shorter are filled up
    return config


def shape_of(config: Config, file: Path) -> Shape:
    """Read the sizes from config.json.

    Args:
        config: its content.
        file: where it stands, for messages.

    Raises:
        ModelError: it describes a network that is not known here; the field is named.
    """
    _layout_of(config, file)
    _refuse_unknown(file, config)
    shape = sizes_of(config, file)
    if shape.head_dim * shape.context > MOST_ANGLES:
        raise ModelError(
            f"{file}: max_position_embeddings = {shape.context:,} with heads "
            f"{shape.head_dim} wide: positions need more room than is lent to them here"
        )
    return shape


def sizes_of(config: Config, file: Path) -> Shape:
    """Read the sizes alone, of a network that may be turned or scaled in ways not known here.

    Args:
        config: its content.
        file: where it stands, for messages.

    Raises:
        ModelError: it is of another kind, or cannot be built.
    """
    layout, heads = _layout_of(config, file), config.num_attention_heads
    try:
        return Shape(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=heads,
            num_key_value_heads=config.num_key_value_heads or heads,
            head_dim=config.head_dim or config.hidden_size // heads,
            context=config.max_position_embeddings,
            rope_theta=config.theta,
            rms_norm_eps=config.rms_norm_eps,
            qk_norm=layout.qk_norm,
            tie_word_embeddings=config.tie_word_embeddings or False,
            causal=layout.causal,
        )
    except SettingsError as error:
        raise ModelError(f"{file}: sizes that cannot be built ({error})") from None


MOST_ANGLES = 1 << 28
"""Positions times width of a head: two gigabytes for their cosines and sines."""


def _layout_of(config: Config, file: Path) -> Layout:
    if config.model_type not in KINDS:
        raise ModelError(
            f"{file}: model_type {config.model_type!r} is not known here; known are "
            f"{', '.join(KINDS)}"
        )
    return KINDS[config.model_type]


def labels_of(config: Config, file: Path) -> LabelHead | None:
    """Return what the outputs of a head with labels stand for; None where the head is none.

    Raises:
        ModelError: the head is of a form not known here; the field is named.
    """
    if not config.architecture.endswith(LABELS):
        return None
    looks_back = _layout_of(config, file).causal
    pooling = POOLINGS[0] if looks_back else config.classifier_pooling or "late"
    if pooling not in POOLINGS:
        raise ModelError(
            f"{file}: classifier_pooling = {pooling!r} is not known here; known are "
            f"{', '.join(POOLINGS)}"
        )
    several = config.problem_type == SEVERAL
    known = config.id2label or {"0": "LABEL_0", "1": "LABEL_1"}
    numbers = [str(number) for number in range(len(known))]
    if set(numbers) != known.keys():
        raise ModelError(f"{file}: id2label does not name the numbers 0 to {len(known) - 1}")
    names = tuple(str(known[number]) for number in numbers)
    return LabelHead(names, len(names) == 1 and not several, pooling, several)


def _refuse_unknown(file: Path, config: Config) -> None:
    """Refuse what would be read without an error and computed wrong, by the name of the field."""
    rope = config.rope
    rope_field = "rope_parameters" if rope is config.rope_parameters else "rope_scaling"
    partial = rope.partial_rotary_factor or config.partial_rotary_factor or 1.0
    asked = {
        f"{rope_field}: {rope.kind!r}": rope.kind != "default",
        "partial_rotary_factor": partial != 1.0,
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
        "use_sliding_window": config.use_sliding_window,
        "layer_types": set(config.layer_types or ()) - {"full_attention"},
        f"hidden_act: {config.hidden_act!r}": (config.hidden_act or "silu") != "silu",
        "quantization_config": config.quantization_config,
    }
    for name, present in asked.items():
        if present:
            raise ModelError(
                f"{file}: {name} as set there is not known here, and the logits would be wrong"
            )
