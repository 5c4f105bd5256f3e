"""`penstock config`'s text, and the tables of the documentation."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from docs.write_configuration import main, updated
from penstock.config import Config, ModelConfig, load, render
from penstock.config.keys import leaves
from penstock.config.toml import toml_value

PAGE = Path(__file__).parents[2] / "docs/configuration.md"
SCRIPT = PAGE.with_name("write_configuration.py")


def test_every_value_has_its_origin_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "my file.toml"
    file.write_text("batching.max_rows = 64")
    text = render(load(file, {"server.port": 0}, {"PENSTOCK_LOG__LEVEL": "debug"}))
    lines = {line.split(" = ")[0]: line for line in text.splitlines()}
    assert lines["max_rows"].endswith(f"# {file}")
    assert lines["port"].endswith("# --port")
    assert lines["level"].endswith("# PENSTOCK_LOG__LEVEL environment")
    assert lines["host"].endswith("# default")


def test_the_text_is_a_file_that_gives_the_same_settings(tmp_path: Path) -> None:
    environ = {"PENSTOCK_RUNTIME__PROVIDERS": "A,B", "PENSTOCK_RUNTIME__ARENA": "0"}
    loaded = load(None, {"server.host": 'a"\\b\n\x7f😀', "runners.inline_below_seconds": 1e-9}, environ)
    file = tmp_path / "again.toml"
    file.write_text(render(loaded), "utf-8")
    assert load(file, {}, {}).config == loaded.config


def test_a_line_break_in_an_origin_breaks_no_line(tmp_path: Path) -> None:
    file = tmp_path / "a\nb.toml"
    file.write_text("server.port = 7")
    assert tomllib.loads(render(load(file, {}, {})))["server"]["port"] == 7


@pytest.mark.parametrize("value", [True, 7, -0.5, 1e-9, 1e300, "é\t\x1f", [1, 2], {"a b": 1}, [], {}])
def test_values_are_written_as_toml_reads_them(value: object) -> None:
    assert tomllib.loads(f"x = {toml_value(value)}") == {"x": value}


def test_the_documentation_is_up_to_date() -> None:
    page = PAGE.read_text("utf-8")
    command = "python docs/write_configuration.py docs/configuration.md"
    assert updated(page) == page, f"docs/configuration.md is stale: run {command}"


def test_the_documentation_has_every_setting_with_unit_and_default() -> None:
    page = PAGE.read_text("utf-8")
    for section in ("server", "batching", "runtime", "runners", "log"):
        fields = Config.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
        for name, field in fields.items():
            row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
            assert f"| `{toml_value(field.default)}` | {field.description} |" in row
            assert field.description
    assert "| `drain_seconds` | number ≥ 0 | seconds | `20.0` |" in page
    assert all(f"| `{name.rpartition('.')[2]}` |" in page for name in leaves(ModelConfig))


def test_the_command_writes_stale_tables_anew(tmp_path: Path) -> None:
    page = PAGE.read_text("utf-8")
    stale = tmp_path / "page.md"
    stale.write_text(page.replace("| `20.0` |", "| `10.0` |"), "utf-8")
    main([str(stale)])
    assert stale.read_text("utf-8") == page
    stale.write_text(page.replace("| `20.0` |", "| `10.0` |"), "utf-8")
    subprocess.run([sys.executable, "-W", "error", SCRIPT, stale], check=True)
    assert stale.read_text("utf-8") == page
