"""Operators of com.microsoft, which exporters, quantizers and optimizers write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from penstock.models.analysis.expressions import Dim
from penstock.models.analysis.layout import broadcast
from penstock.models.analysis.node import Mixes, Node, Result, Rule, Unknown
from penstock.models.analysis.rules import elementwise, images, linear, reductions, shapes
from penstock.models.analysis.rules.recurrent import check_mask, first_axis
from penstock.models.analysis.values import Value, is_one, like, same

FIRST = "the rows are the first axis of each input that is no weight"


def _plain(value: Value) -> Value:
    return replace(value, data=None, filler=False, source="")


def _fused_matmul(node: Node) -> Result:
    one, other = node.value(0), node.value(1)
    if node.get("transBatchA", 0) or node.get("transBatchB", 0):
        raise Unknown("moves the axes of stacks")
    one = linear.turned(one) if node.get("transA", 0) else one
    other = linear.turned(other) if node.get("transB", 0) else other
    return linear.product_of(one, other)


def _fused_conv(node: Node) -> Result:
    """Data, weights, bias, and what is added to the result."""
    data = node.value(0)
    node.rows_only_in(0, 3)
    if data.has_rows and data.axis != 0:
        raise Mixes("looks at neighbouring rows")
    found = images.convolved(node, data, node.value(1))
    return broadcast([found, node.value(3)]) if node.has(3) else found


def _skip_norm(node: Node) -> Result:
    """Data, what is added to it, then scales: normalized over the last axis."""
    data, rank = node.value(0), node.rank(0)
    node.rows_only_in(0, 1)
    whole = broadcast([data, node.value(1)])
    if whole.dims is None or len(whole.dims) != rank:
        raise Unknown("adds a tensor of higher rank than its input")
    reductions.checked(whole, [rank - 1], "is taken over all rows")
    mean = reductions.without(whole, [rank - 1], True)
    return [_plain(whole), mean, mean, _plain(whole)]


def _embed_norm(node: Node) -> Result:
    """Ids, segments, then tables; the last inputs are a mask and places."""
    node.rows_only_in(0, 1, 7, 8)
    placed = [node.value(place) for place in (0, 1, 7) if node.has(place)]
    if node.is_settled:
        return [same(None)] * 3
    if node.has(8):
        placed += [node.value(8)] if node.value(8).has_rows else []
        if not node.value(8).has_rows and (node.dims(8)[0] != 1):
            raise Unknown("takes a fixed number of places")
    found = first_axis(placed)
    for place in (0, 2), (1, 3):
        _note_table(node, *place)
    dims = node.dims(0)
    width: Dim = (node.value(2).dims or (1, node.fresh(2)))[-1]
    whole = like(found, [1, dims[1], width], 0)
    return [whole, like(found, [1], 0), whole]


def _note_table(node: Node, ids: int, table: int) -> None:
    if node.has(ids) and node.has(table):
        node.follower.looks_up(node.value(ids), node.value(table))


def _heads_first(
    *weights: int, outputs: Sequence[int] = (3, 4, 4, 4), masks: Sequence[tuple[int, int]] = ()
) -> Callable[[Node], Result]:
    """Attention: every input has rows as its first axis, but weights and masks that broadcast."""

    def follow(node: Node) -> Result:
        if node.is_settled:
            return [same(None)] * len(outputs)
        node.rows_only_in(*(place for place in range(len(node.inputs)) if place not in weights))
        masked = dict(masks)
        placed = []
        for place in range(len(node.inputs)):
            if not node.has(place) or place in weights:
                continue
            if place in masked:
                check_mask(node.value(place), masked[place])
            else:
                placed.append(node.value(place))
        found = first_axis(placed)
        dims = node.dims(0)
        results = []
        for output, rank in enumerate(outputs):
            lengths: list[Dim] = [node.fresh(axis, output) for axis in range(rank)]
            if output == 0 and len(dims) > 1:
                lengths[1] = dims[1]
            results.append(like(found, lengths, 0))
        return results

    return follow


def _mask_by_rows(node: Node, place: int) -> None:
    """A mask of lengths [N], [N, T] or [N, S, T] has rows; other forms of it are laid out by batch."""
    if node.has(place):
        mask = node.value(place)
        if not (mask.has_rows and mask.axis == 0 and mask.whole_rows):
            raise Unknown("has a mask that is the same whatever the rows")


def _attention(node: Node) -> Result:
    """Data, weights, bias, mask, past (keys and values together on axis 0, rows on axis 1), scores to add."""
    data, dims = node.value(0), node.dims(0)
    if node.is_settled:
        return [same(None)] * 2
    node.rows_only_in(0, 3, 4, 5)
    found = first_axis([data])
    _mask_by_rows(node, 3)
    if node.has(4) and not (node.value(4).has_rows and node.value(4).axis == 1):
        raise Unknown("has a past that is laid out in another way")
    if node.has(5):
        check_mask(node.value(5), 4)
    width = node.fresh(2)
    sizes = node.get("qkv_hidden_sizes")
    if sizes:
        width = sizes[-1]
    elif node.value(1).dims and isinstance(node.dims(1)[-1], int):
        width = node.dims(1)[-1] // 3  # type: ignore[operator]
    return [
        like(found, [1, dims[1], width], 0),
        like(found, [2, 1, *(node.fresh(axis, 1) for axis in range(2, 5))], 1),
    ]


def _quantized_attention(node: Node) -> Result:
    """As Attention, with scales: data, weights, bias, two scales, mask, zero points, past."""
    data, dims = node.value(0), node.dims(0)
    if node.is_settled:
        return [same(None)] * 2
    node.rows_only_in(0, 5, 8)
    found = first_axis([data])
    if not is_one(node.value(3)):
        raise Unknown("has several scales for its input with rows")
    _mask_by_rows(node, 5)
    if node.has(8):
        raise Unknown("has a past")
    return [
        like(found, [1, dims[1], node.fresh(2)], 0),
        like(found, [2, 1, *(node.fresh(axis, 1) for axis in range(2, 5))], 1),
    ]


def _rotary(node: Node) -> Result:
    """Data, places, tables of cosines and sines."""
    data, dims = node.value(0), node.dims(0)
    if node.is_settled:
        return same(dims)
    node.rows_only_in(0, 1)
    first_axis([data])
    places = node.value(1)
    if places.has_rows:
        first_axis([data, places])
    elif not is_one(places):
        raise Unknown("takes places that are the same whatever the rows")
    return like(data, dims, 0)


def _quantized_binary(node: Node) -> Result:
    """A, its scale and zero point, B, its scale and zero point, scale and zero point of the result."""
    node.rows_only_in(0, 3)
    _single(node, 1, 2, 4, 5, 6, 7)
    return broadcast([node.value(0), node.value(3)])


def _quantized_unary(node: Node) -> Result:
    node.rows_only_in(0)
    _single(node, 1, 2, 3, 4)
    return _plain(node.value(0))


def _quantized_softmax(node: Node) -> Result:
    _single(node, 1, 2, 3, 4)
    node.rows_only_in(0)
    rank = node.rank(0)
    axis = node.axis("axis", -1, rank)
    old = node.get("opset", 13) < 13
    reductions.checked(node.value(0), range(axis, rank) if old else [axis], "is taken over all rows")
    return _plain(node.value(0))


def _single(node: Node, *places: int) -> None:
    for place in places:
        if node.has(place) and not is_one(node.value(place)):
            raise Unknown("has several scales")


def _quantized_concat(node: Node) -> Result:
    """Scale and zero point of the result, then tensor, scale and zero point of each part."""
    parts = [node.value(place) for place in range(2, len(node.inputs), 3)]
    others = [value for place, value in enumerate(node.values) if place < 2 or (place - 2) % 3]
    if any(value.has_rows or not is_one(value) for value in others):
        raise Unknown("has several scales")
    return shapes.RULES["Concat"].follow(replace(node, inputs=parts, opset=13))


def _quantized_pool(node: Node) -> Result:
    node.rows_only_in(0)
    _single(node, 1, 2, 3, 4)
    data, dims = node.value(0), node.dims(0)
    if node.get("channels_last", 0):
        raise Unknown("has its channels last")
    if data.has_rows and data.axis > 1:
        raise Mixes("looks at neighbouring rows")
    if node.operator == "QLinearGlobalAveragePool":
        lengths = [*dims[:2], *([1] * (len(dims) - 2))]
    else:
        lengths = [*dims[:2], *images.spatial_lengths(node, dims[2:], node.get("kernel_shape") or [])]
    return like(data, lengths, data.axis) if data.has_rows else same(lengths)


def _quantized_gemm(node: Node) -> Result:
    node.rows_only_in(0)
    _single(node, 1, 2)
    return linear.RULES["Gemm"].follow(replace(node, inputs=[node.value(0), node.value(3)]))


def _matmul_to_float(node: Node) -> Result:
    """A, B, their scales, their zero points, a bias."""
    node.rows_only_in(0, 1, 6)
    for place in (2, 4):
        if node.has(place) and not is_one(node.value(place)):
            raise Unknown("has several scales for its input with rows")
    if node.value(1).has_rows and not all(is_one(node.value(place)) for place in (3, 5) if node.has(place)):
        raise Unknown("has several scales for its input with rows")
    found = linear.product_of(node.value(0), node.value(1))
    return broadcast([found, node.value(6)]) if node.has(6) else found


def _dynamic_matmul(node: Node) -> Result:
    if node.value(0).has_rows:
        raise Mixes("takes one scale over the whole batch")
    return same(None)


def _matmul_n_bits(node: Node) -> Result:
    data, dims = node.value(0), node.dims(0)
    node.rows_only_in(0)
    if data.has_rows and data.axis == len(dims) - 1:
        raise Mixes(linear.SUMS)
    lengths = [*dims[:-1], node.get("N", 1)]
    return like(data, lengths, data.axis) if data.has_rows else same(lengths)


def _group_query(node: Node) -> Result:
    """Query, key, value, past key, past value, lengths of sequences, longest length, caches."""
    if node.is_settled:
        return [same(None)] * 3
    node.rows_only_in(0, 1, 2, 3, 4, 5)
    placed = [node.value(place) for place in range(6) if node.has(place)]
    if any(node.has(place) for place in range(9, len(node.inputs))):
        raise Unknown("has inputs that are not followed")
    found = first_axis(placed)
    state = [1, *(node.fresh(axis, 1) for axis in range(1, 4))]
    return [like(found, [1, node.dims(0)[1], node.fresh(2)], 0), like(found, state, 0), like(found, state, 0)]


def _nhwc_conv(node: Node) -> Result:
    data, rank = node.value(0), node.rank(0)
    node.rows_only_in(0)
    if data.has_rows and data.axis != 0:
        raise Mixes("looks at neighbouring rows")
    lengths = [node.fresh(axis) for axis in range(rank)]
    return like(data, lengths, 0) if data.has_rows else same(lengths)


def _dynamic_lstm(node: Node) -> Result:
    if any(value.has_rows for value in node.values):
        raise Mixes("takes one scale over the whole batch")
    return [same(None)] * 3


def _group_norm(node: Node) -> Result:
    data = node.value(0)
    node.rows_only_in(0)
    if data.has_rows and data.axis != 0:
        raise Mixes("takes a mean and a variance over all rows")
    return _plain(data)


def _gather_block(node: Node) -> Result:
    if node.value(0).has_rows or node.get("gather_axis", 0) != 0:
        raise Unknown("takes from a table that is not constant")
    indices, table = node.value(1), node.dims(0)
    lengths: list[Dim] = [*node.dims(1), *(node.fresh(axis, 9) for axis in range(1, len(table)))]
    return like(indices, lengths, indices.axis) if indices.has_rows else same(lengths)


SCALED = "as the operator without scales, with one scale for all rows"
HEADS = "the rows are the first axis of each input but weights and caches"
ONE_SCALE = "never: one scale over the whole batch"

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("BiasGelu", "FastGelu", "AddGelu", "BiasAdd"), elementwise.RULES["Add"]),
    **dict.fromkeys(("Gelu", "QuickGelu"), elementwise.RULES["Relu"]),
    **{name: elementwise.RULES[name] for name in ("QuantizeLinear", "DequantizeLinear")},
    "LayerNormalization": reductions.RULES["LayerNormalization"],
    "SimplifiedLayerNormalization": reductions.RULES["LayerNormalization"],
    "SkipLayerNormalization": Rule(_skip_norm, "the rows lie before the last axis"),
    "SkipSimplifiedLayerNormalization": Rule(_skip_norm, "the rows lie before the last axis"),
    "EmbedLayerNormalization": Rule(_embed_norm, FIRST),
    "GroupNorm": Rule(_group_norm, "the rows are the first axis"),
    "FusedMatMul": Rule(_fused_matmul, "as MatMul"),
    "TransposeMatMul": Rule(_fused_matmul, "as MatMul"),
    "FusedGemm": Rule(linear.RULES["Gemm"].follow, "as MatMul"),
    "FusedConv": Rule(_fused_conv, "as Conv"),
    "NhwcConv": Rule(_nhwc_conv, "as Conv"),
    "NhwcFusedConv": Rule(_nhwc_conv, "as Conv"),
    "ConvTransposeWithDynamicPads": Rule(_nhwc_conv, "as Conv"),
    "MatMulNBits": Rule(_matmul_n_bits, "as MatMul"),
    "MatMulBnb4": Rule(_matmul_n_bits, "as MatMul"),
    "MatMulIntegerToFloat": Rule(_matmul_to_float, SCALED),
    "DynamicQuantizeMatMul": Rule(_dynamic_matmul, ONE_SCALE),
    "DynamicQuantizeLSTM": Rule(_dynamic_lstm, ONE_SCALE),
    **{name: Rule(_quantized_binary, SCALED) for name in ("QLinearAdd", "QLinearMul")},
    **{name: Rule(_quantized_unary, SCALED) for name in ("QLinearSigmoid", "QLinearLeakyRelu")},
    "QLinearSoftmax": Rule(_quantized_softmax, SCALED),
    "QLinearConcat": Rule(_quantized_concat, SCALED),
    "QLinearAveragePool": Rule(_quantized_pool, SCALED),
    "QLinearGlobalAveragePool": Rule(_quantized_pool, SCALED),
    "QLinearConv": images.RULES["QLinearConv"],
    "QGemm": Rule(_quantized_gemm, SCALED),
    "QAttention": Rule(_quantized_attention, HEADS),
    "Attention": Rule(_attention, HEADS),
    "MultiHeadAttention": Rule(_heads_first(3, masks=((5, 4),)), HEADS),
    "GroupQueryAttention": Rule(_group_query, HEADS),
    "RotaryEmbedding": Rule(_rotary, HEADS),
    "GatherBlockQuantized": Rule(_gather_block, "rows are the indices, and the table is constant"),
    "Trilu": reductions.RULES["Trilu"],
}
