"""Builds the image beside the other tests, since it takes longer than any of them."""

from __future__ import annotations

import subprocess
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from support.image import Image, parse

ROOT = Path(__file__).parents[2]
BUILDING = pytest.StashKey[Future[Image]]()
FOLDER = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begins to build, where any test that runs wants it."""
    if not any("image" in getattr(item, "fixturenames", ()) for item in session.items):
        return
    folder = session.config.stash[FOLDER] = tempfile.TemporaryDirectory(prefix="penstock-image-")
    session.config.stash[BUILDING] = ThreadPoolExecutor(1).submit(_built, Path(folder.name))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Waits for what is not wanted any more, as after -x, and clears up."""
    if BUILDING in config.stash:
        config.stash[BUILDING].exception()
        config.stash[FOLDER].cleanup()


@pytest.fixture(scope="session")
def image(pytestconfig: pytest.Config) -> Image:
    """What the Dockerfile makes; see `support.image`."""
    try:
        return pytestconfig.stash[BUILDING].result()
    except subprocess.CalledProcessError as error:
        pytest.fail(f"{error.cmd}: {error.stderr}")


def _built(folder: Path) -> Image:
    image = Image(folder, ROOT)
    image.build(parse((ROOT / "Dockerfile").read_text()))
    return image
