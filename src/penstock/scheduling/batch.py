"""Putting requests together into one run and taking the answer apart again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from penstock.messages import InferRequest, InferResponse, Run
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


def split(requests: Sequence[InferRequest], run: Run, batched: bool) -> list[InferResponse]:
    """Every request's answer: its own rows of the outputs it wants, in the order of the requests."""
    if not batched:
        return [InferResponse(run, each.outputs, run.started - each.arrived) for each in requests]
    started = run.started
    if len(requests) == 1:
        only = requests[0]
        return [InferResponse(run, only.outputs, started - only.arrived, 0, only.rows)]
    stop = 0
    return [
        InferResponse(run, each.outputs, started - each.arrived, stop, stop := stop + each.rows)
        for each in requests
    ]
