"""`python -m tests.importing GROUP`: imports every case of a group and says what became of it.

Needs the libraries, which `make GROUP` installs in an environment of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from importing import page, workers  # noqa: E402
from importing.groups import GROUPS, environment  # noqa: E402
from importing.outcomes import Outcome, one  # noqa: E402

EXPECTED = ("right", "refused")


def main() -> int:
    """Runs the cases, as many at a time as there are processors; 1 if one is silently wrong or fails."""
    arguments = _arguments()
    libraries = GROUPS[arguments.group]
    if absent := [name for name, each in libraries.items() if find_spec(each.module) is None]:
        print(f"{', '.join(absent)}: not installed here; run make {arguments.group}", file=sys.stderr)
        return 2
    os.environ.update(environment())
    tasks = [
        (arguments.group, name, place)
        for name, each in libraries.items()
        for place in range(len(each.cases))
        if arguments.only in each.cases[place].name
    ]
    found = _run(tasks, arguments)
    failed = [outcome for outcome in found.values() if outcome.result not in EXPECTED]
    print(f"{len(found)} cases, {len(failed)} of them wrong or failed")
    if arguments.write and any(each.result == "FAILED" for each in failed):
        print(f"{page.PAGE.name} is left as it was", file=sys.stderr)
    elif arguments.write:
        by_library = {
            name: [(case.name, found[name, place]) for place, case in enumerate(each.cases)]
            for name, each in libraries.items()
        }
        page.write(arguments.group, "".join(page.table(by_library, lambda name: libraries[name].version)))
    return int(bool(failed))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.importing", description=__doc__)
    parser.add_argument("group", nargs="?", default="importing", choices=GROUPS)
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose names hold TEXT")
    parser.add_argument("--seconds", type=float, default=600, help="the most that a case may take")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="cases at a time")
    parser.add_argument("--verbose", action="store_true", help="print a line for each case")
    parser.add_argument(
        "--resume", type=Path, metavar="FILE", help="keep what is found in FILE, and do not run that again"
    )
    parser.add_argument("--write", action="store_true", help="write the table of docs/importing.md")
    arguments = parser.parse_args()
    if arguments.write and arguments.only:
        parser.error("the page is about all cases: --write without --only")
    return arguments


def _run(tasks: list[tuple[str, str, int]], arguments: argparse.Namespace) -> dict[tuple[str, int], Outcome]:
    """What became of each case, by library and place; on a terminal, a line shows how far it is."""
    kept = _kept(arguments.resume)
    names = {task: GROUPS[task[0]][task[1]].cases[task[2]].name for task in tasks}
    found = {task[1:]: kept[task[1], names[task]] for task in tasks if (task[1], names[task]) in kept}
    tasks = [each for each in tasks if each[1:] not in found]
    on_terminal = sys.stderr.isatty()
    for ended in workers.run(one, tasks, arguments.workers, arguments.seconds):
        task = tasks[ended.place]
        library, name = task[1], names[task]
        outcome = Outcome("FAILED", ended.failure) if ended.failure else ended.result
        found[task[1:]] = outcome
        if arguments.resume and outcome.result in EXPECTED:
            with arguments.resume.open("a", encoding="utf-8") as file:
                file.write(json.dumps([library, name, *outcome]) + "\n")
        if on_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        if arguments.verbose or outcome.result not in EXPECTED:
            said = outcome.why.splitlines()[0]
            print(f"{outcome.result:8} {library:12} {name}: {said} ({ended.seconds:.1f} s)", flush=True)
        if on_terminal:
            print(f"{len(found)}/{len(names)} {library} {name}", end="", file=sys.stderr, flush=True)
    if on_terminal:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return found


def _kept(path: Path | None) -> dict[tuple[str, str], Outcome]:
    """What a run before has found, by library and name."""
    if path is None or not path.is_file():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {(library, name): Outcome(*outcome) for library, name, *outcome in lines}


if __name__ == "__main__":
    sys.exit(main())
