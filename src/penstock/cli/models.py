"""`penstock models`: lists the models of a server, their inputs and outputs, and the cost of their runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli.output import say
from penstock.cli.target import said, with_target_argument
from penstock.core.names import many, on_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock_client import ModelInfo, RunCost


@click.command()
@with_target_argument
@click.option("--why", is_flag=True, help="Also show what batching rests on: the graph, and what was tried.")
@click.option("--timeout", default=3.0, show_default=True, help="Seconds to wait for an answer.")
def models(target: str, why: bool, timeout: float) -> None:
    """List the models of a server, with the expected cost of their runs.

    Without TARGET: the server that the settings describe, on this machine.
    """
    from penstock_client import Client, PenstockError

    try:
        with Client(target, timeout=timeout) as client:
            found = client.models()
    except PenstockError as error:
        raise click.ClickException(said(target, error)) from None
    say("".join(f"{line}\n" for model in found for line in _lines(model, why)))


FAILED = "FAILED"
RUNS_FOR_SPREAD = 40  # fewer say little about the slowest 5 %
LEAST_SECONDS = 1e-8  # less cannot be measured


def _lines(model: ModelInfo, with_why: bool = False) -> Iterator[str]:
    default = ", the default" if model.is_default else ""
    labels = f", also {', '.join(model.labels)}" if model.labels else ""
    why = f" ({model.state_reason})" if model.state_reason else ""
    yield f"{model.name}  version {model.version}{default}{labels}  {model.state}{why}"
    if model.state == FAILED:  # nothing is known of it
        return
    inputs = [f"{each.name} {each}{' (optional)' if each.optional else ''}" for each in model.inputs]
    yield on_lines("  inputs     ", inputs)
    yield on_lines("  outputs    ", [f"{each.name} {each}" for each in model.outputs])
    if model.kept_state is not None:
        pairs = ", ".join(f"{name} from {output}" for name, output in sorted(model.kept_state.state.items()))
        yield f"  state      {pairs}, dropped {model.kept_state.idle_seconds:g} s after the last step"
    if model.batching.enabled:
        yield f"  batched    up to {many(model.batching.max_rows, 'row')}: {model.batching.reason}"
    else:
        yield f"  alone      {model.batching.reason}"
    for sentence in model.batching.why if with_why else ():
        yield f"  why        {sentence}"
    for cost in model.batching.costs:
        yield f"  costs      {_cost(cost, batched=model.batching.enabled)}"


def _cost(cost: RunCost, batched: bool = True) -> str:
    size = f", rows of up to {many(cost.elements, 'element')}" if cost.elements else ""
    learned = f"after {many(cost.runs, 'run')}" if cost.runs else "as measured when it was tried, no runs yet"
    known = cost.spread > 1 and cost.runs >= RUNS_FOR_SPREAD
    spread = f", 5 % of runs take more than {cost.spread:.2g} times that" if known else ""
    return f"{_line(cost, batched)}{spread} ({learned}{size})"


def _line(cost: RunCost, batched: bool) -> str:
    """The times of a run and of its rows; less than `LEAST_SECONDS` is nothing."""
    base, row = cost.base_seconds, cost.row_seconds
    if base < LEAST_SECONDS and row < LEAST_SECONDS:
        return "less than can be measured"
    if not batched:
        return f"{_time(base + row)} a run"
    if base < LEAST_SECONDS:
        return f"{_time(row)} a row, no fixed cost"
    return f"{_time(base)} a run" + (
        f" and {_time(row)} a row" if row >= LEAST_SECONDS else ", however many rows"
    )


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"
