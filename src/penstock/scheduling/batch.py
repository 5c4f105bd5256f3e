"""Putting requests together into one run and taking the answer apart again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from penstock.messages import InferRequest
from penstock.tensors import Array


def assemble(requests: Sequence[InferRequest]) -> Mapping[str, Array]:
    """The inputs of a batch: every request's rows, one after another, in one new buffer an input.

    A lone request's arrays are used as they are.
    """
    first = requests[0].inputs
    if len(requests) == 1:
        return first
    return {name: np.concatenate([request.inputs[name] for request in requests]) for name in first}


def wanted_outputs(requests: Sequence[InferRequest]) -> Sequence[str]:
    """The outputs that at least one request of a batch wants, each once."""
    first = requests[0].outputs
    for request in requests:
        if request.outputs is not first and request.outputs != first:
            return list(dict.fromkeys(name for request in requests for name in request.outputs))
    return first


def split(
    requests: Sequence[InferRequest], names: Sequence[str], outputs: Sequence[Array]
) -> Iterator[dict[str, Array]]:
    """Every request's own rows of the outputs it wants, as views, in the order of the requests."""
    if len(requests) == 1:
        yield dict(zip(names, outputs, strict=True))
        return
    by_name = dict(zip(names, outputs, strict=True))
    start = 0
    for request in requests:
        end = start + request.rows
        yield {name: by_name[name][start:end] for name in request.outputs}
        start = end
