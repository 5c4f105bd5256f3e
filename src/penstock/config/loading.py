"""Reads the settings: defaults, then a TOML file, then the environment, then flags; later wins."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from penstock.config.keys import flatten, is_alike, leaves, nearest, nest, section_of
from penstock.config.model_sections import ModelConfig
from penstock.config.sections import Config
from penstock.config.toml import toml_value
from penstock.core.errors import ConfigError

PREFIX = "PENSTOCK_"
_DELIMITER = "__"
_SHOWN_NAMES = 10
NO_SETTINGS = ModelConfig()  # of every model without a file: a repository may have thousands
_NETWORK_ADDRESS = re.compile(r"[a-z]+://")

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and where each value came from.

    Attributes:
        config: all settings.
        origins: for every dotted key "default", the file's path, "PENSTOCK_X environment" or "--flag".
    """

    config: Config
    origins: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Given:
    """One value that was set by a file, a variable or a flag.

    Attributes:
        value: as it was given.
        origin: as in `Loaded.origins`.
        where: the place of the value, for messages.
    """

    value: Any
    origin: str
    where: str


def load(
    file: Path | None = None,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Reads the settings: defaults, overridden by the file, the environment and the flags, in this order.

    Args:
        file: a TOML file, or None for none.
        flags: the values given on the command line by dotted key such as "server.port"; no others.
        environ: the environment; the process's own by default. Variables that do not look like
            `PENSTOCK_SECTION__KEY` are ignored: Kubernetes sets PENSTOCK_PORT for a service "penstock".

    Raises:
        ConfigError: names the file, variable or flag, the key, the value and the reason, for everything
            that is wrong.
    """
    variables = os.environ if environ is None else environ
    given = _from_file(Config, file) if file else {}
    given |= _from_environment(variables) | _from_flags(flags or {})
    config = _validated(Config, given, _misspelt_variables(variables))
    origins = {key: given[key].origin if key in given else "default" for key in leaves(Config)}
    return Loaded(config, origins)


def load_model_config(path: Path) -> ModelConfig:
    """Reads the `model.toml` at `path`; all defaults if there is no such file.

    Raises:
        ConfigError: names the file, the key, the value and the reason, for everything that is wrong.
    """
    if not os.path.lexists(path):
        return NO_SETTINGS
    return _validated(ModelConfig, _from_file(ModelConfig, path))


def flag_name(key: str) -> str:
    """The command line's name for a dotted key: `--port` for "server.port", else `--section-key`."""
    return "--" + key.removeprefix("server.").replace(".", "-").replace("_", "-")


def _from_file(model: type[BaseModel], file: Path) -> dict[str, _Given]:
    data = _read_toml(file)
    return {
        key: _Given(value, str(file), f"{file}: {key} = {toml_value(value)}")
        for key, value in flatten(model, data)
    }


def _read_toml(file: Path) -> dict[str, Any]:
    if file.is_symlink() and not file.exists():
        raise ConfigError(f"{file}: is a link to {os.readlink(file)}, which is not there")
    if not file.is_file():
        raise ConfigError(f"{file}: {'not a file' if file.exists() else 'there is no such file'}")
    try:
        return tomllib.loads(file.read_text("utf-8-sig"))  # some editors begin a file with a byte order mark
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not TOML: {_with_line(error, file)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not TOML: it is not UTF-8 at byte {error.start}") from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error


def _with_line(error: tomllib.TOMLDecodeError, file: Path) -> str:
    """The message, which names the line, except for the last one."""
    last = len(file.read_text("utf-8").splitlines())
    return str(error).replace("at end of document", f"at line {last}, the end of the file")


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    names = {_key_of(name): name for name in environ if _is_setting(name)}
    return {
        key: _Given(environ[name], f"{name} environment", f"{name} = {environ[name]!r}")
        for key, name in names.items()
    }


def _is_setting(name: str) -> bool:
    # Without the delimiter it may be a variable of something else, such as Kubernetes.
    return name.upper().startswith(PREFIX) and _DELIMITER in name


def _key_of(name: str) -> str:
    return name[len(PREFIX) :].lower().replace(_DELIMITER, ".")


def _from_flags(flags: Mapping[str, object]) -> dict[str, _Given]:
    return {
        key: _Given(value, flag_name(key), f"{flag_name(key)} = {value!r}") for key, value in flags.items()
    }


def _misspelt_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Variables with one underscore where the delimiter has two: they would be ignored silently."""
    meant = {key.replace(".", "_"): (PREFIX + key.replace(".", _DELIMITER)).upper() for key in leaves(Config)}
    for name, value in environ.items():
        right = meant.get(name[len(PREFIX) :].lower()) if name.upper().startswith(PREFIX) else None
        # A Kubernetes service "penstock-server" gives PENSTOCK_SERVER_PORT=tcp://10.0.0.1:8001.
        if right and not _NETWORK_ADDRESS.match(value):
            yield f"{name} = {value!r}: not a setting; did you mean {right}?"


def _validated(model: type[_Model], given: Mapping[str, _Given], problems: Iterable[str] = ()) -> _Model:
    """The validated settings; all problems are reported in one ConfigError."""
    known = set(leaves(model))
    found = [*problems, *(_unknown(model, key, each) for key, each in given.items() if key not in known)]
    settings = {key: each for key, each in given.items() if key in known}
    try:
        config = model.model_validate(nest({key: each.value for key, each in settings.items()}))
    except ValidationError as error:
        raise _all_wrong([*found, *_invalid(error, settings)]) from error
    if found:
        raise _all_wrong(found)
    return config


def _unknown(model: type[BaseModel], key: str, given: _Given) -> str:
    if section_of(model, key):
        known = ", ".join(each for each in leaves(model) if each.startswith(f"{key}."))
        return f"{given.where}: {key} is a section, not a single value; its settings are {known}"
    nearby = nearest(model, key)
    names = nearby[:_SHOWN_NAMES]
    more = f" and {len(nearby) - len(names)} more" if len(nearby) > len(names) else ""
    meant = f"did you mean {names[0]}? Known" if is_alike(key, names[0]) else "known"
    return f"{given.where}: {key} is not a setting; {meant}: {', '.join(names)}{more}"


def _invalid(error: ValidationError, given: Mapping[str, _Given]) -> Iterator[str]:
    """Pydantic's errors, one line per setting: a union has an error for each of its types."""
    reasons: dict[str, list[str]] = {}
    for each in error.errors(include_url=False):
        path = ".".join(map(str, each["loc"]))
        key = next(key for key in given if f"{path}.".startswith(f"{key}."))
        reasons.setdefault(key, []).append(
            _reason(each["msg"], path.removeprefix(key).strip("."), given[key])
        )
    for key, found in reasons.items():
        yield f"{given[key].where}: {', or '.join(dict.fromkeys(found))}"


def _reason(message: str, entry: str, given: _Given) -> str:
    """One message of pydantic, with the name of the entry if the value is a table."""
    text = message.removeprefix("Value error, ").replace("Input should", "should")
    text = text.replace("a valid dictionary", "a table, such as {name = value}")
    text = text.replace("a valid tuple", "a list, such as [a, b]")
    return f"{entry} {text}" if entry and isinstance(given.value, Mapping) else text


def _all_wrong(problems: list[str]) -> ConfigError:
    if len(problems) == 1:
        return ConfigError(problems[0])
    return ConfigError("\n  ".join([f"{len(problems)} settings are wrong:", *problems]))
