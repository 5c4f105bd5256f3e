"""`python -m tests.importing`: imports every case and prints what became of it; `--write` writes the page.

Needs the libraries, which `make importing` installs in an environment of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from importing.cases import LIBRARIES  # noqa: E402
from importing.outcomes import Outcome, one  # noqa: E402

PAGE = ROOT / "docs/importing.md"
BEGIN, END = "<!-- table: written by python -m tests.importing --write -->", "<!-- end of table -->"
DISTRIBUTIONS = {"InterpretML": "interpret-core", "XGBoost": "xgboost-cpu"}


def main() -> int:
    """Runs all cases, as many at a time as there are processors; 1 if one is silently wrong."""
    for library, (module, _) in LIBRARIES.items():
        if find_spec(module) is None:
            print(f"{library} is not installed: make importing", file=sys.stderr)
            return 2
    found: list[tuple[str, str, Outcome]] = []
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        waiting = [
            (library, pool.submit(one, library, place))
            for library, (_, cases) in LIBRARIES.items()
            for place in range(len(cases()))
        ]
        for library, each in waiting:
            name, result, seconds = each.result()
            found.append((library, name, result))
            if sys.stdout.isatty() or result.result not in ("right", "refused"):  # quiet in a pipe
                line = result.why.splitlines()[0]
                print(f"{result.result:8} {library:12} {name}: {line} ({seconds:.1f} s)", flush=True)
    wrong = [each for each in found if each[2].result not in ("right", "refused")]
    print(f"{len(found)} cases, {len(wrong)} of them wrong or failed")
    if "--write" in sys.argv:
        text = PAGE.read_text(encoding="utf-8")
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{''.join(_page(found))}{END}{after}", encoding="utf-8")
    return int(bool(wrong))


def _page(found: list[tuple[str, str, Outcome]]) -> Iterator[str]:
    counts = {
        result: sum(each[2].result == result for each in found) for result in ("right", "refused", "WRONG")
    }
    yield (
        f"\n{len(found)} estimators and settings: {counts['right']} right, {counts['refused']} refused with "
        f"a reason, {counts['WRONG']} silently wrong.\n"
    )
    for library in LIBRARIES:
        yield f"\n### {library} {version(DISTRIBUTIONS.get(library, library))}\n\n"
        yield "| estimator | becomes | on rows it never saw, or why |\n|---|---|---|\n"
        for of, name, result in found:
            if of == library:
                why = result.why.splitlines()
                said = (
                    why[0] if len(why) == 1 or not why[-1].startswith("known: ") else f"{why[0]}; {why[-1]}"
                )
                yield f"| `{name}` | {result.result} | {said.replace('|', chr(92) + '|')} |\n"
    yield "\n"


if __name__ == "__main__":
    sys.exit(main())
