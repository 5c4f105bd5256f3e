"""`penstock models`: what a server serves, and what it has learned of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock_client import ModelInfo, RunCost


@click.command()
@click.argument("target", default="127.0.0.1:8001")
@click.option("--timeout", default=3.0, show_default=True, help="Seconds to wait for an answer.")
def models(target: str, timeout: float) -> None:
    """List what the server at TARGET serves, and what its runs take."""
    from penstock_client import Client, PenstockError

    try:
        with Client(target, timeout=timeout) as client:
            found = client.models()
    except PenstockError as error:
        raise click.ClickException(f"{target}: {error}") from None
    click.echo("\n".join(line for model in found for line in _lines(model)))


RUNS_FOR_SPREAD = 40  # of one in twenty, there should have been some
LEAST_SECONDS = 1e-8  # less is nothing that anybody has measured


def _lines(model: ModelInfo) -> Iterator[str]:
    default = ", the default" if model.is_default else ""
    labels = f", also {', '.join(model.labels)}" if model.labels else ""
    why = f" ({model.state_reason})" if model.state_reason else ""
    yield f"{model.name}  version {model.version}{default}{labels}  {model.state}{why}"
    takes = (f"{each.name} {each}{' (optional)' if each.optional else ''}" for each in model.inputs)
    yield f"  takes    {', '.join(takes) or 'nothing'}"
    yield f"  gives    {', '.join(f'{each.name} {each}' for each in model.outputs)}"
    if model.kept_state is not None:
        pairs = ", ".join(f"{name} from {output}" for name, output in sorted(model.kept_state.state.items()))
        yield f"  keeps    {pairs}, until no step has come for {model.kept_state.idle_seconds:g} s"
    if model.batching.enabled:
        yield f"  batched  up to {model.batching.max_rows} rows: {model.batching.reason}"
    else:
        yield f"  alone    {model.batching.reason}"
    for cost in model.batching.costs:
        yield f"  costs    {_cost(cost)}"


def _cost(cost: RunCost) -> str:
    size = f", rows of up to {cost.elements} elements" if cost.elements else ""
    learned = f"after {cost.runs} runs" if cost.runs else "only measured at load, no run yet"
    known = cost.spread > 1 and cost.runs >= RUNS_FOR_SPREAD
    spread = f", one in twenty over {cost.spread:.2g} times that" if known else ""
    return f"{_time(cost.base_seconds)} a run and {_time(cost.row_seconds)} a row{spread} ({learned}{size})"


def _time(seconds: float) -> str:
    if seconds < LEAST_SECONDS:
        return "under 0.01 µs"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"
