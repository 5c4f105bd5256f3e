"""Inputs of a padded model at a fixed length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from penstock.backends.backend import Backend
from penstock.core.tensors import Array, Signature
from penstock.scheduling.packing.padding import PaddingPlan


class AtBucket:
    """A model with its lengths fixed at the middle bucket, to be checked and timed.

    Args:
        backend: the model.
        plan: how it is padded.
    """

    def __init__(self, backend: Backend, plan: PaddingPlan) -> None:
        self.signature = at_length(backend.signature, plan, plan.buckets[(len(plan.buckets) - 1) // 2])
        self.file, self.providers = backend.file, backend.providers
        self.run, self.close = backend.run, backend.close


def at_length(signature: Signature, plan: PaddingPlan, length: int) -> Signature:
    """The signature with all padded axes of this length."""
    inputs = dict(signature.inputs)
    for name, axis in plan.axes.items():
        shape = inputs[name].shape or ()
        inputs[name] = replace(inputs[name], shape=(*shape[:axis], length, *shape[axis + 1 :]))
    return Signature(inputs, signature.outputs)


def unpadded(row: Mapping[str, Array], plan: PaddingPlan) -> Mapping[str, Array]:
    """The row as it would be sent to a model that is not padded: its mask is all 1."""
    filled: dict[str, Any] = {plan.mask: 1, plan.lengths: plan.length(row)}
    return {
        name: np.full(array.shape, filled[name], array.dtype) if name in plan.optional else array
        for name, array in row.items()
    }
