"""The facts of an ONNX file, and what hostile bytes make of their reader."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from penstock.backends import onnx_file
from support import zoo

MEBIBYTE = 2**20
READERS: tuple[Callable[[Path], Iterable[str]], ...] = (
    onnx_file.opsets,
    onnx_file.tensors_of_any_rank,
    onnx_file.external_files,
)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def test_sha256_is_of_the_bytes(path: Path) -> None:
    path.write_bytes(b"anything" * 100_000)
    assert onnx_file.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_opsets_of_every_domain(path: Path) -> None:
    model = zoo.identity()
    model.opset_import.append(helper.make_opsetid("com.example", 2**40))
    zoo.write(model, path)
    assert onnx_file.opsets(path) == {
        "ai.onnx": zoo.OPSET,
        "ai.onnx.ml": zoo.ML_OPSET,
        "com.example": 2**40,
    }


def test_opsets_that_say_nothing(path: Path) -> None:
    path.write_bytes(field(8, b""))
    assert onnx_file.opsets(path) == {"ai.onnx": 0}
    path.write_bytes(b"")
    assert onnx_file.opsets(path) == {}


def test_a_version_that_is_no_number_is_none(path: Path) -> None:
    """A version with the wire type of text: Python would take its bytes for digits."""
    path.write_bytes(field(8, field(2, b"12")))
    assert onnx_file.opsets(path) == {"ai.onnx": 0}


def test_unknown_fields_are_passed_over(path: Path) -> None:
    unknown = varint(99 << 3 | 5) + b"four" + varint(98 << 3 | 1) + b"eight..." + varint(97 << 3) + varint(5)
    path.write_bytes(unknown + zoo.identity().SerializeToString() + unknown)
    assert onnx_file.opsets(path)["ai.onnx"] == zoo.OPSET
    assert onnx_file.tensors_of_any_rank(path) == set()


@pytest.mark.parametrize(
    ("make", "found"),
    [(zoo.rank_unknown, {"x", "y"}), (zoo.scalar, set()), (zoo.identity, set()), (zoo.multi_output, set())],
)
def test_tensors_without_a_shape_are_told_from_scalars(
    make: Callable[[], onnx.ModelProto], found: set[str], path: Path
) -> None:
    zoo.write(make(), path)
    assert onnx_file.tensors_of_any_rank(path) == found


def test_one_of_several_tensors_without_a_shape(path: Path) -> None:
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("a", []), ("ü", None))
    ]
    outputs = [helper.make_tensor_value_info(f"{each.name}_out", TensorProto.FLOAT, []) for each in values]
    nodes = [helper.make_node("Identity", [each.name], [f"{each.name}_out"]) for each in values]
    zoo.write(helper.make_model(helper.make_graph(nodes, "g", values, outputs)), path)
    assert onnx_file.tensors_of_any_rank(path) == {"ü"}


def test_the_version_of_the_format(path: Path) -> None:
    zoo.write(zoo.identity(), path)
    assert onnx_file.ir_version(path) == zoo.IR_VERSION
    path.write_bytes(b"")
    assert onnx_file.ir_version(path) == 0


def external(name: str, location: str, **more: str) -> TensorProto:
    """A tensor whose values lie in a file."""
    made = TensorProto(name=name, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in {"length": "4", **more, "location": location}.items():
        made.external_data.add(key=key, value=value)
    return made


def with_external_data() -> onnx.ModelProto:
    """A model with tensors in files of their own wherever a model can have some."""
    model = zoo.rank_unknown()
    model.graph.initializer.extend([external("b", "b.bin"), external("a", "a.bin"), external("c", "b.bin")])
    model.graph.initializer.append(TensorProto(name="location"))
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(external("d", "values.bin"))
    sparse.indices.CopyFrom(external("e", "indices.bin"))
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["f"], value=external("f", "folder/deep.bin"))],
        "inner",
        [],
        [],
        [external("g", "inner.bin")],
    )
    model.graph.node.append(helper.make_node("If", ["x"], ["h"], then_branch=inner))
    function = model.functions.add(name="fun")
    function.node.append(helper.make_node("Constant", [], ["i"], value=external("i", "function.bin")))
    return model


def test_the_files_of_external_data(path: Path) -> None:
    zoo.write(with_external_data(), path)
    assert onnx_file.external_files(path) == [
        "a.bin",
        "b.bin",
        "folder/deep.bin",
        "function.bin",
        "indices.bin",
        "inner.bin",
        "values.bin",
    ]


def test_tensors_that_hold_their_values_name_no_file(path: Path) -> None:
    model = zoo.scale(2)
    model.graph.initializer[0].external_data.add(key="location", value="not_used.bin")
    zoo.write(model, path)
    assert onnx_file.external_files(path) == []


def test_only_files_below_the_models_folder_are_beside_it(path: Path) -> None:
    folder = path.parent
    (folder / "below").mkdir()
    for name in ("a.bin", "below/b.bin"):
        (folder / name).write_bytes(b"data")
    (folder / "c.bin").symlink_to("nowhere")
    names = ["a.bin", "below/b.bin", "c.bin", "below", "../x.bin", str(folder / "a.bin"), "a\0b", "no.bin"]
    assert onnx_file.beside(path, names) == ["a.bin", "below/b.bin"]


def test_graphs_as_deep_as_a_hostile_file_has_them(path: Path) -> None:
    data = TensorProto.EXTERNAL
    tensor = field(13, field(1, b"location") + field(2, b"w.bin")) + varint(14 << 3) + varint(data)
    inner = field(5, tensor)
    for _ in range(5000):
        inner = field(1, field(5, field(6, inner)))
    path.write_bytes(field(7, inner))
    assert onnx_file.external_files(path) == ["w.bin"]


@pytest.mark.parametrize("size", [MEBIBYTE - 1, MEBIBYTE, MEBIBYTE + 1])
def test_files_of_any_size(size: int, path: Path) -> None:
    model = zoo.rank_unknown().SerializeToString()
    padding = size - len(model) - 5
    path.write_bytes(model + field(99, bytes(padding)))
    assert abs(path.stat().st_size - size) < 2
    assert onnx_file.opsets(path)["ai.onnx"] == zoo.OPSET
    assert onnx_file.tensors_of_any_rank(path) == {"x", "y"}


@pytest.mark.parametrize(
    "data",
    [
        b"\x80",
        b"\xff" * 11,
        b"\x0a",
        b"\x0a\x05abc",
        b"\x0a" + varint(2**63),
        varint(8 << 3 | 1) + b"short",
        varint(8 << 3 | 5) + b"abc",
        varint(8 << 3 | 3),
        varint(8 << 3 | 7),
        field(8, b"\x80"),
        field(8, field(1, b"\xff\xfe")),
        field(7, field(11, b"\x80")),
    ],
)
def test_what_is_no_message_is_a_value_error(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    errors = 0
    for read in READERS:
        try:
            read(path)
        except ValueError:
            errors += 1
    assert errors


def mutated() -> st.SearchStrategy[bytes]:
    """A real file with a few bytes changed, cut out or put in: deeper than random bytes ever come."""
    whole = with_external_data().SerializeToString()
    change = st.tuples(st.integers(0, len(whole)), st.integers(0, 3), st.binary(max_size=3))

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        data = whole
        for position, length, new in changes:
            data = data[:position] + new + data[position + length :]
        return data

    return st.lists(change, min_size=1, max_size=4).map(apply)


@QUICK
@given(st.binary(max_size=300) | mutated())
@example(b"\xff" * 300)
@example(field(8, field(2, b"")))
def test_hostile_bytes_end_in_an_answer_or_a_value_error(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    for read in READERS:
        try:
            found = read(path)
        except ValueError:
            continue
        assert all(isinstance(name, str) for name in found)
    with suppress(ValueError):
        assert isinstance(onnx_file.ir_version(path), int)


@pytest.fixture
def large_and_hostile(path: Path) -> Iterator[Path]:
    # A mapped file of nothing but tiny fields, and fields in fields.
    path.write_bytes((varint(8 << 3 | 2) + b"\x02\x10\x01") * (MEBIBYTE // 4 + 1))
    yield path
    path.unlink()


def test_many_small_fields_are_read_in_bounded_time(large_and_hostile: Path) -> None:
    started = time.monotonic()
    assert onnx_file.opsets(large_and_hostile) == {"ai.onnx": 1}
    assert time.monotonic() - started < 20
