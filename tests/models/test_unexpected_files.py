"""What is in a repository and should not be: passed over and told, or an error that names it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.core.errors import ConfigError, ModelLoadError
from penstock.models.repository import scan

NOT_ROOT = 10001


class Scanned:
    """What a scan found, and what it passed over, by name."""

    def __init__(self, root: Path) -> None:
        self.passed_over: dict[str, str] = {}
        self.models = {model.name: list(model.versions) for model in scan(root, self._told)}

    def _told(self, path: Path, reason: str) -> None:
        assert path.name not in self.passed_over, "everything is told once"
        self.passed_over[path.name] = reason


def put(file: Path, text: str = "") -> Path:
    """A file, and the folders on the way to it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def refusal(root: Path) -> str:
    with pytest.raises(ModelLoadError) as refused:
        scan(root)
    return str(refused.value)


@pytest.fixture
def root() -> Iterator[Path]:
    """A repository of model `m`, version 1, which every user may look into."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        made = Path(folder) / "models"
        put(made / "m/1/model.onnx")
        yield made


@pytest.fixture
def not_root() -> Iterator[None]:
    """The test's process as another user than root, who may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOT_ROOT)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def locked(request: pytest.FixtureRequest) -> Iterator[Callable[[Path, int], None]]:
    """Takes permissions away, until the test ends."""
    changed: list[Path] = []

    def lock(path: Path, mode: int) -> None:
        path.chmod(mode)
        changed.append(path)
        request.getfixturevalue("not_root")

    yield lock
    if os.getuid() == 0:
        os.seteuid(0)
    for each in changed:
        each.chmod(0o755)


Lock = Callable[[Path, int], None]


# Passed over, and told


@pytest.mark.parametrize("mode", [0o000, 0o311, 0o444])
def test_folders_that_cannot_be_read_are_passed_over(mode: int, root: Path, locked: Lock) -> None:
    put(root / "lost+found/1/model.onnx")
    locked(root / "lost+found", mode)
    scanned = Scanned(root)
    assert scanned.models == {"m": [1]}
    assert scanned.passed_over == {"lost+found": "cannot be read: Permission denied"}


def test_what_is_no_model_is_told(root: Path) -> None:
    put(root / "notes/readme.txt")
    put(root / "empty/1/notes.txt")
    put(root / "net.onnx")
    (root / "gone").symlink_to("nowhere")
    (root / "round").symlink_to("round")
    os.mkfifo(root / "pipe")
    scanned = Scanned(root)
    assert scanned.models == {"m": [1]}
    loop = scanned.passed_over.pop("round")
    assert loop.startswith("cannot be read: ")
    layout = "expected PATH/<model>/<version>/model.onnx, with versions 1, 2, 3 and so on"
    assert scanned.passed_over == {
        "notes": "contains no model",
        "empty": "contains no model",
        "net.onnx": f"is not in a folder of its own: {layout}",
        "gone": "is a link to nowhere, which is not there",
        "pipe": "is not a regular file",
    }


def test_a_file_called_like_a_version_is_told(root: Path) -> None:
    put(root / "m/2")
    scanned = Scanned(root)
    assert scanned.models == {"m": [1]}
    assert scanned.passed_over["2"].startswith("is not a folder: expected PATH/")


def test_ordinary_files_and_hidden_folders_are_not_told(root: Path) -> None:
    put(root / "README.md")
    put(root / ".git/config")
    put(root / ".cache/1/model.onnx")
    put(root / "m/notes.txt")
    put(root / "m/docs/image.png")
    put(root / "m/.ipynb_checkpoints/model.onnx")
    assert Scanned(root).passed_over == {}


# Versions that cannot be served: never silently an older one


def of_version_2(root: Path) -> str:
    """The reason, without the name of the model and its version."""
    text = refusal(root)
    assert text.startswith("model m version 2: ")
    return text.removeprefix("model m version 2: ")


def test_a_file_that_is_a_link_to_nowhere(root: Path) -> None:
    (root / "m/2").mkdir()
    file = root / "m/2/model.onnx"
    file.symlink_to("../blobs/abc")
    assert of_version_2(root) == f"{file} is a link to ../blobs/abc, which is not there"


def test_a_version_that_is_a_link_to_nowhere(root: Path) -> None:
    (root / "m/2").symlink_to("/nowhere/2")
    assert of_version_2(root) == f"{root / 'm/2'} is a link to /nowhere/2, which is not there"


def test_a_file_that_is_a_folder(root: Path) -> None:
    put(root / "m/2/model.onnx/model.onnx")
    file = root / "m/2/model.onnx"
    assert of_version_2(root).startswith(f"{file} is a folder, ")
    assert of_version_2(root).endswith(f"put what is in it beside it, into {root / 'm/2'}")


def test_a_file_that_is_a_folder_where_it_is_the_only_version(root: Path) -> None:
    (root / "m/1/model.onnx").unlink()
    put(root / "m/1/model.onnx/model.onnx")
    assert refusal(root).startswith(f"model m version 1: {root / 'm/1/model.onnx'} is a folder, ")


def test_a_file_that_is_none(root: Path) -> None:
    (root / "m/2").mkdir()
    os.mkfifo(root / "m/2/model.onnx")
    assert of_version_2(root) == f"{root / 'm/2/model.onnx'} is not a regular file"


def test_a_version_without_a_file(root: Path) -> None:
    (root / "m/2").mkdir()
    assert of_version_2(root) == f"{root / 'm/2/model.onnx'} is not there"


@pytest.mark.parametrize("mode", [0o000, 0o311, 0o444])
def test_a_version_that_cannot_be_read(mode: int, root: Path, locked: Lock) -> None:
    put(root / "m/2/model.onnx")
    locked(root / "m/2", mode)
    if mode == 0o311:  # files can be reached by their names
        assert Scanned(root).models == {"m": [1, 2]}
        return
    assert of_version_2(root) == f"{root / 'm/2/model.onnx'} cannot be read: Permission denied"


def test_the_only_version_cannot_be_read(root: Path, locked: Lock) -> None:
    locked(root / "m/1", 0o000)
    assert refusal(root) == f"model m version 1: {root / 'm/1/model.onnx'} cannot be read: Permission denied"


def test_all_versions_that_cannot_be_served_are_named(root: Path) -> None:
    (root / "m/2").symlink_to("nowhere")
    put(root / "m/3/model.onnx/x")
    assert [line.partition(":")[0] for line in refusal(root).splitlines()] == [
        "model m version 2",
        "model m version 3",
    ]


@pytest.mark.parametrize("settings", ["versions = [1]", "versions = [1]\nlabels = {stable = 1}"])
def test_a_version_that_is_not_to_be_served_may_be_anything(settings: str, root: Path) -> None:
    put(root / "m/model.toml", settings)
    (root / "m/2").symlink_to("nowhere")
    put(root / "m/3/model.onnx/x")
    assert Scanned(root).models == {"m": [1]}


def test_the_latest_version_is_the_one_that_cannot_be_served(root: Path) -> None:
    put(root / "m/model.toml", "versions = 'latest'")
    (root / "m/2").symlink_to("nowhere")
    assert of_version_2(root).endswith("is a link to nowhere, which is not there")


def test_settings_that_are_a_link_to_nowhere(root: Path) -> None:
    """Without them the model would be served as if there were none."""
    (root / "m/model.toml").symlink_to("nowhere.toml")
    with pytest.raises(ConfigError, match=r"m/model\.toml: is a link to nowhere\.toml, which is not there"):
        scan(root)


def test_settings_that_cannot_be_read(root: Path, locked: Lock) -> None:
    locked(put(root / "m/model.toml"), 0o000)
    with pytest.raises(ConfigError, match=r"m/model\.toml: cannot be read: Permission denied"):
        scan(root)


def test_settings_with_a_byte_order_mark(root: Path) -> None:
    (root / "m/model.toml").write_bytes(b"\xef\xbb\xbf[batching]\r\nmax_rows = 4\r\n")
    (model,) = scan(root)
    assert model.config.batching.max_rows == 4


# What is asked for by itself


def test_a_repository_that_cannot_be_read(root: Path, locked: Lock) -> None:
    locked(root, 0o444)
    assert refusal(root) == f"{root} cannot be read: Permission denied"


def test_a_path_that_cannot_be_reached(root: Path, locked: Lock) -> None:
    locked(root, 0o000)
    assert refusal(root / "m") == f"{root / 'm'} cannot be read: Permission denied"


def test_a_single_file_that_is_a_link_to_nowhere(root: Path) -> None:
    link = root / "net.onnx"
    link.symlink_to("elsewhere.onnx")
    assert refusal(link) == f"{link} is a link to elsewhere.onnx, which is not there"


def test_a_single_file_that_is_none(root: Path) -> None:
    os.mkfifo(root / "net.onnx")
    assert refusal(root / "net.onnx") == f"{root / 'net.onnx'} is not a regular file"


# Folders of other tools


def test_a_folder_of_hugging_face(root: Path) -> None:
    folder = root.parent / "bert"
    for name in ("config.json", "tokenizer.json", "onnx/model_quantized.onnx", "onnx/model.onnx"):
        put(folder / name)
    text = refusal(folder)
    assert f"{folder} is laid out as Hugging Face does it" in text
    assert "(or another of its 2 .onnx files)" in text
    assert f"`penstock serve {folder}/onnx/model.onnx`" in text
    assert "copy onnx/model.onnx and any file of weights beside it to MODELS/bert/1/" in text


MLMODEL = """\
flavors:
  onnx:
    code: null
    data: {}
    onnx_session_options: null
    onnx_version: 1.23.2
    providers:
    - CUDAExecutionProvider
    - CPUExecutionProvider
  python_function:
    data: model.onnx
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.onnx
    python_version: 3.11.7
mlflow_version: 3.17.2
model_size_bytes: 253
"""
"""As mlflow-skinny 3.17.2 writes it."""


def served(path: Path) -> dict[str, Path]:
    """The files of the only versions, by model."""
    return {model.name: model.versions[1] for model in scan(path)}


@pytest.mark.parametrize("named", ["model.onnx", "'model.onnx'"])
@pytest.mark.parametrize("more", [(), ("backup.onnx",)])
def test_a_folder_of_mlflow_is_served(named: str, more: tuple[str, ...], root: Path) -> None:
    """MLmodel says which file it is."""
    folder = root.parent / "churn"
    put(folder / "MLmodel", MLMODEL.format(named))
    for name in ("conda.yaml", "model.onnx", *more):
        put(folder / name)
    assert served(folder) == {"churn": folder / "model.onnx"}
    assert served(folder / "model.onnx") == {"model": folder / "model.onnx"}


def test_a_folder_of_mlflow_that_does_not_say_which_file(root: Path) -> None:
    folder = root.parent / "churn"
    put(folder / "MLmodel", "flavors:\n  sklearn:\n    data: model.onnx\n")
    put(folder / "model.onnx")
    assert served(folder) == {"churn": folder / "model.onnx"}
    put(folder / "other.onnx")
    text = refusal(folder)
    assert f"{folder} is laid out as MLflow does it" in text
    assert f"`penstock serve {folder}/model.onnx`" in text


@pytest.mark.parametrize("named", ["../elsewhere.onnx", "nowhere.onnx", "/etc/passwd"])
def test_a_file_of_mlflow_outside_its_folder_is_not_served(named: str, root: Path) -> None:
    folder = root.parent / "churn"
    put(root.parent / "elsewhere.onnx")
    put(folder / "MLmodel", MLMODEL.format(named))
    assert "without an .onnx file" in refusal(folder)


@pytest.mark.parametrize("file", ["onnx/model.onnx", "model.onnx", "onnx/model_quantized.onnx"])
def test_a_folder_of_hugging_face_with_one_model_is_served(file: str, root: Path) -> None:
    folder = root.parent / "bert"
    for name in ("config.json", "tokenizer.json", file):
        put(folder / name)
    assert served(folder) == {"bert": folder / file}


@pytest.mark.parametrize("file", ["onnx/model.onnx", "model.onnx"])
def test_folders_of_other_tools_in_a_repository(file: str, root: Path) -> None:
    put(root / "bert/config.json")
    put(root / "bert" / file)
    put(root / "quantized/config.json")
    put(root / "quantized/onnx/model_quantized.onnx")
    put(root / "churn/MLmodel", MLMODEL.format("model.onnx"))
    put(root / "churn/model.onnx")
    put(root / "churn/model.toml", "[batching]\nmax_rows = 4\n")
    assert served(root) == {
        "bert": root / "bert" / file,
        "churn": root / "churn/model.onnx",
        "m": root / "m/1/model.onnx",
        "quantized": root / "quantized/onnx/model_quantized.onnx",
    }
    (model,) = [each for each in scan(root) if each.name == "churn"]
    assert (model.config.batching.max_rows, model.folder) == (4, root / "churn")


@pytest.mark.parametrize("file", ["onnx/model.onnx", "model.onnx"])
def test_a_folder_of_hugging_face_with_several_models_in_a_repository(file: str, root: Path) -> None:
    put(root / "bert/config.json")
    put(root / "bert" / file)
    put(root / "bert/onnx/model_quantized.onnx")
    text = refusal(root)
    assert text.startswith(f"model bert: {root / 'bert'} is laid out as Hugging Face does it")
    assert f"copy {file} and" in text


def test_a_model_of_triton_whose_file_has_another_name(root: Path) -> None:
    put(root / "m/config.pbtxt", 'name: "m"\nbackend: "onnxruntime"\ndefault_model_filename: "net.onnx"\n')
    put(root / "m/2/net.onnx")
    (model,) = scan(root)
    assert model.versions == {1: root / "m/1/model.onnx", 2: root / "m/2/net.onnx"}


@pytest.mark.parametrize("name", ["../net.onnx", "net.plan", ""])
def test_a_name_of_triton_that_is_no_model_in_the_version(name: str, root: Path) -> None:
    put(root / "m/config.pbtxt", f'default_model_filename: "{name}"\n')
    put(root / "m/net.onnx")
    put(root / "m/2/net.plan")
    assert f"{root / 'm/2/model.onnx'} is not there" in refusal(root)


def test_a_folder_of_another_tool_without_a_model_of_onnx(root: Path) -> None:
    folder = root.parent / "bert"
    put(folder / "config.json")
    put(folder / "model.safetensors")
    assert f"{folder} is a model of Hugging Face without an .onnx file; export it" in refusal(folder)


def test_files_of_another_tool_beside_versions_do_not_matter(root: Path) -> None:
    put(root / "m/config.json")
    put(root / "m/MLmodel")
    assert Scanned(root).models == {"m": [1]}
