"""The page about the analysis lists the operators that it knows."""

from __future__ import annotations

from pathlib import Path

from docs.write_graph_analysis import updated

PAGE = Path(__file__).parents[3] / "docs/graph-analysis.md"


def test_the_table_of_operators_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert updated(text) == text, "run: python docs/write_graph_analysis.py docs/graph-analysis.md"
