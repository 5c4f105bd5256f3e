"""Writes docs/conformance.md."""

from __future__ import annotations

import platform
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import grpc

from tests.conformance.growth import Start
from tests.conformance.reference import Verdict
from tests.conformance.report import Run, careful, differing, summary, with_verdict
from tests.conformance.suite import MIXER, UNSEEN, Shared

FILE = re.compile(r"^/\S*\.onnx(?= |: )")
"""The path that some reasons begin with."""
DETAILS = re.compile(
    r"'[^']*'"
    r'|"[^"]*"'
    r"|(?<=input )\S+(?= is)"
    r"|(?<=output )\S+(?= (?:is|has|depends)| differs)"
    r"|(?<=the shape of output )\S+"
    r"|\[[^\]]*\]"
    r"|\b\S+\.cc:\d+ "
)
"""What differs between the reasons of cases that have the same one."""
LONGEST_REASON = 160

INTRODUCTION = """# Conformance

The [onnx](https://onnx.ai) package has test cases for runtimes of ONNX models: small models of one operator,
some of several operators, and a few networks. `make conformance` serves all cases that ONNX Runtime runs on
a CPU from one repository and sends each case's inputs. It compares every output with the output of ONNX
Runtime in the test's own process, on one thread and with the same optimizations: bit for bit, names,
datatypes and shapes included.

Then it tests batching. The first axis of every case is made open, inputs without rows become constants, and
rows are made from the case's own values. The test finds out without the server whether rows depend on each
other, by running them alone and together. Then it sends them to a server, 32 in one message and 16 by
concurrent calls, so that they run together, and compares each answer with the row alone. If rows influence
each other, the server must have found this out at load, from its own generated rows, and must run every
request alone.

A quick part of this runs in `make test`.

**Last bits.** The result of ONNX Runtime for a row can depend on the position of the row in memory.
Functions such as Log, Sin or Elu are computed four elements at a time; the elements that are left at the end
of a tensor are computed one by one with another formula. So three elements alone and the same three in a
batch can differ. Sums along a row are vectorized from the next address that is a multiple of 16, so their
order depends on the address, and a row of a batch has another address than the same row alone. Neither the
optimization level nor `use_deterministic_compute` changes this. If the answers of a model must be the same
to the last bit, set `batching.enabled = false`.
"""
MARK = "<!-- From here on, `make conformance ARGS=--write` writes. -->"


def page(run: Run) -> str:
    """The text."""
    return "\n".join([INTRODUCTION, MARK, "", *_parts(run)]).rstrip() + "\n"


def groups(reasons: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Names by the reason that they have in common, the largest groups first; takes names and reasons."""
    found = defaultdict(list)
    for name, reason in reasons:
        found[_general(reason)].append(name)
    return dict(sorted(found.items(), key=lambda entry: (-len(entry[1]), entry[0])))


def _general(reason: str) -> str:
    reason = FILE.sub("the file", reason)
    text = DETAILS.sub("…", reason.partition("supported datatypes: ")[0])
    text = text.replace("ONNX Runtime cannot load: ", "").rstrip(" ;,:")
    text = text.replace("the model failed on this request: Non-zero status code returned while running ", "")
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON].rstrip()}…"


def _parts(run: Run) -> Iterator[str]:
    yield f"{platform.machine()}, Python {platform.python_version()}, grpcio {grpc.__version__}.\n"
    yield f"```text\n{summary(run)}```\n"
    yield from _starts(run.starts)
    yield from _rows(run.of_cases())
    yield from _by_hand(run)
    for title, words, verdict in (
        (
            "Rejected by the server",
            "ONNX Runtime loads these models; the server rejects them with the reason.",
            Verdict.REFUSED,
        ),
        (
            "Not run by ONNX Runtime",
            "Its CPU provider has no kernel for these cases, or they fail.",
            Verdict.NOT_RUN,
        ),
        (
            "Random",
            "Each run gives other values, so only datatypes and shapes are compared.",
            Verdict.RANDOM,
        ),
    ):
        found = [(each.case.name, each.reason) for each in with_verdict(run.judged, verdict)]
        yield from _section(title, words, groups(found))
    other = [(each.case.name, each.case.operator) for each in run.judged if each.as_expected is False]
    words = "The server answers as ONNX Runtime does, which is outside of the case's tolerance."
    yield from _section("Not as the case expects", words, groups(other))


def _rows(cases: Sequence[Shared]) -> Iterator[str]:
    other = differing(cases)
    if other:
        yield "## Rows that differ in the last bits\n"
        yield "| case | operator | difference, to the largest value | the server says at load |"
        yield "|---|---|---|---|"
    for each in other:
        worst = max(each.answered.worst if each.answered else 0.0, each.variant.worst)
        yield f"| {each.variant.name} | {each.variant.operator} | {worst:.0e} | {_cell(each.reason)} |"
    yield ""
    found = groups((each.variant.name, each.reason) for each in careful(cases))
    words = "The case's own rows could be batched; the server's generated rows could not."
    yield from _section("Rows that seem independent, and run alone", words, found)


def _by_hand(run: Run) -> Iterator[str]:
    for title, beginning in (
        ("Hand-made models whose rows mix", MIXER),
        (
            "Hand-made models whose generated rows do not show the mixing: use `batching.enabled = false`",
            UNSEEN,
        ),
    ):
        made = run.made_by_hand(beginning)
        if made:
            yield f"## {title}\n\n| model | the server says at load |\n|---|---|"
        for each in made:
            how = "batched" if each.batched else "alone"
            yield f"| {each.variant.operator} | {how}: {_cell(each.reason)} |"
        yield ""


def _starts(starts: Mapping[str, Sequence[Start]]) -> Iterator[str]:
    if starts:
        yield "## Starting with many models\n"
        yield "Time until the server serves, best of three. The last columns compare with the first line.\n"
    for title, measured in starts.items():
        yield f"| {title} | seconds | resident MiB | ms a model | KiB a model |\n|---|---|---|---|---|"
        first = measured[0]
        for start in measured:
            more = start.models - first.models
            seconds, mib = start.seconds - first.seconds, start.mib - first.mib
            shares = f"{1000 * seconds / more:.1f} | {1024 * mib / more:.0f}" if more else "|"
            yield f"| {start.models} | {start.seconds:.2f} | {start.mib:.0f} | {shares} |"
        yield ""


def _section(title: str, words: str, found: Mapping[str, Sequence[str]]) -> Iterator[str]:
    if not found:
        return
    yield f"## {title}\n\n{words}\n\n| cases | reason | which |\n|---|---|---|"
    for reason, names in found.items():
        yield f"| {len(names)} | {_cell(reason)} | {' '.join(f'`{name}`' for name in sorted(names))} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
