"""What the graph of a model says about its rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from penstock.models.analysis.facts import GraphFacts


def graph_facts(path: Path, row_axes: Mapping[str, int | None]) -> GraphFacts:
    """Reads the graph of a model file.

    Args:
        path: the file.
        row_axes: see `penstock.models.analysis.proof.analyse`.
    """
    # Late: its import of onnx takes a while, and is seldom needed.
    from penstock.models.analysis.proof import analyse

    return analyse(path, row_axes)
