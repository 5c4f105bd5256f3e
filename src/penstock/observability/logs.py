"""Logging: each line is a short event with values, as JSON for machines or in a readable form for people.

A module that logs has `log = logger(__name__)` and calls `log.info("model ready", model="m", seconds=0.2)`.
structlog is imported only when logs are configured or the first line is logged, since the import is slow, and
without rich, which would take most of that time.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, TextIO

from typing_extensions import override

from penstock.config.sections import LogConfig
from penstock.observability.log_writer import LineWriter

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

FLUSH_SECONDS = 1.0
"""How long the end of the process waits for a log that is not read."""

_FIRST = ("timestamp", "level", "logger", "event")


class Logger:
    """Logs events under one name. Costs almost nothing if the level is not logged."""

    __slots__ = ("_bound", "_stdlib")

    def __init__(self, name: str) -> None:
        self._stdlib = logging.getLogger(name)
        self._bound: Any = None

    @property
    def shows_info(self) -> bool:
        """Whether ordinary events are logged, for events whose values take time to make."""
        return self._stdlib.isEnabledFor(logging.INFO)

    def debug(self, event: str, **values: object) -> None:
        """Logs details for developers."""
        self._log(logging.DEBUG, event, values)

    def info(self, event: str, **values: object) -> None:
        """Logs an ordinary event of the server."""
        self._log(logging.INFO, event, values)

    def warning(self, event: str, **values: object) -> None:
        """Logs something that works, but not as intended."""
        self._log(logging.WARNING, event, values)

    def error(self, event: str, **values: object) -> None:
        """Logs something that does not work."""
        self._log(logging.ERROR, event, values)

    def exception(self, event: str, **values: object) -> None:
        """Logs something that does not work, with the exception that is being handled."""
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

    Lines are written by a thread of their own; `flush` waits for it.

    Args:
        config: the level of Penstock's own logs (of other packages, warnings and above are shown), and the
            format.
        stream: the stream to write to; standard error by default.
        values: values that are added to every line.
    """
    _import_structlog()
    target = stream or sys.stderr
    handler = _Handler(target)
    is_console = config.format == "console" or (config.format == "auto" and target.isatty())
    has_colors = target.isatty() and not os.environ.get("NO_COLOR")
    last = _console(has_colors) if is_console else _json(target)
    handler.setFormatter(_formatter(last, values or {}))
    root = logging.getLogger()
    for each in _handlers():
        each.flush()
        handler.dropped_before += each.dropped
        root.removeHandler(each)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("penstock").setLevel(config.level.upper())


def report_what_python_reports() -> None:
    """Logs what Python would otherwise write to standard error itself, on the thread that it happens on.

    These are warnings, and exceptions that end a thread or that cannot be raised, as in a callback. So a
    standard error that is not read holds up no thread by them, and they are lines of the log like others.
    A signalling NaN in a caller's values, which becomes a quiet one, is nothing to report.
    """
    warnings.filterwarnings("ignore", "invalid value encountered in cast", RuntimeWarning)
    warnings.showwarning = _log_warning  # type: ignore[assignment]  # called with positional arguments only
    threading.excepthook = _log_failed_thread
    sys.unraisablehook = _log_not_raised


def flush() -> None:
    """Waits until all lines so far are written, for at most `FLUSH_SECONDS`."""
    for each in _handlers():
        each.flush()


def dropped() -> int:
    """How many lines were dropped, because they could not be written as fast as they came."""
    return sum(each.dropped for each in _handlers())


def _handlers() -> list[_Handler]:
    return [each for each in logging.getLogger().handlers if isinstance(each, _Handler)]


def _log_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object
) -> None:
    _python.warning(str(message), category=category.__name__, where=f"{filename}:{lineno}")


def _log_failed_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_type is not SystemExit:
        name = failed.thread.name if failed.thread else ""
        _python.error("a thread has failed", thread=name, exc_info=failed.exc_value)


def _log_not_raised(failed: UnraisableHookArgs) -> None:
    where = f"{failed.err_msg or 'exception ignored in'}: {failed.object!r}"
    _python.error("unexpected failure", where=where, exc_info=failed.exc_value)


class _Handler(logging.Handler):
    """Formats on the thread that logs, and lets a `LineWriter` write."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.dropped_before = 0
        self._writer = LineWriter(stream, self._dropped_line)

    @property
    def dropped(self) -> int:
        return self.dropped_before + self._writer.dropped

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._writer.put(f"{self.format(record)}\n")
        except Exception as error:  # Python's own `handleError` writes to standard error, and may wait there
            if record.name != _UNWRITABLE:
                _unwritable.error("a line of the log could not be made", of=record.name, error=repr(error))

    @override
    def flush(self) -> None:
        self._writer.flush(FLUSH_SECONDS)

    def _dropped_line(self, count: int) -> str:
        words = f"{count} log lines were dropped: they came faster than they could be written"
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, words, (), None)
        return f"{self.format(record)}\n"


_UNWRITABLE = f"{__name__}.unwritable"
_python = logger("penstock.python")
_unwritable = logger(_UNWRITABLE)


def _import_structlog() -> None:
    """Imports structlog as if rich were not installed: it would import it for tracebacks that are not used.

    Later imports of rich, by the command line, are not affected.
    """
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # to Python: there is no such module
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]


def _bound(stdlib: logging.Logger) -> Any:
    """A structlog logger that does not depend on structlog's global settings."""
    _import_structlog()
    import structlog
    from structlog.stdlib import BoundLogger, ProcessorFormatter

    processors = [*_common(), ProcessorFormatter.wrap_for_formatter]
    return structlog.wrap_logger(stdlib, processors=processors, wrapper_class=BoundLogger).bind()


def _common() -> list[Any]:
    """The processors for Penstock's own events and for those of other packages."""
    from structlog.processors import TimeStamper
    from structlog.stdlib import add_log_level, add_logger_name

    return [add_log_level, add_logger_name, TimeStamper(fmt="iso", utc=True), _without_tensors]


def _formatter(last: list[Any], values: Mapping[str, object]) -> logging.Formatter:
    from structlog.stdlib import ProcessorFormatter

    if values:
        last = [lambda _logger, _method, event: {**event, **values}, *last]
    return ProcessorFormatter(
        foreign_pre_chain=_common(), processors=[ProcessorFormatter.remove_processors_meta, *last]
    )


def _console(colors: bool) -> list[Any]:
    from structlog.dev import ConsoleRenderer, plain_traceback

    # Not rich's tracebacks: these show local variables, and so tensor values. The renderer formats exceptions
    # itself, and otherwise complains that it could not.
    return [ConsoleRenderer(colors=colors, exception_formatter=plain_traceback)]


def _json(stream: TextIO) -> list[Any]:
    from structlog.processors import JSONRenderer, format_exc_info

    # Python escapes characters that the stream's encoding lacks, as \xf6, which is not valid JSON.
    is_unicode = (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")
    return [format_exc_info, _in_order, JSONRenderer(ensure_ascii=not is_unicode)]


def _in_order(_logger: object, _method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Puts the values that every line has first, so that lines are easy to compare."""
    first = {key: event[key] for key in _FIRST if key in event}
    return first | dict(event)


def _without_tensors(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replaces tensors by their dtype and shape, since their values may be private data."""
    for key, value in event.items():
        if hasattr(value, "dtype") and hasattr(value, "shape"):
            event[key] = f"{value.dtype}{list(value.shape)}"
    return event
