"""Defaults, file, environment and flags; and what is said when they are wrong."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from penstock.config import Config, flag_name, load
from penstock.config.keys import leaves, value_at
from penstock.core.errors import ConfigError, StartupError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "penstock.toml"


def problem(file: Path | None = None, flags: dict[str, object] | None = None, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(file, flags or {}, environ)
    return str(caught.value)


def test_nothing_given_means_the_documented_defaults() -> None:
    loaded = load(None, {}, {})
    assert loaded.config == Config()
    assert loaded.config.server.host == "127.0.0.1"
    assert loaded.config.server.port == 8001
    assert loaded.config.server.max_message_bytes == 2**31 - 1
    assert loaded.config.batching.max_rows == 0
    assert loaded.config.runtime.providers == ("CPUExecutionProvider",)
    assert set(loaded.origins) == set(leaves(Config))
    assert set(loaded.origins.values()) == {"default"}


def test_each_place_overrides_the_one_before(file: Path) -> None:
    file.write_text("[server]\nport = 1\nops_port = 1\nworkers = 1\n[log]\nlevel = 'debug'\n")
    environ = {"PENSTOCK_SERVER__OPS_PORT": "2", "PENSTOCK_SERVER__WORKERS": "2"}
    loaded = load(file, {"server.workers": 3}, environ)
    server = loaded.config.server
    assert (server.port, server.ops_port, server.workers, server.max_calls) == (1, 2, 3, 10_000)
    assert loaded.origins["server.port"] == str(file)
    assert loaded.origins["log.level"] == str(file)
    assert loaded.origins["server.ops_port"] == "PENSTOCK_SERVER__OPS_PORT environment"
    assert loaded.origins["server.workers"] == "--workers"
    assert loaded.origins["server.max_calls"] == "default"


TEXT_FOR = {
    "server.host": ("::1", "::1"),
    "server.http": ("false", False),
    "server.page_names": ("a, b.example", ("a", "b.example")),
    "server.http_allow_origins": ("https://a.example", ("https://a.example",)),
    "server.transport": ("portable", "portable"),
    "runtime.optimization": ("basic", "basic"),
    "runtime.providers": ("A, B", ("A", "B")),
    "runtime.arena": ("false", False),
    "runtime.spinning": ("true", True),
    "batching.exact": ("true", True),
    "batching.tolerance": ("0.01", 0.01),
    "server.triton_status_codes": ("true", True),
    "server.max_metadata_bytes": ("65536", 65_536),
    "server.on_broken": ("serve", "serve"),
    "runners.hung_unready": ("server", "server"),
    "server.status_page": ("no", False),
    "trial.enabled": ("no", False),
    "cache.enabled": ("no", False),
    "cache.folder": ("folder", "folder"),
    "log.level": ("error", "error"),
    "log.format": ("json", "json"),
    "log.access_sample": ("0.5", 0.5),
    "batching.max_delay_seconds": ("0.25", 0.25),
    "batching.verify": ("0.25", 0.25),
}


@pytest.mark.parametrize("key", list(leaves(Config)))
def test_every_setting_can_come_from_the_environment(key: str) -> None:
    text, value = TEXT_FOR.get(key, ("7", 7))
    variable = "PENSTOCK_" + key.upper().replace(".", "__")
    loaded = load(None, {}, {variable: text})
    assert value_at(loaded.config, key) == value
    assert loaded.origins[key] == f"{variable} environment"
    assert [each for each, origin in loaded.origins.items() if origin != "default"] == [key]


def test_a_list_from_the_environment_may_be_json() -> None:
    loaded = load(None, {}, {"PENSTOCK_RUNTIME__PROVIDERS": '["A", "B"]'})
    assert loaded.config.runtime.providers == ("A", "B")


def test_the_process_environment_is_read_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_BATCHING__MAX_ROWS", "5")
    assert load().config.batching.max_rows == 5
    assert load(environ={}).config.batching.max_rows == 0


def test_loading_changes_nothing(file: Path) -> None:
    file.write_text("[server]\nport = 1\n")
    before = dict(os.environ), file.stat().st_mtime_ns, Config()
    load(file, {"server.port": 2}, {"PENSTOCK_SERVER__PORT": "3"})
    assert before == (dict(os.environ), file.stat().st_mtime_ns, Config())


def test_the_configuration_is_frozen() -> None:
    config = load(None, {}, {}).config
    with pytest.raises(ValueError, match="frozen"):
        config.server.port = 1  # type: ignore[misc]


def test_variables_of_kubernetes_are_not_settings() -> None:
    environ = {
        "PENSTOCK_PORT": "tcp://10.0.0.1:8001",
        "PENSTOCK_SERVICE_HOST": "10.0.0.1",
        "PENSTOCK_PORT_8001_TCP_ADDR": "10.0.0.1",
        "PENSTOCK_SERVER_PORT": "tcp://10.0.0.1:8001",
        "PENSTOCK_LOG": "x",
        "OTHER__PORT": "1",
    }
    assert load(None, {}, environ).config == Config()


def test_one_underscore_too_few_is_said() -> None:
    text = problem(PENSTOCK_SERVER_MAX_CALLS="3")
    assert text == "PENSTOCK_SERVER_MAX_CALLS = '3': not a setting; did you mean PENSTOCK_SERVER__MAX_CALLS?"


def test_a_bad_value_in_the_file_names_file_key_value_and_reason(file: Path) -> None:
    file.write_text("[server]\nport = 99999\n")
    assert problem(file) == f"{file}: server.port = 99999: should be less than or equal to 65535"


def test_a_bad_value_in_the_environment_names_the_variable() -> None:
    text = problem(PENSTOCK_SERVER__PORT="http")
    assert text.startswith("PENSTOCK_SERVER__PORT = 'http': should be a valid integer")


def test_a_bad_value_of_a_flag_names_the_flag() -> None:
    text = problem(None, {"server.drain_seconds": -1})
    assert text == "--drain-seconds = -1: should be greater than or equal to 0"


def test_the_value_that_wins_is_the_one_that_is_blamed(file: Path) -> None:
    file.write_text("[server]\nport = 1\n")
    assert problem(file, PENSTOCK_SERVER__PORT="-1").startswith("PENSTOCK_SERVER__PORT = '-1'")


@pytest.mark.parametrize(
    "line",
    [
        "server.port = true",
        "server.max_message_bytes = 2147483648",
        "server.max_message_bytes = 0",
        "server.max_calls = 0",
        "server.host = ''",
        "server.drain_seconds = nan",
        "batching.max_delay_seconds = inf",
        "batching.max_rows = 1.5",
        "batching.max_rows = []",
        "runtime.providers = []",
        "runtime.optimization = 'most'",
        "runtime.arena = 'perhaps'",
        "log.access_sample = 1.01",
        "log.level = 'trace'",
        "batching.exact = 1",
        "trial.enabled = 0",
        "server.transport = 1979-05-27",
    ],
)
def test_bad_values_are_refused(file: Path, line: str) -> None:
    file.write_text(line)
    key = line.split(" ", maxsplit=1)[0]
    assert problem(file).startswith(f"{file}: {key} = ")


def test_an_unknown_key_names_the_nearest_first(file: Path) -> None:
    file.write_text("[server]\nprot = 1\n")
    text = problem(file)
    assert text.startswith(
        f"{file}: server.prot = 1: server.prot is not a setting; did you mean server.port?"
    )
    assert "server.drain_seconds" in text
    assert "batching" not in text


def test_an_unknown_section_and_a_key_without_section_name_the_nearest(file: Path) -> None:
    file.write_text("drain_secs = 1\n[loging]\nlevel = 'info'\n[sever]\n[server.x]\ny = 1")
    text = problem(file)
    assert "drain_secs = 1: drain_secs is not a setting; did you mean server.drain_seconds?" in text
    assert 'loging.level = "info": loging.level is not a setting; did you mean log.level?' in text
    assert "sever = {}: sever is not a setting" in text
    assert "server.x.y = 1: server.x.y is not a setting" in text


def test_what_is_like_no_setting_is_not_said_to_be_meant(file: Path) -> None:
    file.write_text("[batching]\nrows = 3\nxyzzy = 1\n")
    text = problem(file)
    assert "batching.xyzzy is not a setting; known: batching." in text
    assert "batching.rows is not a setting; did you mean batching." in text


def test_an_unknown_variable_and_an_unknown_flag_are_refused() -> None:
    assert "PENSTOCK_LGO__LEVEL = 'x': lgo.level is not a setting; did you mean log.level?" in problem(
        PENSTOCK_LGO__LEVEL="x"
    )
    assert problem(PENSTOCK_SERVER__PORT__X="1").startswith(
        "PENSTOCK_SERVER__PORT__X = '1': server.port.x is"
    )
    assert "--prt = 1: server.prt is not a setting" in problem(None, {"server.prt": 1})


def test_a_section_that_is_no_table_is_said(file: Path) -> None:
    file.write_text("log = 'info'\n")
    assert problem(file, {"log.level": "debug"}) == (
        f'{file}: log = "info": log is a section, not a single value; '
        "its settings are log.level, log.format, log.access_sample"
    )


def test_everything_that_is_wrong_is_said_at_once(file: Path) -> None:
    file.write_text("[server]\nprot = 1\nport = -1\n")
    lines = problem(file, {"log.level": "loud"}, PENSTOCK_RUNNERS__THREADS="many").splitlines()
    assert lines[0] == "4 settings are wrong:"
    assert [line.split(" = ")[0].strip() for line in lines[1:]] == [
        f"{file}: server.prot",
        f"{file}: server.port",
        "PENSTOCK_RUNNERS__THREADS",
        "--log-level",
    ]


@pytest.mark.parametrize("text", ["[server]\nport = \n", "[server\n", "port = 1\nport = [1,\n", "x = [1"])
def test_bad_syntax_names_file_and_line(file: Path, text: str) -> None:
    file.write_text(text)
    line = 1 if text in ("[server\n", "x = [1") else 2
    assert re.match(rf"{re.escape(str(file))}: not TOML: .*line {line}\b", problem(file))


def test_files_that_cannot_be_read(tmp_path: Path, file: Path) -> None:
    assert problem(tmp_path / "none.toml") == f"{tmp_path}/none.toml: there is no such file"
    assert problem(tmp_path) == f"{tmp_path}: not a file"
    file.write_bytes(b"a = '\xff'")
    assert problem(file) == f"{file}: not TOML: it is not UTF-8 at byte 5"


def test_a_config_error_stops_the_start() -> None:
    assert issubclass(ConfigError, StartupError)


def test_flags_are_named_as_on_the_command_line() -> None:
    assert flag_name("server.drain_seconds") == "--drain-seconds"
    assert flag_name("log.access_sample") == "--log-access-sample"
    names = [flag_name(key) for key in leaves(Config)]
    assert len(set(names)) == len(names)
