"""Medians, ratios, the table of what is to be reached, and the page that holds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import page, reach, tables
from benchmarks.figures import Results
from benchmarks.groups import GROUPS, chosen

ROOT = Path(__file__).parents[2]
FACTS = {
    "machine": "a machine",
    "date": "2026-01-02",
    "commit": "abc",
    "versions": {"Python": "3"},
    "h2load": "h2load",
    "command": "make bench",
    "rounds": 3,
    "seconds": 1.0,
}


@pytest.fixture
def results() -> Results:
    """Three rounds in which the machine's speed doubles and halves."""
    made = Results(facts=FACTS)
    for speed in (1.0, 2.0, 0.5):
        made.add("unary-32", "yardstick", {"rate": 900 * speed, "cpu_us": 100})
        made.add("unary-32", "yardstick-tuned", {"rate": 1000 * speed, "cpu_us": 90})
        made.add("unary-32", "penstock", {"rate": 4600 * speed, "cpu_us": 20, "mean_us": 7})
        made.add("unary-32", "portable", {"rate": 700 * speed, "cpu_us": 130})
        made.add("medium", "direct-32", {"rate": 50_000 * speed})
        made.add("medium", "256", {"rate": 40_000 * speed})
    made.missing["unary-32"] = {"processes": "it is not here"}
    return made


def test_ratios_are_taken_within_rounds(results: Results) -> None:
    reference = results.fastest("unary-32", ("yardstick", "yardstick-tuned"))
    assert reference == "yardstick-tuned"
    assert results.ratios("unary-32", "penstock", reference) == pytest.approx([4.6, 4.6, 4.6])
    assert results.ratios("unary-32", "nothing", reference) == []
    assert results.median("unary-32", "penstock", "rate") == 4600


def test_what_failed_leaves_no_figures(results: Results) -> None:
    results.fail("unary-32", "portable", "it broke")
    assert results.values("unary-32", "portable", "rate") == []
    assert results.failed
    assert "it failed: it broke" in tables.plain(results)


def test_the_reach_is_judged_by_the_median(results: Results) -> None:
    lines = list(reach.table(results))
    [unary] = [line for line in lines if line.startswith("| unary, 32")]
    assert unary.startswith("| unary, 32 in flight: calls/s over the yardstick's | ≥ 4.5 | 4.60 | 4.60")
    assert unary.endswith("| reached |")
    [medium] = [line for line in lines if line.startswith("| medium")]
    assert "| 1.25 |" in medium  # time over time, so the rates the other way round
    [portable] = [line for line in lines if line.startswith("| portable")]
    assert "0.70" in portable
    assert "**not reached**" in portable
    assert len(lines) == 2 + 3  # nothing that was not measured


def test_times_are_scaled_to_the_yardstick_they_were_set_by() -> None:
    results = Results()
    for _ in range(3):
        results.add("multiplexed", "yardstick-tuned", {"rate": reach.YARDSTICK_RATE / 2})
        results.add("multiplexed", "256", {"rate": 1e5, "cpu_us": 10.0, "client_cpu_us": 15.0})
    [server, client] = [line for line in reach.table(results) if "CPU per prediction" in line]
    assert "| 5.00 µs (10.0 µs here) |" in server
    assert server.endswith("| reached |")
    assert "| 7.50 µs (15.0 µs here) |" in client
    assert client.endswith("| **not reached** |")


def test_every_target_is_measured_by_some_series() -> None:
    unknown = [target.what for target in reach.TARGETS if target.series not in GROUPS[target.group].series]
    assert unknown == []


def test_the_page_keeps_what_people_wrote(results: Results) -> None:
    text = (ROOT / "docs/benchmarks.md").read_text()
    renewed = page.renewed(text, results, {"unary": "Calls a second"})
    before, _, rest = text.partition(page.BEGIN)
    after = rest.partition(page.END)[2]
    assert renewed.startswith(before)
    assert renewed.endswith(after)
    assert "| Penstock | 4,600 | 7.00 | 20.0 | 2,300 | 9,200 | 4.60 |" in renewed
    assert "Not measured: Penstock, 2 processes on both cores, since it is not here." in renewed
    assert 'srcset="pictures/unary-dark.svg"' in renewed
    assert page.renewed(renewed, results, {"unary": "Calls a second"}) == renewed


def test_a_page_without_markers_is_refused(results: Results) -> None:
    with pytest.raises(ValueError, match="must hold these two lines"):
        page.renewed("no markers", results, {})


def test_peers_are_measured_only_where_asked_for() -> None:
    assert [name for name in chosen(None, quick=False, peers=False) if "peers" in name] == []
    assert "peers-32" in chosen(None, quick=True, peers=True)
    assert "memory" not in chosen(None, quick=True, peers=False)
    assert list(chosen(["memory"], quick=True, peers=False)) == ["memory"]
