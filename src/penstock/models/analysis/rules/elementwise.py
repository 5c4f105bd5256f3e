"""Operators that work element by element."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from penstock.models.analysis.layout import broadcast
from penstock.models.analysis.node import Mixes, Node, Random, Result, Rule, Unknown
from penstock.models.analysis.values import Kind, Value, is_one

ALWAYS = "always"
BROADCAST = "always, unless rows are set against other axes, or against several values of a constant"


def _unary(node: Node) -> Result:
    return replace(node.value(0), data=None, numbers=False)


def _kept(node: Node) -> Result:
    """The same elements, so that numbers of rows stay such."""
    return replace(node.value(0), data=None)


def _broadcast(node: Node) -> Result:
    return broadcast(node.values)


def _scalars(node: Node) -> Result:
    """The first input decides the shape; the others are single numbers."""
    node.rows_only_in(0)
    return _unary(node)


def _prelu(node: Node) -> Result:
    data = node.value(0)
    found = broadcast(node.values)
    if found.dims is not None and data.dims is not None and len(found.dims) != len(data.dims):
        raise Unknown("has a slope of higher rank than its input")
    return found


def _dropout(node: Node) -> Result:
    training = node.get("is_test", 0) == 0 if node.opset < 7 else False
    if node.opset >= 12 and node.has(2):
        flag = node.value(2).data
        if flag is None:
            node.follower.draws(node)
            raise Random("drops values at random if an input says so")
        training = bool(flag.item())
    if training:
        node.follower.draws(node)
        raise Random("drops values at random")
    first = replace(node.value(0), data=None)
    return [first, replace(first, numbers=False, source="")]


def _quantize(node: Node) -> Result:
    """Scale and zero point are one number, or one for each entry of an axis."""
    data = node.value(0)
    parts = list(node.values[1:3])
    if not data.has_rows:
        if any(value.has_rows for value in parts):
            raise Unknown("takes a scale from rows")
        return _unary(node)
    rank = node.rank(0)
    axis = node.get("axis", 1)
    axis = axis + rank if axis < 0 else axis
    for value in parts:
        if value.dims is None:
            raise Unknown("has a scale whose rank is not known")
        if is_one(value):
            continue
        if node.get("block_size", 0) or len(value.dims) != 1:
            _check_blocks(node, value, data)
        elif value.has_rows:
            if axis != data.axis or value.layout != data.layout:
                raise Mixes("takes a scale from other rows")
        elif axis == data.axis:
            raise Mixes("takes another scale for each row, by its place")
    return _unary(node)


def _check_blocks(node: Node, scale: Value, data: Value) -> None:
    """Blocks along another axis than the rows', with a scale in each row's own place."""
    if (
        scale.has_rows
        and scale.axis == data.axis
        and scale.layout == data.layout
        and node.rank(0) == len(scale.dims or ())
    ):
        axis = node.axis("axis", 1, node.rank(0))
        if axis != data.axis:
            return
    raise Unknown("has scales of blocks")


def _quantize_dynamically(node: Node) -> Result:
    if node.value(0).has_rows:
        raise Mixes("takes one scale over the whole batch")
    found = node.value(0)
    one = replace(found, dims=(), data=None)
    return [replace(found, data=None), one, one]


def _strings(node: Node) -> Result:
    data = node.value(0)
    if node.get("stopwords"):
        raise Mixes("drops texts, so that a length depends on values")
    if node.rank(0) != 1:
        raise Unknown("takes a single row only")
    return replace(data, data=None)


def _string_split(node: Node) -> Result:
    data = node.value(0)
    if data.has_rows:
        raise Mixes("gives as many parts as the text with the most parts of the batch")
    return [Value(Kind.SAME), replace(data, data=None)]


UNARY = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Ceil",
    "Celu",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "BitwiseNot",
    "RegexFullMatch",
    "Affine",
    "ParametricSoftplus",
    "ScaledTanh",
]

BINARY = [
    "Add",
    "Sub",
    "Mul",
    "Div",
    "And",
    "Or",
    "Xor",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Pow",
    "Mod",
    "Min",
    "Max",
    "Mean",
    "Sum",
    "Where",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "StringConcat",
]

RULES: Mapping[str, Rule] = {
    **{name: Rule(_unary, ALWAYS) for name in UNARY},
    **{name: Rule(_broadcast, BROADCAST) for name in BINARY},
    "Identity": Rule(_kept, ALWAYS),
    "Cast": Rule(_kept, ALWAYS),
    "CastLike": Rule(_kept, ALWAYS),
    "Clip": Rule(_scalars, "its bounds do not come from rows"),
    "PRelu": Rule(_prelu, BROADCAST),
    "Dropout": Rule(_dropout, "outside training"),
    "QuantizeLinear": Rule(_quantize, "its scale is not one for each place of a row in the batch"),
    "DequantizeLinear": Rule(_quantize, "its scale is not one for each place of a row in the batch"),
    "DynamicQuantizeLinear": Rule(_quantize_dynamically, "never: one scale over the whole batch"),
    "StringNormalizer": Rule(_strings, "texts are one a row, and there are no stop words"),
    "StringSplit": Rule(_string_split, "never: as many parts as the text with the most parts"),
}
