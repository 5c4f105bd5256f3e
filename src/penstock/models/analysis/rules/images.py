"""Operators on images and sounds: convolutions, pools, resizing, transforms. Rows are the first axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from penstock.models.analysis.expressions import Dim, counts, opaque
from penstock.models.analysis.layout import common_layout
from penstock.models.analysis.node import Impossible, Mixes, Node, Result, Rule, Unknown, normal
from penstock.models.analysis.rules.linear import checked_scales
from penstock.models.analysis.values import Value, like, only_data, same, unknown

FIRST = "the rows are the first axis, and weights do not come from rows"
GRID = "the rows are the first axis of each input"


def _first_only(node: Node, *allowed: int) -> Value:
    """The first input, whose rows are entries of its first axis; no other input has rows."""
    data = node.value(0)
    node.rows_only_in(0, *allowed)
    if data.has_rows and data.axis == 1:
        raise Mixes("takes rows for channels")
    if data.has_rows and data.axis > 1:
        raise Mixes("looks at neighbouring rows")
    return data


def convolved(node: Node, data: Value, weights: Value, *, transposed: bool = False) -> Value:
    """The result of a convolution with rows on the first axis."""
    dims, kernel = data.dims, weights.dims
    if dims is None or kernel is None:
        if data.has_rows and dims is not None:
            return like(data, [dims[0], *(node.fresh(axis) for axis in range(1, len(dims)))], 0)
        return same(None)
    if len(dims) != len(kernel):
        raise Impossible(f"takes tensors of rank {len(kernel)}, not {len(dims)}")
    sizes = node.get("kernel_shape") or kernel[2:]
    spatial = (
        _spatial_transposed(node, dims[2:], sizes) if transposed else spatial_lengths(node, dims[2:], sizes)
    )
    channels = kernel[1] * node.get("group", 1) if transposed else kernel[0]
    lengths = [dims[0], channels, *spatial]
    return like(data, lengths, 0) if data.has_rows else same(lengths)


def _conv(node: Node) -> Result:
    data = _first_only(node)
    return convolved(node, data, node.value(1), transposed=node.operator == "ConvTranspose")


def _conv_integer(node: Node) -> Result:
    checked_scales(node, (2,))
    data = _first_only(node)
    return convolved(node, data, node.value(1))


def _qlinear_conv(node: Node) -> Result:
    checked_scales(node, (1, 2, 6, 7))
    data = _first_only(node)
    return convolved(node, data, node.value(3))


def spatial_lengths(node: Node, dims: Sequence[Dim], sizes: Sequence[Dim]) -> list[Dim]:
    """The lengths of an image after a kernel went over it."""
    count = len(dims)
    strides, dilations = node.get("strides") or [1] * count, node.get("dilations") or [1] * count
    pads, auto = node.get("pads") or [0] * (2 * count), str(node.get("auto_pad") or "NOTSET")
    up = bool(node.get("ceil_mode", 0))
    found: list[Dim] = []
    for axis, dim in enumerate(dims):
        size, stride = sizes[axis], strides[axis]
        padding = pads[axis] + pads[axis + count]
        if not isinstance(size, int):
            found.append(node.fresh(axis + 2))
        elif auto.startswith("SAME"):
            found.append(
                -(-dim // stride)
                if isinstance(dim, int)
                else dim
                if stride == 1
                else opaque("same", dim, stride, natural=True)
            )
        else:
            span = dilations[axis] * (size - 1) + 1
            free = dim + (padding if auto == "NOTSET" else 0) - span
            if isinstance(free, int):
                found.append((-(-free // stride) if up else free // stride) + 1)
                if up and isinstance(dim, int) and (found[-1] - 1) * stride >= dim + pads[axis]:
                    found[-1] = node.fresh(axis + 2)
            else:
                found.append(free + 1 if stride == 1 else opaque("window", free, stride, up, natural=True))
    return found


def _spatial_transposed(node: Node, dims: Sequence[Dim], sizes: Sequence[Dim]) -> list[Dim]:
    count = len(dims)
    if node.get("output_shape"):
        return list(node.get("output_shape"))[-count:]
    strides, dilations = node.get("strides") or [1] * count, node.get("dilations") or [1] * count
    more, auto = node.get("output_padding") or [0] * count, str(node.get("auto_pad") or "NOTSET")
    pads = node.get("pads") or [0] * (2 * count)
    if auto.startswith("SAME"):
        return [dim * stride for dim, stride in zip(dims, strides, strict=True)]
    if auto == "VALID":
        pads = [0] * (2 * count)
    return [
        strides[i] * (dim - 1) + more[i] + (sizes[i] - 1) * dilations[i] + 1 - pads[i] - pads[i + count]
        for i, dim in enumerate(dims)
    ]


def _pool(node: Node) -> Result:
    data, dims = node.value(0), node.dims(0)
    node.rows_only_in(0)
    if data.has_rows and data.axis > 1:
        raise Mixes("looks at neighbouring rows")
    lengths = [*dims[:2], *spatial_lengths(node, dims[2:], node.get("kernel_shape") or [])]
    found = like(data, lengths, data.axis) if data.has_rows else same(lengths)
    if len(node.outputs) < 2 or not data.has_rows:
        return [found, found]
    return [found, unknown(f"{node.label} gives places that are counted from the first row of the batch")]


def _global_pool(node: Node) -> Result:
    data, dims = node.value(0), node.dims(0)
    node.rows_only_in(0)
    if data.has_rows and data.axis > 1:
        raise Mixes("combines all rows")
    lengths = [*dims[:2], *([1] * (len(dims) - 2))]
    return like(data, lengths, data.axis) if data.has_rows else same(lengths)


def _resize(node: Node) -> Result:
    """The new size is given by lengths or by factors, of all axes or of some."""
    data, dims = node.value(0), node.dims(0)
    node.rows_only_in(0)
    rank = len(dims)
    old = node.operator == "Upsample" or node.opset < 11
    if node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unknown("keeps the aspect ratio")
    if node.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise Unknown("crops")
    axes = [normal(axis, rank) for axis in node.get("axes") or range(rank)]
    sizes = only_data(node.value(3)) if not old and node.has(3) else None
    scales_at = 1 if old else 2
    scales = only_data(node.value(scales_at)) if node.has(scales_at) else node.get("scales")
    if sizes:
        new = [_length(dims[axis], size) for axis, size in zip(axes, sizes, strict=True)]
    elif scales:
        new = [_scaled(node, axis, dims[axis], scale) for axis, scale in zip(axes, scales, strict=True)]
    else:
        new = [node.fresh(axis) for axis in axes]
    lengths = list(dims)
    for axis, length in zip(axes, new, strict=True):
        if data.has_rows and axis == data.axis and length != dims[axis]:
            raise Unknown("gives the axis of the rows another length")
        lengths[axis] = length
    return like(data, lengths, data.axis) if data.has_rows else same(lengths)


def _length(dim: Dim, size: Dim) -> Dim:
    if counts(size) and size != dim:
        raise Mixes("resizes by the number of rows")
    return size


def _scaled(node: Node, axis: int, dim: Dim, scale: float) -> Dim:
    if scale == 1:
        return dim
    if isinstance(dim, int) and isinstance(scale, int | float):
        return int(dim * scale)
    return node.fresh(axis)


def _first_axis(*given: int, ranks: Callable[[Node], Sequence[int]]) -> Callable[[Node], Result]:
    """All these inputs, where they are given, have rows along their first axis; no other has rows."""

    def follow(node: Node) -> Result:
        node.rows_only_in(*given)
        values = [node.value(place) for place in given if node.has(place)]
        placed = [value for value in values if value.has_rows]
        if placed and (len(placed) < len(values) or any(value.axis != 0 for value in placed)):
            raise Unknown("needs rows as the first axis of each of its inputs")
        layout = common_layout(placed) if placed else None
        outputs = []
        for output, rank in enumerate(ranks(node)):
            lengths = [node.fresh(axis, output) for axis in range(rank)]
            outputs.append(like(layout, lengths, 0) if layout else same(lengths))
        return outputs

    return follow


def _affine(node: Node) -> Result:
    theta, size = node.value(0), only_data(node.value(1))
    if not theta.has_rows:
        raise Unknown("gives a grid whose rows are not known")
    if not size or size[0] != node.dims(0)[0] or theta.axis != 0 or theta.outer != 1:
        raise Unknown("gives another number of grids than it has rows")
    return like(theta, [size[0], *(node.fresh(axis) for axis in range(1, len(size))), len(size) - 2], 0)


def _roi_align(node: Node) -> Result:
    data, boxes, places = (node.value(place) for place in range(3))
    if data.has_rows:
        raise Unknown("takes from rows by their place")
    if (
        not boxes.has_rows
        or not places.has_rows
        or boxes.axis
        or places.axis
        or boxes.layout != places.layout
    ):
        raise Unknown("needs rows as the first axis of each of its inputs")
    return like(boxes, [1, node.fresh(1), node.get("output_height", 1), node.get("output_width", 1)], 0)


def _dft(node: Node) -> Result:
    data, dims = node.value(0), node.dims(0)
    node.rows_only_in(0)
    rank = len(dims)
    axis = node.plain(2)[0] if node.has(2) else node.get("axis", 1 if node.opset < 20 else -2)
    axis = axis + rank if axis < 0 else axis
    if data.has_rows and data.axis in (axis, rank - 1):
        raise Mixes("transforms along the rows")
    lengths = [node.fresh(place) if place in (axis, rank - 1) else dim for place, dim in enumerate(dims)]
    if not node.has(1) and not node.get("onesided", 0) and not node.get("inverse", 0):
        lengths = [*dims[:-1], 2]
    return like(data, lengths, data.axis) if data.has_rows else same(lengths)


RULES: Mapping[str, Rule] = {
    "Conv": Rule(_conv, FIRST),
    "ConvTranspose": Rule(_conv, FIRST),
    "ConvInteger": Rule(_conv_integer, FIRST + ", and there is one zero point"),
    "QLinearConv": Rule(_qlinear_conv, FIRST + ", and there is one scale"),
    "DeformConv": Rule(_first_axis(0, 2, 4, ranks=lambda node: [node.rank(0)]), GRID),
    **{
        name: Rule(_pool, "the rows are one of the first two axes; not its output of places")
        for name in ("MaxPool", "AveragePool", "LpPool")
    },
    **{
        name: Rule(_global_pool, "the rows are one of the first two axes")
        for name in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
    },
    "Resize": Rule(_resize, "it leaves the axis of the rows alone", shapes=(3,)),
    "Upsample": Rule(_resize, "it leaves the axis of the rows alone"),
    "GridSample": Rule(_first_axis(0, 1, ranks=lambda node: [node.rank(0)]), GRID),
    "AffineGrid": Rule(_affine, "the rows are the first axis, and as many as the size says", shapes=(1,)),
    "Col2Im": Rule(
        _first_axis(0, ranks=lambda node: [2 + len(node.numbers(1))]),
        GRID,
    ),
    "RoiAlign": Rule(_roi_align, "the image is the same for all, and boxes come from rows"),
    "DFT": Rule(_dft, "its axis is not that of the rows"),
    "STFT": Rule(_first_axis(0, ranks=lambda _: [4]), GRID),
}
