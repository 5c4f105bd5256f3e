"""Every operator that the analysis knows, by domain and name, with its rule."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.models.analysis.node import Rule
from penstock.models.analysis.rules import (
    contributed,
    control,
    elementwise,
    images,
    indexing,
    learning,
    linear,
    recurrent,
    reductions,
    shapes,
)

STANDARD, LEARNING, CONTRIBUTED = "", "ai.onnx.ml", "com.microsoft"
VARYING = ("NonZero", "Unique", "NonMaxSuppression", "Compress", "StringNormalizer", "StringSplit")

TABLE: Mapping[str, Mapping[str, Rule]] = {
    STANDARD: control.noting(
        {
            **elementwise.RULES,
            **reductions.RULES,
            **shapes.RULES,
            **indexing.RULES,
            **linear.RULES,
            **images.RULES,
            **recurrent.RULES,
            **learning.TEXT_RULES,
            **control.RULES,
        },
        *VARYING,
    ),
    LEARNING: learning.RULES,
    CONTRIBUTED: contributed.RULES,
}
"""The rules, by domain and operator."""


def rule_of(domain: str, operator: str) -> Rule | None:
    """The rule of an operator; None if it is not known."""
    return TABLE.get("" if domain == "ai.onnx" else domain, {}).get(operator)
