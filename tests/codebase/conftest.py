"""Builds the image beside the other tests, since it takes longer than any of them."""

from __future__ import annotations

import pickle
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from support import beside
from support.image import Image, parse

ROOT = Path(__file__).parents[2]
BUILD_SECONDS = 600
WANTED = pytest.StashKey[bool]()
ALONE = pytest.StashKey[bool]()
"""Whether any test of this run runs alone."""
BUILDING = pytest.StashKey[Future[Image]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives the tests of the image time to wait for it."""
    for item in filter(_wants_image, items):
        item.add_marker(pytest.mark.timeout(BUILD_SECONDS))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Notes whether to build: where any test that runs wants it, and in one process, if there are several."""
    config = session.config
    first = not beside.is_worker(config) or config.workerinput["workerid"] == "gw0"
    config.stash[WANTED] = first and any(map(_wants_image, session.items))
    config.stash[ALONE] = any(map(_is_alone, session.items))


def pytest_runtest_protocol(item: pytest.Item) -> None:
    """Begins to build when no test runs alone any more."""
    config = item.config
    if not config.stash[WANTED] or _is_alone(item):
        return
    if beside.alone_is_over(config) or not config.stash[ALONE]:
        config.stash[WANTED] = False
        config.stash[BUILDING] = ThreadPoolExecutor(1).submit(_built, beside.folder(config))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Waits for what is not wanted any more, as after -x."""
    if BUILDING in config.stash:
        config.stash[BUILDING].exception()


@pytest.fixture(scope="session")
def image(pytestconfig: pytest.Config) -> Image:
    """What the Dockerfile makes; see `support.image`."""
    try:
        building = pytestconfig.stash.get(BUILDING, None)
        return building.result() if building else _built(beside.folder(pytestconfig))
    except subprocess.CalledProcessError as error:
        pytest.fail(f"{error.cmd}: {error.stderr}")


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


def _wants_image(item: pytest.Item) -> bool:
    return "image" in getattr(item, "fixturenames", ())


def _built(folder: Path) -> Image:
    """Builds the image in the folder, or reads what another process has built there."""
    made = folder / "image.pickle"
    with beside.locked(folder / "image.lock"):
        if made.exists():
            return pickle.loads(made.read_bytes())
        image = Image(folder / "image", ROOT)
        image.build(parse((ROOT / "Dockerfile").read_text()))
        made.write_bytes(pickle.dumps(image))
        return image
