"""Which tests run beside others: all but those marked `alone`, which come first.

Importing `support` also sets what must be set before any test imports ONNX Runtime.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from support import beside, commands, distribution, forked


def pytest_configure(config: pytest.Config) -> None:
    """Lets Ctrl-C reach what tests start, even where a shell runs them in the background.

    Servers keep what they learn about models in one folder: one of the tests' models is tried once, not by
    each of the servers.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ[beside.FOLDER] = str(beside.folder(config))
    os.environ["PENSTOCK_CACHE__FOLDER"] = str(beside.folder(config) / "cache")
    # A child process for every server would take as much CPU as the server. Some tests switch it on again.
    os.environ["PENSTOCK_TRIAL__ENABLED"] = "false"
    # Servers need no port but those that tests ask for; those of tests/rest switch it on again.
    os.environ["PENSTOCK_SERVER__HTTP"] = "false"
    commands.may_fork = True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts the tests that run alone first, so that others wait for them only once."""
    if beside.is_worker(config):
        distribution.put_in_order(items)
    items.sort(key=lambda item: not _is_alone(item))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Spares the garbage collector to look at the modules and tests again and again: they stay.

    Servers are forked with the variables that there are now: modules of tests and libraries have set some.
    """
    if beside.is_worker(session.config):
        distribution.note_alone(session.config, [item.nodeid for item in session.items if _is_alone(item)])
    forked.note_environment()
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Compiles the tests before workers are started."""
    if session.config.getoption("numprocesses", None):
        distribution.compile_all(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> distribution.ByFile:
    """Workers get the tests a file at a time, and one of them all those that run alone."""
    return distribution.ByFile(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tells a worker of pytest-xdist which folder it shares with the others."""
    node.workerinput["folder"] = str(beside.folder(node.config))


# The last of the finalizers: others may still be busy in the folder.
@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes that folder, and ends the processes that others are forked from."""
    forked.close()
    beside.clear(config)


# Around all else, so that a test's time limit begins when the test does.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Runs a test when its turn has come."""
    next_is_alone = nextitem is not None and _is_alone(nextitem)
    with beside.turn(item.config, alone=_is_alone(item), next_is_alone=next_is_alone):
        return (yield)


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None
