"""config.json: what is read of it, each field with its type and bounds."""

from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from nextword.base.errors import ModelError
from nextword.base.records import Base, Share, Size, read_record

CONFIG = "config.json"
_Labels = Annotated[dict[str, Any], Meta(max_length=1 << 20)]


class Rope(Struct):
    """How positions are turned."""

    rope_type: str | None = None
    type: str | None = None
    """What older folders call that."""
    rope_theta: Base | None = None
    partial_rotary_factor: float | None = None

    @property
    def kind(self) -> str:
        """The one or the other."""
        return self.rope_type or self.type or "default"


class Config(Struct):
    """What a folder's config.json says of its network; what is not read here is left alone."""

    model_type: str
    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    max_position_embeddings: Size
    rms_norm_eps: Share
    architectures: list[str] | None = None
    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    rope_theta: Base | None = None
    rope_parameters: Rope | None = None
    rope_scaling: Rope | None = None
    partial_rotary_factor: float | None = None
    tie_word_embeddings: bool | None = None
    attention_bias: bool | None = None
    mlp_bias: bool | None = None
    use_sliding_window: bool | None = None
    layer_types: list[str] | None = None
    hidden_act: str | None = None
    quantization_config: Any = None
    classifier_pooling: str | None = None
    problem_type: str | None = None
    id2label: _Labels | None = None

    @property
    def architecture(self) -> str:
        """The first class that is named; "" where there is none."""
        return self.architectures[0] if self.architectures else ""

    @property
    def rope(self) -> Rope:
        """How positions are turned, where the folder says it."""
        told = (self.rope_parameters, self.rope_scaling)
        return next((rope for rope in told if rope not in (None, Rope())), None) or Rope()

    @property
    def theta(self) -> float:
        """Base of the rotary position's wavelengths."""
        return self.rope.rope_theta or self.rope_theta or 10_000.0


def read_config(folder: Path) -> Config:
    """Read a folder's config.json.

    Raises:
        ModelError: it is missing or no JSON, or a field is not what it must be; the field is named.
    """
    file = folder / CONFIG
    if not file.is_file():
        raise ModelError(f"{folder}: no {CONFIG} here, so this is not a model folder")
    return read_config_file(file)


def read_config_file(file: Path) -> Config:
    """Read a config.json, whatever it is called.

    Raises:
        ModelError: it is missing or no JSON, or a field is not what it must be; the field is named.
    """
    return read_record(file, Config, ModelError)
