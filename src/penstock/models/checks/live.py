"""Compares answers of live requests that ran together with those of the same requests alone.

The tolerance is that of the check at load. Values that are not floating-point numbers must be equal, with
one exception: such a value may be chosen among numbers that are nearly equal, as the class with the largest
score. Rounding then decides, and a batch may round differently. So if the outputs of a model are known to be
rounded differently in a batch, a few requests may have another class, or the like; see `FEW`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from penstock.core.tensors import Array, DataType, Kind, TensorSpec
from penstock.models.checks.closeness import LEAST_SCALE, accepted, as_float64, relative
from penstock.models.checks.turned import front
from penstock.models.model import Batching
from penstock.scheduling.verification import Mismatch, Outputs

FEW = 1 / 1000
"""The share of requests in which rounding may decide about values that are not floating-point numbers."""


class LiveCheck:
    """Compares the answers of one model: a `penstock.scheduling.verification.Compare`.

    Args:
        outputs: the model's outputs, those of a sequence's state included.
        batching: what the check at load has found.
        tolerance: the largest accepted difference that the settings give; 0 for the usual one.
        row_axes: the axis of the rows, of every output where it is not the first.
    """

    def __init__(
        self,
        outputs: Mapping[str, TensorSpec],
        batching: Batching,
        tolerance: float = 0.0,
        row_axes: Mapping[str, int] | None = None,
    ) -> None:
        self._row_axes = row_axes or {}
        self._datatypes = {name: spec.datatype for name, spec in outputs.items()}
        self._exact = batching.exact
        self._rounds = batching.tolerance > 0.0 and not batching.exact
        self._tolerance = tolerance
        self._compared = self._chosen_otherwise = 0

    def __call__(self, together: Sequence[Outputs], alone: Sequence[Outputs]) -> Mismatch | None:
        """Compares the outputs of some requests of one batch.

        Args:
            together: of each request, as it was answered.
            alone: of each request, run alone.

        Returns:
            The largest difference of the first output that differs by too much; None if there is none.
        """
        self._compared += len(together)
        for name, datatype in self._datatypes.items():
            places = [place for place, each in enumerate(together) if name in each]
            pairs = [(together[place][name], alone[place][name]) for place in places]
            for place, (first, second) in zip(places, pairs, strict=True):
                if first.shape != second.shape:
                    return Mismatch(name, _shapes(name, first, second), None, place)
            different = [index for index, pair in enumerate(pairs) if not np.array_equal(*pair)]
            if not different:
                continue
            if datatype.kind in (Kind.FLOAT, Kind.DOUBLE):
                found = self._numbers(name, datatype, pairs, different)
            else:
                found = self._others(name, different)
            if found is not None:
                return found._replace(place=places[found.place])
        return None

    def _numbers(
        self, name: str, datatype: DataType, pairs: Sequence[tuple[Array, Array]], different: Sequence[int]
    ) -> Mismatch | None:
        axis = self._row_axes.get(name, 0)
        scales = _Scales(as_float64(datatype, front(first, axis)) for first, _ in pairs)

        def difference(place: int) -> float:
            first, second = (as_float64(datatype, front(each, axis)) for each in pairs[place])
            return relative(first, second, scales.of(first))

        worst, place = max((difference(place), place) for place in different)
        if worst <= self._allowed(datatype):
            return None
        words = f"output {name} depends on the other rows of a batch"
        if not np.isfinite(worst):
            return Mismatch(name, words, None, place)
        return Mismatch(name, f"{words} (it differs by {worst:.1e})", worst, place)

    def _others(self, name: str, different: Sequence[int]) -> Mismatch | None:
        self._chosen_otherwise += len(different)
        if self._rounds and self._chosen_otherwise <= 1 + FEW * self._compared:
            return None
        return Mismatch(name, f"output {name} depends on the other rows of a batch", None, different[0])

    def _allowed(self, datatype: DataType) -> float:
        if self._exact:
            return 0.0
        return accepted(datatype, self._tolerance)


class _Scales:
    """How large the values of an output are at each place, in all requests of a batch.

    Args:
        arrays: the output of each request; only those of equal inner shapes are comparable.
    """

    def __init__(self, arrays: Iterator[Array]) -> None:
        self._sizes: dict[tuple[int, ...], Array] = {}
        for array in arrays:
            sizes = np.abs(np.where(np.isfinite(array), array, 0.0))
            if len(sizes):
                largest, inner = sizes.max(axis=0), sizes.shape[1:]
                known = self._sizes.get(inner)
                self._sizes[inner] = largest if known is None else np.maximum(known, largest)

    def of(self, array: Array) -> Array:
        """The scale of each place of an array, in the shape of its rows."""
        sizes = self._sizes[array.shape[1:]]
        least = max(LEAST_SCALE * float(sizes.max(initial=0.0)), float(np.finfo(np.float32).tiny))
        scale: Array = np.maximum(sizes, least)
        return scale


def _shapes(name: str, together: Array, alone: Array) -> str:
    return (
        f"output {name} depends on the other rows of a batch (it has shape {list(together.shape)}, and "
        f"{list(alone.shape)} alone)"
    )


def why_not_verified(random_node: str, own_lengths: bool, share: float) -> str:
    """Why batches of a model are not verified; "" if they are.

    Args:
        random_node: the node that draws random numbers; see `GraphFacts`.
        own_lengths: whether padded outputs have lengths that the model gives itself.
        share: the share of batches that the settings want verified.
    """
    if random_node:
        return f"{random_node} draws random numbers"
    if own_lengths:
        return "an output has a length that the model gives itself"
    return "" if share else "batching.verify is 0"


def verified(share: float, unproven: bool) -> str:
    """What is verified of a model's batches, as a sentence.

    Args:
        share: the share of batches.
        unproven: whether the graph does not show that rows keep apart.
    """
    each = "every batch" if share == 1.0 else f"one batch in {1.0 / share:.6g}"
    if not unproven:
        return f"{each} is verified on live requests, in idle time"
    when = "in idle time or after 0.1 s beside other runs"
    return f"{each}, or about ten a second, is verified on live requests, {when}"
