"""The table of operators in `docs/graph-analysis.md`, made from the rules.

    python docs/write_graph_analysis.py docs/graph-analysis.md

writes it anew between its markers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from penstock.models.analysis.table import TABLE

MARKER, END = "<!-- operators -->", "<!-- end -->"


def updated(text: str) -> str:
    """A page with its table made anew: what stands between the markers."""
    new = "\n".join([MARKER, *_tables(), END])
    return re.sub(f"{MARKER}.*?{END}", lambda _: new, text, flags=re.DOTALL)


def _tables() -> Iterator[str]:
    for domain, rules in TABLE.items():
        yield f"\n### {f'`{domain}`' if domain else 'The standard operator set'}\n"
        yield "| operator | row-wise |\n|---|---|"
        yield from (f"| {name} | {rule.when} |" for name, rule in sorted(rules.items()))
    yield ""


def main(path: Path) -> None:
    """Writes the page."""
    path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
