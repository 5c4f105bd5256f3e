"""Every relative link in the documentation leads to a file, and every anchor to a heading, that exists."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]

FENCED = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t]*#*$", re.MULTILINE)
LINK = re.compile(r"(?<!\\)\]\(\s*<?([^)\s>]+)>?[^)]*\)")
DEFINITION = re.compile(r"^[ ]{0,3}\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
ATTRIBUTE = re.compile(r"\b(?:src|srcset|href)=\"([^\"\s]+)\"")
EXTERNAL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//")


def pages() -> list[Path]:
    """The Markdown files of the project, new ones included, ignored ones not."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def links(text: str) -> Iterator[str]:
    """The targets of a page's links and pictures, code left out."""
    prose = CODE.sub("", FENCED.sub("", text))
    for pattern in (LINK, DEFINITION, ATTRIBUTE):
        yield from pattern.findall(prose)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: Counter[str] = Counter()
    made = set()
    for heading in HEADING.findall(FENCED.sub("", text)):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        made.add(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return made


@cache
def anchors_of(page: Path) -> set[str]:
    return anchors(page.read_text("utf-8"))


def problem(page: Path, link: str) -> str | None:
    """What is wrong with a link of a page; None where it leads somewhere or leaves the project."""
    if EXTERNAL.match(link):
        return None
    name, _, anchor = unquote(link).partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists():
        return f"{link}: no such file"
    if not target.is_relative_to(ROOT):
        return f"{link}: outside of the project"
    if anchor and target.suffix == ".md" and anchor not in anchors_of(target):
        return f"{link}: no such heading"
    return None


def test_every_relative_link_and_anchor_exists() -> None:
    found = [(page, link) for page in pages() for link in links(page.read_text("utf-8"))]
    assert len(found) > 50
    broken = [f"{page.relative_to(ROOT)}: {said}" for page, link in found if (said := problem(page, link))]
    assert broken == []


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("other.md", "no such file"),
        ("../README.md#nothing", "no such heading"),
        ("#nothing", "no such heading"),
        ("../../../..", "outside of the project"),
    ],
)
def test_a_broken_link_is_found(link: str, said: str) -> None:
    page = ROOT / "docs" / "models.md"
    assert [*links(f"see [a page]({link} 'title') and `[code](x.md)`\n```\n[x](y.md)\n```\n")] == [link]
    assert problem(page, link) == f"{link}: {said}"


def test_headings_make_the_anchors_that_github_makes() -> None:
    text = "# `a.b`: What *is* it?\n## Same\n```\n# no heading\n```\n## Same\n### [a page](x.md), too\n"
    assert anchors(text) == {"ab-what-is-it", "same", "same-1", "a-page-too"}
