"""The network as an ONNX graph: the same arithmetic, in operations that every runtime knows.

Names of inputs and outputs are those that Optimum and Transformers.js give and expect: input_ids,
attention_mask, position_ids, past_key_values.N.key, logits, present.N.key. Of version 17 of the
operations, so that runtimes of the last years read it too.

Legend of shapes: B rows, T positions, P positions kept from before, S = P + T, D width, V
vocabulary; H heads of keys, G heads of queries for each of them, K head width.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nextword.model.labels import SequenceClassifier
from nextword.model.transformer import Transformer

OPERATIONS, FORMAT = 17, 8
"""Versions of the set of operations and of the file."""
_FORBIDDEN = np.float32(np.finfo(np.float32).min)
_BEFORE, _AFTER = "past_key_values", "present"
_IDS, _MASK, _POSITIONS, _LOGITS = "input_ids", "attention_mask", "position_ids", "logits"


def build(model: Transformer) -> onnx.ModelProto:
    """Write a network down.

    Args:
        model: on the CPU; causal, to both sides, or with labels.

    Returns:
        a model whose inputs are input_ids (B, T) and attention_mask (B, S), and of a causal
        language model position_ids (B, T) and every layer's past_key_values (B, H, P, K); whose
        outputs are logits (B, T, V), of labels (B, C), and present keys and values (B, H, S, K).
    """
    return _Graph(model).whole()


class _Graph:
    """A graph as it grows: each method adds operations and returns the name of what they give."""

    def __init__(self, model: Transformer) -> None:
        self.model, self.shape = model, model.shape
        self.keeps = model.shape.causal and not isinstance(model, SequenceClassifier)
        self.nodes: list[onnx.NodeProto] = []
        self.held: dict[str, onnx.TensorProto] = {}
        self.weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def whole(self) -> onnx.ModelProto:
        shape, layers = self.shape, range(self.shape.num_hidden_layers)
        whole_number, number = TensorProto.INT64, TensorProto.FLOAT
        inputs = [self._told(_IDS, whole_number, "batch", "new")]
        inputs.append(self._told(_MASK, whole_number, "batch", "all" if self.keeps else "new"))
        outputs = []
        if self.keeps:
            inputs.append(self._told(_POSITIONS, whole_number, "batch", "new"))
        seen, cosine, sine = self._seen(), *self._angles()
        x = self.op("Gather", self.weight("model.embed_tokens.weight"), _IDS)
        for layer in layers:
            x = self._layer(layer, x, seen, cosine, sine)
        x = self._norm(x, "model.norm.weight")
        if self.keeps:
            sizes = ("batch", shape.num_key_value_heads, "past", shape.head_dim)
            for name in _cache_names(layers, _BEFORE):
                inputs.append(self._told(name, number, *sizes))
            for name in _cache_names(layers, _AFTER):
                outputs.append(self._told(name, number, *sizes[:2], "all", sizes[3]))
        if isinstance(self.model, SequenceClassifier):
            self._labels(x)
            logits = self._told(_LOGITS, number, "batch", len(self.model.labels.names))
        else:
            self._vocabulary(x)
            logits = self._told(_LOGITS, number, "batch", "new", shape.vocab_size)
        graph = helper.make_graph(
            self.nodes, "nextword", inputs, [logits, *outputs], [*self.held.values()]
        )
        operations = [helper.make_opsetid("", OPERATIONS)]
        return helper.make_model(
            graph, opset_imports=operations, ir_version=FORMAT, producer_name="nextword"
        )

    def op(self, kind: str, *inputs: str, name: str = "", **settings: Any) -> str:
        """Add an operation; return the name of its output."""
        name = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **settings))
        return name

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Hold a constant, once."""
        if name not in self.held:
            self.held[name] = numpy_helper.from_array(value, name)
        return name

    def numbers(self, *values: int) -> str:
        """Hold whole numbers as a vector."""
        return self.constant(f"numbers_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def number(self, value: int) -> str:
        """Hold one whole number."""
        return self.constant(f"number_{value}", np.array(value, np.int64))

    def weight(self, name: str, *, turned: bool = False) -> str:
        """Hold a weight, or the matrix turned, so that it is multiplied from the left."""
        weight = self.weights[name].float()
        return self.constant(name, (weight.T.contiguous() if turned else weight).numpy())

    def length(self, of: str, dimension: int) -> str:
        """Return the length of a dimension, a vector of one number."""
        return self.op("Shape", of, start=dimension, end=dimension + 1)

    def scalar(self, vector: str) -> str:
        """Return the one number of a vector."""
        return self.op("Squeeze", vector, self.numbers(0))

    def reshaped(self, x: str, *sizes: int) -> str:
        """Reshape; 0 keeps a dimension, -1 takes what is left."""
        return self.op("Reshape", x, self.numbers(*sizes))

    def _told(self, name: str, kind: int, *sizes: str | int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, sizes)

    def _range(self, end: str) -> str:
        return self.op("Range", self.number(0), end, self.number(1))

    def _seen(self) -> str:
        """Return what is added to scores: 0 where a position may look, else the least number.

        (B, 1, T, S), or (B, 1, 1, S) of a network that looks to both sides.
        """
        real = self.op("Cast", _MASK, to=TensorProto.BOOL)
        may = self.op("Unsqueeze", real, self.numbers(1, 2))
        if self.shape.causal:
            end = self.scalar(self.length(_MASK, 1))
            keys = self._range(end)
            new = self.scalar(self.length(_IDS, 1))
            own = self.op("Add", self._range(new), self.op("Sub", end, new))
            before = self.op("LessOrEqual", keys, self.op("Unsqueeze", own, self.numbers(1)))
            may = self.op("And", may, before)
        allowed = self.constant("allowed", np.array(0, np.float32))
        return self.op("Where", may, allowed, self.constant("forbidden", np.array(_FORBIDDEN)))

    def _angles(self) -> tuple[str, str]:
        """Return cosine and sine of the positions' angles, (B, 1, T, K) or (T, K)."""
        found = []
        where = _POSITIONS if self.keeps else self._range(self.scalar(self.length(_IDS, 1)))
        for name in ("cosine", "sine"):
            table = self.model.model.get_buffer(name)[:, 0].float().numpy()
            chosen = self.op("Gather", self.constant(name, table), where)
            found.append(self.op("Unsqueeze", chosen, self.numbers(1)) if self.keeps else chosen)
        return found[0], found[1]

    def _norm(self, x: str, weight: str) -> str:
        """Scale each vector to length √D, then by a weight."""
        square = self.op("Pow", x, self.constant("two", np.array(2, np.float32)))
        mean = self.op("ReduceMean", square, axes=[-1], keepdims=1)
        least = self.constant("least", np.array(self.shape.rms_norm_eps, np.float32))
        root = self.op("Sqrt", self.op("Add", mean, least))
        return self.op("Mul", self.op("Div", x, root), self.weight(weight))

    def _layer(self, layer: int, x: str, seen: str, cosine: str, sine: str) -> str:
        at = f"model.layers.{layer}"
        read = self._norm(x, f"{at}.input_layernorm.weight")
        x = self.op("Add", x, self._attention(layer, read, seen, cosine, sine))
        read = self._norm(x, f"{at}.post_attention_layernorm.weight")
        gate = self._product(read, f"{at}.mlp.gate_proj.weight")
        gate = self.op("Mul", gate, self.op("Sigmoid", gate))
        inner = self.op("Mul", gate, self._product(read, f"{at}.mlp.up_proj.weight"))
        return self.op("Add", x, self._product(inner, f"{at}.mlp.down_proj.weight"))

    def _product(self, x: str, weight: str) -> str:
        return self.op("MatMul", x, self.weight(weight, turned=True))

    def _attention(self, layer: int, x: str, seen: str, cosine: str, sine: str) -> str:
        shape, at = self.shape, f"model.layers.{layer}.self_attn"
        heads, width = shape.num_key_value_heads, shape.head_dim
        groups = shape.num_attention_heads // heads
        placed = {}
        for part in ("q", "k", "v"):
            many = heads * groups if part == "q" else heads
            parted = self.reshaped(self._product(x, f"{at}.{part}_proj.weight"), 0, 0, many, width)
            if shape.qk_norm and part != "v":
                parted = self._norm(parted, f"{at}.{part}_norm.weight")
            turned = self.op("Transpose", parted, perm=[0, 2, 1, 3])
            placed[part] = turned if part == "v" else self._rotated(turned, cosine, sine)
        if self.keeps:
            for part, kind in (("k", "key"), ("v", "value")):
                before, after = (f"{cache}.{layer}.{kind}" for cache in (_BEFORE, _AFTER))
                placed[part] = self.op("Concat", before, placed[part], name=after, axis=-2)
        # (B, H, G, T, K) beside (B, H, 1, S, K): each head of keys serves its group of queries.
        queries = self.reshaped(placed["q"], 0, heads, groups, -1, width)
        keys = self.op("Transpose", placed["k"], perm=[0, 1, 3, 2])
        keys, values = (self.op("Unsqueeze", one, self.numbers(2)) for one in (keys, placed["v"]))
        scale = self.constant("scale", np.array(width**-0.5, np.float32))
        scores = self.op("Mul", self.op("MatMul", queries, keys), scale)
        scores = self.op("Add", scores, self.op("Unsqueeze", seen, self.numbers(1)))
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), values)
        mixed = self.reshaped(mixed, 0, heads * groups, -1, width)
        gathered = self.reshaped(
            self.op("Transpose", mixed, perm=[0, 2, 1, 3]), 0, 0, heads * groups * width
        )
        return self._product(gathered, f"{at}.o_proj.weight")

    def _rotated(self, x: str, cosine: str, sine: str) -> str:
        """Turn (B, H, T, K) by the positions' angles; the sine's first half is negative."""
        half, end = self.shape.head_dim // 2, self.shape.head_dim
        last = self.numbers(3)
        first = self.op("Slice", x, self.numbers(0), self.numbers(half), last)
        second = self.op("Slice", x, self.numbers(half), self.numbers(end), last)
        rolled = self.op("Concat", second, first, axis=-1)
        return self.op("Add", self.op("Mul", x, cosine), self.op("Mul", rolled, sine))

    def _vocabulary(self, x: str) -> None:
        """Compare the states (B, T, D) with every entry; the table of entries is held once."""
        name = "model.embed_tokens" if self.shape.tie_word_embeddings else "lm_head"
        flat = self.reshaped(x, -1, self.shape.hidden_size)
        flat = self.op("Gemm", flat, self.weight(f"{name}.weight"), transB=1)
        sizes = [self.length(_IDS, 0), self.length(_IDS, 1), self.numbers(self.shape.vocab_size)]
        self.op("Reshape", flat, self.op("Concat", *sizes, axis=0), name=_LOGITS)

    def _labels(self, x: str) -> None:
        """Read the labels off the states, as `SequenceClassifier.features` says."""
        assert isinstance(self.model, SequenceClassifier)
        if self.shape.causal:
            places = self._range(self.scalar(self.length(_IDS, 1)))
            last = self.op("ReduceMax", self.op("Mul", _MASK, places), axes=[1], keepdims=1)
            state = self.op("GatherND", x, last, batch_dims=1)
            self.op("Gemm", state, self.weight("score.weight"), transB=1, name=_LOGITS)
            return
        pooling = self.model.labels.pooling
        if pooling == "late":
            x = self._dense(x)
        if pooling == "bos":
            state = self.op("Squeeze", self._first(x), self.numbers(1))
        else:
            state = self._average(x)
        if pooling != "late":
            state = self._dense(state)
        weight, bias = self.weight("classifier.weight"), self.weight("classifier.bias")
        self.op("Gemm", state, weight, bias, transB=1, name=_LOGITS)

    def _first(self, x: str) -> str:
        return self.op("Slice", x, self.numbers(0), self.numbers(1), self.numbers(1))

    def _average(self, x: str) -> str:
        real = self.op("Cast", _MASK, to=TensorProto.FLOAT)
        many = self.op("ReduceSum", real, self.numbers(1), keepdims=1)
        kept = self.op("Mul", x, self.op("Unsqueeze", real, self.numbers(2)))
        return self.op("Div", self.op("ReduceSum", kept, self.numbers(1), keepdims=0), many)

    def _dense(self, x: str) -> str:
        """One more layer, and the exact GELU after it: x·(1 + erf(x/√2))/2."""
        mapped = self.op("Add", self._product(x, "dense.weight"), self.weight("dense.bias"))
        half, one, root = (
            self.constant(f"gelu_{value}", np.array(value, np.float32))
            for value in (0.5, 1, 2**0.5)
        )
        bent = self.op("Add", self.op("Erf", self.op("Div", mapped, root)), one)
        return self.op("Mul", self.op("Mul", mapped, half), bent)


def _cache_names(layers: Sequence[int], cache: str) -> list[str]:
    return [f"{cache}.{layer}.{part}" for layer in layers for part in ("key", "value")]
