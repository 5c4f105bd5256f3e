"""Finds out from the graph of a model whether rows that run together stay apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.models.analysis.arithmetic import INT_TYPES
from penstock.models.analysis.facts import GraphFacts, Verdict
from penstock.models.analysis.follower import Follower, TooMuch
from penstock.models.analysis.node import Fork, Impossible, Scope
from penstock.models.analysis.protos import declared
from penstock.models.analysis.reading import read
from penstock.models.analysis.unbounded import unbounded_node
from penstock.models.analysis.values import Kind, Value, rows, same, unknown

if TYPE_CHECKING:
    import onnx


MOST_CASES = 32
"""The most combinations of branches that are followed one by one."""


def analyse(path: Path, row_axes: Mapping[str, int | None]) -> GraphFacts:
    """Follows the rows of a batch through the graph of a model, without running it.

    A verdict of row-wise is a proof for every number of rows and all values: each row of each output is
    what the row alone gives, apart from rounding. It assumes that the operators do what ONNX says of them,
    and that each row can run alone.

    Args:
        path: the ONNX file. Values of large tensors and external data are not read.
        row_axes: for every input the axis along which rows lie; None for one that the whole batch shares.
    """
    try:
        model = read(path)
        return replace(analyse_model(model, row_axes), unbounded_node=unbounded_node(model))
    except (ValueError, OSError, ImportError) as error:
        return GraphFacts(reason=f"the graph cannot be read: {error}")
    except Exception as error:  # a model that runs must not fail to be served because it cannot be analysed
        return GraphFacts(reason=f"the graph cannot be analysed: {type(error).__name__}: {error}")


def analyse_model(model: onnx.ModelProto, row_axes: Mapping[str, int | None]) -> GraphFacts:
    """The same for a model in memory."""
    impossible = ""
    cases: list[dict[str, bool]] = [{}]
    found: list[GraphFacts] = []
    for case in cases:
        try:
            found.append(_followed(model, row_axes, case))
        except Fork as node:
            if len(cases) > MOST_CASES or str(node) in case:
                return GraphFacts(reason=f"{node} has branches that differ too much")
            cases += [{**case, str(node): True}, {**case, str(node): False}]
        except Impossible as why:
            impossible = str(why)
        except (TooMuch, RecursionError) as error:
            return GraphFacts(reason=f"the graph cannot be followed: {error}")
    return _together(found) if found else GraphFacts(reason=impossible)


def _followed(
    model: onnx.ModelProto, row_axes: Mapping[str, int | None], case: Mapping[str, bool]
) -> GraphFacts:
    """What the graph says where these nodes take these branches."""
    functions = {(function.domain, function.name): function for function in model.functions}
    follower = Follower(functions, case)
    opsets = {
        ("" if entry.domain == "ai.onnx" else entry.domain): entry.version for entry in model.opset_import
    }
    scope = Scope(opsets)
    for info in model.graph.input:
        if info.name in row_axes:
            scope.values[info.name] = _input(info, row_axes[info.name])
    follower.initialize(model.graph, scope)
    follower.nodes(model.graph.node, scope)
    outputs = {info.name: scope.find(info.name) for info in model.graph.output}
    verdict, reason = _verdict(outputs)
    return GraphFacts(
        verdict,
        reason,
        {name: value.axis for name, value in outputs.items() if value.whole_rows and not value.numbers},
        follower.random,
        follower.varying,
        index_bounds=follower.bounds,
    )


def _together(cases: Sequence[GraphFacts]) -> GraphFacts:
    """What is true in all cases."""
    ranked = sorted(
        cases, key=lambda each: (each.verdict is not Verdict.MIXES, each.verdict is not Verdict.UNKNOWN)
    )
    worst = ranked[0]
    axes = {
        name: axis
        for name, axis in worst.output_axes.items()
        if all(c.output_axes.get(name) == axis for c in cases)
    }
    if worst.verdict is Verdict.ROW_WISE and len(axes) < len(worst.output_axes):
        worst = replace(
            worst, verdict=Verdict.UNKNOWN, reason="rows of an output lie on different axes, by length"
        )
    bounds: dict[str, int] = {}
    for each in cases:
        for name, bound in each.index_bounds.items():
            bounds[name] = min(bound, bounds.get(name, bound))
    return replace(
        worst,
        output_axes=axes,
        random_node=next((each.random_node for each in cases if each.random_node), ""),
        varying_node=next((each.varying_node for each in cases if each.varying_node), ""),
        index_bounds=bounds,
    )


def _input(info: onnx.ValueInfoProto, axis: int | None) -> Value:
    """What is known of an input before anything was run."""
    dims = declared(info)
    source = info.name if info.type.tensor_type.elem_type in INT_TYPES else ""
    if axis is None:
        return replace(same(dims), asked=True, source=source)
    if dims is None:
        return unknown(f"input {info.name} declares no shape")
    place = axis + len(dims) if axis < 0 else axis
    if not 0 <= place < len(dims):
        return unknown(f"input {info.name} has no axis {axis}")
    return replace(rows(dims, place), source=source)


def _verdict(outputs: Mapping[str, Value]) -> tuple[Verdict, str]:
    """What the outputs say together, and the reason of the first that is not row-wise."""
    if not outputs:
        return Verdict.UNKNOWN, "the graph has no outputs"
    reasons = {name: _why_mixed(name, value) for name, value in outputs.items()}
    if any(reasons.values()):
        return Verdict.MIXES, next(filter(None, reasons.values()))
    reasons = {name: _why_unknown(name, value) for name, value in outputs.items()}
    if any(reasons.values()):
        return Verdict.UNKNOWN, next(filter(None, reasons.values()))
    return Verdict.ROW_WISE, ""


def _why_mixed(name: str, value: Value) -> str:
    if value.kind is Kind.COUNT:
        return f"output {name} depends on the number of rows"
    if value.numbers:
        return f"output {name} depends on the place of a row in the batch"
    return value.why if value.kind is Kind.MIXED else ""


def _why_unknown(name: str, value: Value) -> str:
    if value.kind is Kind.UNKNOWN:
        return value.why
    if not value.has_rows:
        return f"output {name} is the same whatever the rows"
    if not value.whole_rows:
        return f"output {name} has {value.outer * value.inner} entries a row on axis {value.axis}"
    return ""
