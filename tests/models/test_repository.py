"""The scan finds what is to be served, and says what is wrong with what looks like a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.config import ModelConfig
from penstock.core.errors import ConfigError, ModelLoadError, StartupError
from penstock.models.repository import ModelOnDisk, scan


def put(root: Path, *files: str) -> Path:
    """Empty files, for the scan opens none; the contents of model.toml behind a colon."""
    for file in files:
        name, _, text = file.partition(":")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def only(root: Path) -> ModelOnDisk:
    (model,) = scan(root)
    return model


def refusal(path: Path, kind: type[StartupError] = ModelLoadError) -> str:
    with pytest.raises(kind) as refused:
        scan(path)
    assert str(path.name) in str(refused.value)
    return str(refused.value)


# Layouts


def test_models_by_name_and_versions_by_number(tmp_path: Path) -> None:
    put(tmp_path, "b/10/model.onnx", "b/9/model.onnx", "a/1/model.onnx", "README.md")
    models = scan(tmp_path)
    assert [model.name for model in models] == ["a", "b"]
    assert list(models[1].versions) == [9, 10]
    assert models[1].versions[10] == tmp_path / "b" / "10" / "model.onnx"
    assert models[0].config == ModelConfig()


def test_a_single_file(tmp_path: Path) -> None:
    put(tmp_path, "my model.v2.onnx")
    path = tmp_path / "my model.v2.onnx"
    assert scan(path) == [ModelOnDisk("my model.v2", ModelConfig(), {1: path}, tmp_path)]


def test_a_single_file_has_the_settings_beside_it(tmp_path: Path) -> None:
    put(tmp_path, "m.onnx", "model.toml:versions = 'latest'")
    (found,) = scan(tmp_path / "m.onnx")
    assert found.config == ModelConfig(versions="latest")


def test_other_files_beside_the_model_are_left_alone(tmp_path: Path) -> None:
    put(
        tmp_path,
        "a/1/model.onnx",
        "a/1/model.onnx.data",
        "a/1/other.onnx",
        "a/notes.txt",
        "a/old.onnx",
        "a/docs/image.png",
        "notes/1/readme.txt",
        "notes/drafts/net.onnx",
    )
    assert only(tmp_path).versions == {1: tmp_path / "a" / "1" / "model.onnx"}


@pytest.mark.parametrize(
    "hidden", [".git/1/model.onnx", "a/.ipynb_checkpoints/model.onnx", "a/..data/x.onnx"]
)
def test_hidden_folders_are_passed_over(hidden: str, tmp_path: Path) -> None:
    put(tmp_path, "a/1/model.onnx", hidden)
    assert list(only(tmp_path).versions) == [1]


def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    store = put(tmp_path / "store", "weights/model.onnx", "whole/3/model.onnx")
    served = tmp_path / "served"
    (served / "a").mkdir(parents=True)
    (served / "a" / "7").symlink_to(store / "weights")
    (served / "b").symlink_to(store / "whole")
    (served / "gone").symlink_to(store / "nowhere")
    models = scan(served)
    assert [(model.name, list(model.versions)) for model in models] == [("a", [7]), ("b", [3])]


def test_a_folder_that_is_called_like_the_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "a" / "1" / "model.onnx").mkdir(parents=True)
    assert "is a folder, so there is no model" in refusal(tmp_path)


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "models/a/1/model.onnx")
    monkeypatch.chdir(tmp_path)
    assert only(Path("models")).name == "a"
    monkeypatch.chdir(tmp_path / "models")
    assert only(Path()).name == "a"


# Wrong layouts


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no file or folder" in refusal(tmp_path / "nowhere")


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    put(tmp_path, "model.pt")
    assert "is not an .onnx file" in refusal(tmp_path / "model.pt")


def test_an_empty_folder_is_told_what_is_expected(tmp_path: Path) -> None:
    assert "expected PATH/<model>/<version>/model.onnx" in refusal(tmp_path)
    put(tmp_path, "a/b/c/1/model.onnx")
    assert "expected PATH/<model>/<version>/model.onnx" in refusal(tmp_path)


def test_the_folder_of_one_model_is_told_to_be_one_too_deep(tmp_path: Path) -> None:
    put(tmp_path, "models/a/1/model.onnx", "models/a/model.toml:")
    text = refusal(tmp_path / "models" / "a")
    assert "looks like one model's own folder" in text
    assert text.endswith(f"serve the folder above it, {tmp_path / 'models'}")


def test_a_folder_of_files_is_told_both_ways_out(tmp_path: Path) -> None:
    put(tmp_path, "net.onnx")
    text = refusal(tmp_path)
    assert "serve one by its path" in text
    assert "PATH/<model>/<version>/model.onnx" in text


@pytest.mark.parametrize("name", ["01", "v1", "0", "-1", "1.0", "latest", "\u0661", "1 ", "+1"])
def test_folders_that_are_no_versions_are_refused(name: str, tmp_path: Path) -> None:
    put(tmp_path, "a/1/model.onnx", f"a/{name}/model.onnx")
    with pytest.raises(ModelLoadError) as refused:
        scan(tmp_path)
    text = str(refused.value)
    assert f"{tmp_path / 'a' / name} is not a version" in text
    assert "named 1, 2, 3 and so on" in text


@pytest.mark.parametrize(
    ("files", "there"),
    [
        (["b/model.onnx"], "b contains model.onnx"),
        (["b/1/net.onnx", "b/1/other.onnx"], "b contains 1/net.onnx, 1/other.onnx"),
        (["b/1/model.onnx", "b/2/net.onnx"], "b contains 2/net.onnx"),
        (["b/model.toml:"], "b contains no .onnx file"),
        (["b/model.toml:", "b/net.onnx"], "b contains net.onnx"),
    ],
)
@pytest.mark.parametrize("beside", [[], ["a/1/model.onnx"]])
def test_what_looks_like_a_model_and_is_none_is_not_passed_over(
    files: list[str], there: str, beside: list[str], tmp_path: Path
) -> None:
    """Neither is a new version that would not be served because its file has another name."""
    put(tmp_path, *files, *beside)
    text = refusal(tmp_path)
    assert "model b: expected PATH/<model>/<version>/model.onnx" in text
    assert text.endswith(there)


# model.toml


@pytest.mark.parametrize(
    ("settings", "served"),
    [
        ("", [1, 2, 10]),
        ("versions = 'all'", [1, 2, 10]),
        ("versions = 'latest'", [10]),
        ("versions = [2]", [2]),
        ("versions = [10, 1, 10]", [1, 10]),
    ],
)
def test_versions_that_are_served(settings: str, served: list[int], tmp_path: Path) -> None:
    put(tmp_path, *(f"a/{number}/model.onnx" for number in (1, 2, 10)), f"a/model.toml:{settings}")
    assert list(only(tmp_path).versions) == served


def test_settings_are_read(tmp_path: Path) -> None:
    put(
        tmp_path,
        "a/1/model.onnx",
        "a/model.toml:runs_in_parallel = 3\nlabels = {stable = 1}\n[batching]\nmax_rows = 5",
    )
    config = only(tmp_path).config
    assert config.runs_in_parallel == 3
    assert config.batching.max_rows == 5
    assert config.labels == {"stable": 1}


def test_versions_that_are_asked_for_and_not_there(tmp_path: Path) -> None:
    put(tmp_path, "a/1/model.onnx", "a/model.toml:versions = [3, 1, 2]")
    with pytest.raises(
        ModelLoadError, match=r"model a: model.toml selects versions \[2, 3\], but only \[1\] exist"
    ):
        scan(tmp_path)


@pytest.mark.parametrize("versions", ["", "versions = 'latest'", "versions = [2]"])
def test_labels_that_lead_nowhere(versions: str, tmp_path: Path) -> None:
    put(tmp_path, "a/1/model.onnx", "a/2/model.onnx", f"a/model.toml:labels = {{old = 3}}\n{versions}")
    with pytest.raises(
        ModelLoadError,
        match=r"model a: label old in model.toml points to version 3, which is not served; served ver.*: \[",
    ):
        scan(tmp_path)


def test_a_label_of_a_version_that_is_not_served(tmp_path: Path) -> None:
    put(tmp_path, "a/1/model.onnx", "a/2/model.onnx", "a/model.toml:labels={old=1}\nversions='latest'")
    with pytest.raises(ModelLoadError, match=r"label old .* version 1, .*; served versions: \[2\]"):
        scan(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("versions = 0", "versions = 0"),
        ("versions = []", "versions = []"),
        ("versions = ['1']", "versions"),
        ("labels = {one = '1'}", "labels"),
        ("labels = {'1' = 1}", "could not be told from a version"),
        ("colour = 'red'", "colour is not a setting"),
        ("[batching]\nmax_row = 3", "did you mean batching.max_rows"),
        ("versions = ", "not TOML"),
    ],
)
def test_mistakes_in_the_settings_name_the_file_and_the_key(text: str, words: str, tmp_path: Path) -> None:
    put(tmp_path, "a/1/model.onnx", f"a/model.toml:{text}")
    with pytest.raises(ConfigError) as refused:
        scan(tmp_path)
    assert str(tmp_path / "a" / "model.toml") in str(refused.value)
    assert words in str(refused.value)
