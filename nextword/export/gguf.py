"""GGUF: a model in one file, for llama.cpp, Ollama, LM Studio and their kin.

The file says all by itself: sizes, weights, vocabulary with its merges and the pattern that cuts a
text before merging, the entry that a text begins with, the chat template. Source of the names: the
GGUF specification and llama.cpp's tensor names, as the `gguf` package holds them.
"""

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from nextword.base.errors import RunError
from nextword.base.files import check_output, publish, write_text
from nextword.export.gguf_vocabulary import translate
from nextword.finetune.chat import IN_WORDS, WITH_MARKS
from nextword.model.shape import Shape
from nextword.prediction.loading import Opened
from nextword.vocabulary.reading import read_tokenizer_config

TYPES = ("f32", "f16", "bf16", "q8_0")
"""Of matrices; norms are float32 in each. q8_0: blocks of 32 whole numbers of 8 bits and a factor,
in rows that divide into 32, and f16 in others."""
_BLOCK = 32
_PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.weight")
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")


class Exported(NamedTuple):
    """What was written."""

    file: Path
    modelfile: Path
    bytes: int
    tensors: int
    wider: int
    """Matrices written as f16 where q8_0 was asked for: their rows do not divide into blocks."""
    loses_unknown: bool
    """Whether characters outside the vocabulary vanish."""


def write_gguf(opened: Opened, output: Path, kind: str = "f16", *, force: bool = False) -> Exported:
    """Write a model as one GGUF file, and a Modelfile for Ollama beside it.

    Args:
        opened: a causal language model, in the layouts of Qwen3 or Llama.
        output: the file to make; the Modelfile is called as it, `.Modelfile` behind.
        kind: one of TYPES.
        force: whether files that are there may be replaced.

    Raises:
        EvaluationError: llama.cpp knows no such network.
        VocabularyError: llama.cpp knows no such vocabulary.
        RunError: the package `gguf` is missing, or the output is in the way or cannot be written.
    """
    opened.refuse("export")
    shape = opened.model.shape
    if kind not in TYPES:
        raise RunError(f"--type {kind}: choose one of {', '.join(TYPES)}")
    modelfile = output.with_name(f"{output.name}.Modelfile")
    for file in (output, modelfile):
        check_output(file, force=force)
    try:
        import gguf
    except ImportError:
        raise RunError("this needs the package gguf: pip install 'nextword[gguf]'") from None
    words = translate(opened.vocabulary, shape.vocab_size)
    aside = output.with_name(f".{output.name}.{os.getpid()}")
    writer = gguf.GGUFWriter(aside, _architecture(shape))
    _tell_sizes(writer, shape, opened.name)
    writer.add_file_type(gguf.LlamaFileType[_file_type(kind)])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words.pattern)
    writer.add_token_list(words.entries)
    writer.add_token_types(words.kinds)
    writer.add_token_merges(words.merges)
    writer.add_bos_token_id(opened.vocabulary.begin_id)
    writer.add_eos_token_id(opened.vocabulary.end_id)
    if opened.vocabulary.other_ends:  # as of a turn; llama.cpp takes one, and knows some by name
        writer.add_eot_token_id(opened.vocabulary.other_ends[0])
    if opened.vocabulary.pad_id is not None:
        writer.add_pad_token_id(opened.vocabulary.pad_id)
    config = read_tokenizer_config(opened.folder)
    writer.add_add_bos_token(
        config.add_bos_token is not False and bool(config.name_of("bos_token"))
    )
    writer.add_add_eos_token(False)
    template = opened.chat_template
    if template is not None:  # marks of what is learned say nothing to who only asks
        writer.add_chat_template(_GENERATION.sub("", template))
    wider = many = 0
    for name, weight in opened.model.named_parameters():
        values, type_ = _as_written(name, weight.detach().cpu(), shape, kind, gguf)
        writer.add_tensor(_called(name), values, raw_dtype=type_)
        many += 1
        wider += weight.dim() == 2 and kind == "q8_0" and type_ != gguf.GGMLQuantizationType.Q8_0
    try:
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
        publish(aside, output)
        write_text(modelfile, _modelfile(output, opened, template=template))
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise RunError(f"{output}: cannot be written ({error.strerror or error})") from None
    return Exported(output, modelfile, output.stat().st_size, many, wider, words.loses_unknown)


def _architecture(shape: Shape) -> str:
    return "qwen3" if shape.qk_norm else "llama"


def _file_type(kind: str) -> str:
    return "ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"


def _tell_sizes(writer: Any, shape: Shape, name: str) -> None:
    writer.add_name(name)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)


def _called(name: str) -> str:
    """Return llama.cpp's name of a weight."""
    if found := _LAYER.fullmatch(name):
        return f"blk.{found[1]}.{_PARTS[found[2]]}.weight"
    return f"{_WHOLE[name.removesuffix('.weight')]}.weight"


def _as_written(
    name: str, weight: torch.Tensor, shape: Shape, kind: str, gguf: Any
) -> tuple[np.ndarray[Any, Any], Any]:
    """Return a weight's bytes and their type."""
    types = gguf.GGMLQuantizationType
    heads = {"q_proj": shape.num_attention_heads, "k_proj": shape.num_key_value_heads}
    for part, many in heads.items():
        if not shape.qk_norm and f".{part}." in name:
            # llama.cpp turns neighbours in a Llama's heads, where these layouts turn halves.
            parted = weight.view(many, 2, shape.head_dim // 2, -1)
            weight = parted.transpose(1, 2).reshape(weight.shape)
    if weight.dim() == 1 or kind == "f32":
        return weight.float().numpy(), types.F32
    type_ = types[kind.upper()]
    if kind == "q8_0" and weight.shape[1] % _BLOCK:
        type_ = types.F16
    return gguf.quants.quantize(weight.float().numpy(), type_), type_


def _modelfile(file: Path, opened: Opened, *, template: str | None) -> str:
    """Return what Ollama wants to know of the file beside it."""
    end = opened.vocabulary.tokenizer.id_to_token(opened.vocabulary.end_id)
    asked = "{{ .Prompt }}"
    if template == WITH_MARKS:
        asked = "{{ range .Messages }}<|{{ .Role }}|> {{ .Content }}<|end|>{{ end }}<|assistant|>"
    elif template == IN_WORDS:
        asked = (
            '{{ range .Messages }}{{ if eq .Role "assistant" }}Assistant: {{ .Content }}'
            f"{end}\n"
            '{{ else if eq .Role "system" }}System: {{ .Content }}\n'
            '{{ else if eq .Role "tool" }}Tool: {{ .Content }}\n'
            "{{ else }}User: {{ .Content }}\n{{ end }}{{ end }}Assistant:"
        )
    words = opened.vocabulary
    others = map(words.tokenizer.id_to_token, words.other_ends)
    stops = "".join(f"PARAMETER stop {json.dumps(one)}\n" for one in (end, *others))
    return (
        f"FROM ./{file.name}\n"
        f'TEMPLATE """{asked}"""\n'
        f"PARAMETER num_ctx {opened.model.shape.context}\n{stops}"
    )
