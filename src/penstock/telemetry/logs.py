"""Logs: an event in a few words and its values, as JSON lines for machines or readable for people.

A module that logs has `log = logger(__name__)` and calls `log.info("model ready", model="m", seconds=0.2)`.
Nothing is imported for that before the first line is due: structlog takes its time.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

from penstock.config.sections import LogConfig

_FIRST = ("timestamp", "level", "logger", "event")


class Logger:
    """Logs events under one name. Costs next to nothing where the level is not logged."""

    __slots__ = ("_bound", "_stdlib")

    def __init__(self, name: str) -> None:
        self._stdlib = logging.getLogger(name)
        self._bound: Any = None

    def debug(self, event: str, **values: object) -> None:
        """What only a developer wants to know."""
        self._log(logging.DEBUG, event, values)

    def info(self, event: str, **values: object) -> None:
        """What happened in the life of the server."""
        self._log(logging.INFO, event, values)

    def warning(self, event: str, **values: object) -> None:
        """What works, but not as it was meant to."""
        self._log(logging.WARNING, event, values)

    def error(self, event: str, **values: object) -> None:
        """What does not work."""
        self._log(logging.ERROR, event, values)

    def exception(self, event: str, **values: object) -> None:
        """What does not work, with the exception that is being handled."""
        self._log(logging.ERROR, event, {**values, "exc_info": True})

    def _log(self, level: int, event: str, values: dict[str, Any]) -> None:
        if not self._stdlib.isEnabledFor(level):
            return
        if self._bound is None:
            self._bound = _bound(self._stdlib)
        self._bound.log(level, event, **values)


def logger(name: str) -> Logger:
    """A logger; `name` is the module's."""
    return Logger(name)


def configure(
    config: LogConfig, stream: TextIO | None = None, values: Mapping[str, object] | None = None
) -> None:
    """Sends all logs of the process to one place, in one form. May be called again.

    Args:
        config: the level, which counts for Penstock's own logs (of other packages, warnings and above are
            shown), and the form.
        stream: where to; standard error by default.
        values: what every line holds besides its own values.
    """
    target = stream or sys.stderr
    handler = _Handler(target)
    handler.setFormatter(_formatter(_wants_console(config, target), _has_colors(target), values or {}))
    root = logging.getLogger()
    for each in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(each)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("penstock").setLevel(config.level.upper())


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that `configure` replaces no handler of anybody else's."""


def _wants_console(config: LogConfig, stream: TextIO) -> bool:
    return config.format == "console" or (config.format == "auto" and stream.isatty())


def _has_colors(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")


def _bound(stdlib: logging.Logger) -> Any:
    """A structlog logger that depends on no global setting of structlog's."""
    import structlog
    from structlog.stdlib import BoundLogger, ProcessorFormatter

    processors = [*_common(), ProcessorFormatter.wrap_for_formatter]
    return structlog.wrap_logger(stdlib, processors=processors, wrapper_class=BoundLogger).bind()


def _common() -> list[Any]:
    """What is done to our own events and to those of other packages alike."""
    from structlog.processors import TimeStamper
    from structlog.stdlib import add_log_level, add_logger_name

    return [add_log_level, add_logger_name, TimeStamper(fmt="iso", utc=True), _without_tensors]


def _formatter(console: bool, colors: bool, values: Mapping[str, object]) -> logging.Formatter:
    from structlog.processors import format_exc_info
    from structlog.stdlib import ProcessorFormatter

    # The console's renderer formats exceptions itself, and otherwise complains that it could not.
    last = [_console(colors)] if console else [format_exc_info, _in_order, _json()]
    if values:
        last = [lambda _logger, _method, event: {**event, **values}, *last]
    return ProcessorFormatter(
        foreign_pre_chain=_common(), processors=[ProcessorFormatter.remove_processors_meta, *last]
    )


def _console(colors: bool) -> Any:
    from structlog.dev import ConsoleRenderer, plain_traceback

    # Not rich's tracebacks: these show local variables, and so tensor values.
    return ConsoleRenderer(colors=colors, exception_formatter=plain_traceback)


def _json() -> Any:
    from structlog.processors import JSONRenderer

    return JSONRenderer(ensure_ascii=False)


def _in_order(_logger: object, _method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """What every line has comes first, so that lines can be compared by eye."""
    first = {key: event[key] for key in _FIRST if key in event}
    return first | dict(event)


def _without_tensors(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """The values of tensors may be anybody's private data: a log tells only what kind of tensor it was."""
    for key, value in event.items():
        if hasattr(value, "dtype") and hasattr(value, "shape"):
            event[key] = f"{value.dtype}{list(value.shape)}"
    return event
