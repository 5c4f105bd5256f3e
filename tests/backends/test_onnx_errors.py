"""ONNX Runtime's errors reach people as a cause that they can act on, without its source code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from penstock.backends.onnx import OnnxBackend
from penstock.backends.onnx_errors import explained
from penstock.core.errors import ModelFailed, ModelLoadError
from support import zoo
from support.work import ONE_THREAD, opened

NOISE = re.compile(r"onnxruntime::|_src/|ONNXRuntimeError|\.(cc|cpp|h|hpp|cu):\d|std::|<lambda|\w+\(\)|\n")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"


def reason(path: Path) -> str:
    """Why a file cannot be loaded; the message names it."""
    with pytest.raises(ModelLoadError) as refused:
        OnnxBackend(path, ONE_THREAD, 1)
    text = str(refused.value)
    assert str(path) in text
    assert not NOISE.search(text), text
    assert refused.value.__cause__ is not None, "the log keeps what ONNX Runtime said"
    return text


def of_opset(*opsets: tuple[str, int], ir: int = zoo.IR_VERSION) -> onnx.ModelProto:
    """y = x * 2 by a file that claims these operator sets."""
    model = zoo.scale(2)
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*each) for each in opsets)
    model.ir_version = ir
    return model


# Causes that are known


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (of_opset(("", 99)), r"model.onnx uses opset 99 of ai.onnx; ONNX Runtime \S+ takes up to \d+ \("),
        (
            of_opset(("", 17), ("ai.onnx.ml", 98)),
            r"model.onnx uses opset 98 of ai.onnx.ml; ONNX Runtime \S+ takes up to \d+ \(",
        ),
        (of_opset(("", 1)), r"model.onnx uses opset 1 of ai.onnx; ONNX Runtime \S+ takes 7 and later"),
        (
            of_opset(("", 17), ir=99),
            r"model.onnx uses version 99 of the ONNX file format \(its IR version\); "
            r"ONNX Runtime \S+ takes up to \d+ \(",
        ),
    ],
)
def test_a_version_that_is_not_taken_is_told_with_those_that_are(
    model: onnx.ModelProto, words: str, tmp_path: Path
) -> None:
    text = reason(zoo.write(model, tmp_path / "model.onnx"))
    assert re.search(rf"model.onnx cannot be loaded: {words}", text), text
    assert ort.__version__ in text


def test_the_newest_versions_that_are_said_to_be_taken_are(tmp_path: Path) -> None:
    text = reason(zoo.write(of_opset(("", 99)), tmp_path / "model.onnx"))
    newest = int(re.search(r"takes up to (\d+)", text)[1])  # type: ignore[index]
    assert opened(of_opset(("", newest), ir=10), tmp_path).file.opsets == {"ai.onnx": newest}


def test_an_operator_of_another_library(tmp_path: Path) -> None:
    model = of_opset(("", 17), ("ai.onnx.contrib", 1))
    model.graph.node[0].domain = "ai.onnx.contrib"
    text = reason(zoo.write(model, tmp_path / "model.onnx"))
    assert "it uses the operator Mul of ai.onnx.contrib, which ONNX Runtime" in text
    assert "custom operators cannot be loaded" in text


def in_lower_case() -> onnx.ModelProto:
    """t = s in lower case, as scikit-learn's vectorizers begin."""
    s, t = (helper.make_tensor_value_info(name, TensorProto.STRING, ["N"]) for name in "st")
    node = helper.make_node("StringNormalizer", ["s"], ["t"], case_change_action="LOWER", is_case_sensitive=0)
    return helper.make_model(
        helper.make_graph([node], "g", [s], [t]),
        opset_imports=[helper.make_opsetid("", zoo.OPSET)],
        ir_version=zoo.IR_VERSION,
    )


LOAD = """
import sys
from pathlib import Path
from penstock.backends.onnx import OnnxBackend
from penstock.config import RuntimeConfig
from penstock.core.errors import ModelLoadError
import numpy as np
try:
    backend = OnnxBackend(Path(sys.argv[1]), RuntimeConfig(), 1)
    print(backend.run(["t"], {"s": np.array(["ABC"], object)})[0])
except ModelLoadError as error:
    print(error)
"""


def test_a_locale_that_is_not_there_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    path = zoo.write(in_lower_case(), tmp_path / "model.onnx")
    locales = tmp_path / "locales"
    locales.mkdir()

    def said() -> str:
        env = {**os.environ, "LOCPATH": str(locales)}
        run = subprocess.run(
            [sys.executable, "-c", LOAD, path], env=env, capture_output=True, text=True, check=True
        )
        return run.stdout.strip()

    text = said()
    assert "need the locale en_US.UTF-8, which this system does not have" in text
    command = re.search(r"`apt-get install locales && localedef (.*) (\S+)`", text)
    assert command, text
    assert not NOISE.search(text), text
    if not shutil.which("localedef"):
        pytest.skip("this system has no localedef")
    # What it advises to do, done in a folder.
    made = subprocess.run(["localedef", *command[1].split(), locales / command[2]], check=False)
    if made.returncode:
        pytest.skip("this system has not what locales are made of")
    assert said() == "['abc']"


# Weights in files of their own


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The file of the weights of `model.onnx`, which lies beside it; removed."""
    path = zoo.write(zoo.external(), tmp_path / "model.onnx", external=True)
    data = path.with_name("model.onnx.data")
    data.unlink()
    return data


def why_not(weights: Path) -> str:
    text = reason(weights.with_name("model.onnx"))
    found = re.search(r"cannot be loaded: its weights are in model\.onnx\.data, which (.*?) \(", text)
    assert found, text
    return found[1]


def test_weights_that_are_missing(weights: Path) -> None:
    assert why_not(weights) == "is not there"


def test_weights_that_are_a_link_to_nowhere(weights: Path) -> None:
    weights.symlink_to("elsewhere.bin")
    assert why_not(weights) == "is a link to elsewhere.bin, which is not there"


def test_weights_that_are_a_folder(weights: Path) -> None:
    weights.mkdir()
    assert why_not(weights) == "is a folder"


def test_weights_that_are_empty(weights: Path) -> None:
    weights.touch()
    assert why_not(weights) == "is empty"


def test_weights_that_are_a_pointer_of_git_lfs(weights: Path) -> None:
    weights.write_text(POINTER)
    assert why_not(weights) == "is a Git LFS pointer instead of the file itself: run `git lfs pull`"


# Files that are no models


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (POINTER.encode(), "it is a Git LFS pointer instead of the file itself: run `git lfs pull`"),
        (b"<html>not found</html>", "it is not an ONNX model, or only a part of one"),
        (zoo.scale(2).SerializeToString()[:-10], "it is not an ONNX model, or only a part of one"),
    ],
)
def test_what_is_no_model_is_told_as_what_it_is(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    assert f"{path} cannot be loaded: {words} (" in reason(path)


# Noise


def with_attribute(operator: str, domain: str = "", **attributes: object) -> onnx.ModelProto:
    """One node whose attributes ONNX Runtime refuses when it makes the kernel."""
    model = zoo.identity()
    del model.graph.node[:]
    model.graph.node.append(helper.make_node(operator, ["x"], ["y"], domain=domain, **attributes))
    return model


@pytest.mark.parametrize(
    "model",
    [
        with_attribute(
            "TfIdfVectorizer",
            mode="TF",
            max_gram_length=0,
            max_skip_count=0,
            min_gram_length=1,
            ngram_counts=[0],
            ngram_indexes=[0],
            pool_int64s=[1],
        ),
        with_attribute("Scaler", "ai.onnx.ml", scale=[1.0, 2.0], offset=[1.0]),
        with_attribute("Imputer", "ai.onnx.ml"),
        with_attribute("LabelEncoder", "ai.onnx.ml", keys_strings=["a"], values_floats=[1.0, 2.0]),
        with_attribute("Normalizer", "ai.onnx.ml", norm="L9"),
        with_attribute("OneHotEncoder", "ai.onnx.ml"),
        with_attribute("Cast", to=99),
        with_attribute("Conv"),
    ],
)
def test_what_kernels_say_at_load_is_plain(model: onnx.ModelProto, tmp_path: Path) -> None:
    reason(zoo.write(model, tmp_path / "model.onnx"))


def reshaped() -> onnx.ModelProto:
    """y = x [2, 3] in a shape that it does not fit, known only when it runs."""
    model = zoo.identity(shape=("N", 3))
    model.graph.node[0].CopyFrom(helper.make_node("Reshape", ["x", "shape"], ["y"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([7, 7]), "shape"))
    return model


def test_what_kernels_say_in_a_run_is_plain(tmp_path: Path) -> None:
    with pytest.raises(ModelFailed) as failed:
        opened(reshaped(), tmp_path).run(["y"], {"x": np.ones((2, 3), np.float32)})
    assert not NOISE.search(str(failed.value)), failed.value
    assert "cannot be reshaped" in str(failed.value)


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (
            "/onnxruntime_src/a/b.cc:235 onnxruntime::S::L::L(const std::string&)::<lambda()> No locale",
            "No locale",
        ),
        ("/src/a.h:1 auto ns::f(int)::<lambda(auto:1)> const Too many", "Too many"),
        ("/src/a.h:1 void ns::F::operator()(std::pair<int, int (*)(int)>) const x > 0 was false. Bad", "Bad"),
        ("/src/a.h:1 T ns::f(T) [with T = float; std::string = std::basic_string<char>] Bad", "Bad"),
        (
            "[ONNXRuntimeError] : 1 : FAIL : A: [ONNXRuntimeError] : 2 : X : b.cc:7 Read Bad file",
            "A: Bad file",
        ),
        (
            "Bad thing at /build/onnxruntime_src/core/x.cc:12 in onnxruntime::Foo<int>::bar()",
            "Bad thing at in",
        ),
        (
            "run(): incompatible function arguments. The following argument types are supported:\n    1. (a: "
            "onnxruntime.capi.X, arg0: list[str]) -> list\n\nInvoked with: [1], {2}",
            "run was called with values of the wrong kind",
        ),
        ("the file /models/a.b:1 is (not) there", "the file /models/a.b:1 is (not) there"),
    ],
)
def test_source_code_is_taken_out(said: str, left: str) -> None:
    assert explained(RuntimeError(said)) == left


@pytest.mark.parametrize("said", ["/." * 50_000, ":/a" * 50_000, "a.cc:" * 50_000, "/a.cc:1 (" * 50_000])
def test_names_that_a_model_makes_up_are_read_in_bounded_time(said: str) -> None:
    """A node may have a name of any length, and a caller may make the model fail again and again."""
    assert len(explained(RuntimeError(said))) <= 303


def test_an_error_of_nothing_but_noise_is_named() -> None:
    assert explained(RuntimeError("[ONNXRuntimeError] : 1 : FAIL : ")) == "RuntimeError"
    assert explained(ValueError()) == "ValueError"
