"""Where rows lie after tensors are combined, laid out anew or repeated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstock.models.analysis.expressions import ROWS, Dim, counts, exact, opaque, product
from penstock.models.analysis.node import Mixes, Unknown
from penstock.models.analysis.values import Value, rows, same

OTHER_AXIS = "sets every row against every row"


def common_layout(values: Iterable[Value]) -> Value:
    """One of the tensors with rows that has the layout of all.

    Raises:
        Unknown: they have several entries a row, laid out in different ways.
    """
    found = [value for value in values if value.has_rows]
    settled = [value for value in found if not value.filler] or found
    if len({value.layout for value in settled}) > 1:
        raise Unknown("combines tensors with other numbers of entries a row")
    lengths = {value.dims[value.axis] for value in found if value.dims is not None}
    if len(lengths) > 1:
        raise Unknown("combines tensors with other numbers of entries a row")
    return settled[0]


def broadcast(values: Sequence[Value]) -> Value:
    """What an operator gives that works element by element on tensors of compatible shapes.

    Raises:
        Mixes: rows meet other rows, or values of their own length.
        Unknown: a rank is not known, or rows do not lie in the same way.
    """
    placed = [value for value in values if value.has_rows]
    if any(value.dims is None for value in values):
        if placed:
            raise Unknown("has an input whose rank is not known")
        return same(None)
    shapes = [value.dims or () for value in values]
    rank = max(map(len, shapes))
    if not placed:
        return same(
            [
                _together([shape[-back] for shape in shapes if len(shape) >= back])
                for back in range(rank, 0, -1)
            ]
        )
    backs = {len(value.dims or ()) - value.axis for value in placed}
    if len(backs) > 1:
        raise Mixes(OTHER_AXIS)
    layout = common_layout(placed)
    [row] = backs
    for value, shape in zip(values, shapes, strict=True):
        if not value.has_rows and len(shape) >= row and shape[-row] != 1:
            raise against(shape[-row])
    dims: list[Dim] = []
    for back in range(rank, 0, -1):
        at = [shape[-back] for shape in shapes if len(shape) >= back]
        dims.append(1 if back == row else _together(at))
    return rows(dims, rank - row, layout.outer, layout.inner, filler=all(value.filler for value in values))


def against(length: Dim) -> Exception:
    """What is wrong with values of a length of their own along the axis of the rows."""
    if isinstance(length, int):
        return Mixes(f"sets {length} values against the rows, by their place")
    return Unknown("sets values against the rows whose number is not known")


def _together(lengths: Sequence[Dim]) -> Dim:
    """The length of one axis after broadcasting."""
    plain = [length for length in lengths if isinstance(length, int) and length != 1]
    if plain:
        return plain[0]
    found = sorted({length for length in lengths if length != 1}, key=str)
    if not found:
        return 1
    return found[0] if len(found) == 1 else opaque("broadcast", *found, natural=True)


def reshaped(value: Value, target: Sequence[Dim]) -> Value:
    """A tensor with rows whose elements, in the same order, are given another shape.

    Args:
        value: the tensor.
        target: the new shape; at most one length is -1, which is computed.

    Raises:
        Mixes: the entries of a row are torn apart.
        Unknown: it cannot be found out where rows lie.
    """
    dims = value.dims or ()
    before = product(dims[: value.axis]) * value.outer
    behind = value.inner * product(dims[value.axis + 1 :])
    lengths = list(target)
    if -1 in lengths:
        place = lengths.index(-1)
        lengths[place] = _rest(before, behind, [each for each in lengths if each != -1])
    axes = [axis for axis, length in enumerate(lengths) if counts(length)]
    if not axes:
        raise Unknown("gives a shape that does not grow with the number of rows")
    if len(axes) > 1:
        raise Unknown("gives a shape with the number of rows in several places")
    [axis] = axes
    share = exact(lengths[axis], ROWS)
    if share is None or counts(share):
        raise Unknown("gives a shape that does not grow with the number of rows")
    ahead = product(lengths[:axis])
    outer = 1 if before == ahead else exact(before, ahead)
    if outer is None:
        if isinstance(before, int) and isinstance(ahead, int):
            raise Mixes("lays out the values anew, across rows")
        raise Unknown("lays out the values anew, perhaps across rows")
    if outer == 1:
        inner: Dim | None = share  # whatever it is: a row alone has to fill its part
    else:
        inner = exact(share, outer)
    if inner is None and isinstance(share, int) and isinstance(outer, int):
        raise Mixes("lays out the values anew, across rows")
    if inner is None or counts(inner) or counts(outer):
        raise Unknown("lays out the values anew, perhaps across rows")
    unmoved = value.filler and (outer, inner) == value.layout
    return rows(lengths, axis, outer, inner, filler=unmoved)


def _rest(before: Dim, behind: Dim, others: Sequence[Dim]) -> Dim:
    """The length that fills a shape."""
    whole = before * ROWS * behind
    found = exact(whole, product(list(others)))
    if found is not None:
        return found
    counted = [other for other in others if counts(other)]
    if counted:
        share = exact(product(list(others)), ROWS)
        if share is None or counts(share):
            raise Unknown("gives a shape that does not grow with the number of rows")
        # A row alone fills its part, so the division leaves no rest.
        return opaque("/", before * behind, share, natural=True)
    return ROWS * opaque("/", before * behind, product(list(others)), natural=True)


def repeated(value: Value, dims: Sequence[Dim]) -> Value:
    """A tensor that is the same for all rows, broadcast to a shape in which the number of rows may be.

    Raises:
        Unknown: the number of rows is in it several times, or the axis has a length of its own already.
    """
    shape = value.dims
    if shape is None:
        raise Unknown("has an input whose rank is not known")
    rank = max(len(shape), len(dims))
    own = [1] * (rank - len(shape)) + list(shape)
    wanted = [1] * (rank - len(dims)) + list(dims)
    axes = [axis for axis, length in enumerate(wanted) if counts(length)]
    lengths = [_together([one, other]) for one, other in zip(own, wanted, strict=True)]
    if not axes:
        return same(lengths)
    if len(axes) > 1:
        raise Unknown("gives a shape with the number of rows in several places")
    [axis] = axes
    share = exact(wanted[axis], ROWS)
    if share is None or counts(share) or own[axis] != 1:
        raise Unknown("gives a shape that does not grow with the number of rows")
    return rows(lengths, axis, 1, share, filler=True)
