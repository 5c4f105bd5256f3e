"""ONNX Runtime as a backend; the only file that imports it."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from penstock.backends import onnx_file
from penstock.backends.backend import ModelFile, Stop
from penstock.bits import BY_BITS
from penstock.config import RuntimeConfig
from penstock.errors import ModelFailed, ModelLoadError
from penstock.tensors import BY_ONNX_NAME, Array, DataType, Signature, TensorSpec

OPTIMIZATION = {
    "disable": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
ONLY_FATAL = 4  # ONNX Runtime's log level: what matters comes as an exception
MESSAGE_LENGTH = 300  # in answers, where headers bound it
LOAD_MESSAGE_LENGTH = 1000  # at the start, where what ONNX Runtime advises stands last
UNSET_VERSION = 2**63 - 1  # what ONNX Runtime gives where the file says nothing
MODEL_SUFFIX = ".onnx"

SIGNATURE = r"[^(]*\((?:[^()]|\([^()]*\))*\)(?: const)?(?: \[with [^\]]*\])?"
NOISE = (
    re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"^Load model from .*? failed:"),
    # /src/file.h:540 void Class::method(int) condition was false. What matters
    re.compile(rf"/\S+\.\w+:\d+ {SIGNATURE} (?:[^\n]*? was false\. )?"),
    # file.cc:59 method What matters
    re.compile(r"\b\w+\.(?:cc|cpp|cu|h):\d+ \w+ "),
)
"""What its errors hold beside the reason, in the order in which it is taken out."""


def version() -> str:
    """The release of ONNX Runtime in use."""
    return str(ort.__version__)


def cores() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class OnnxBackend:
    """One ONNX Runtime session.

    Args:
        path: the model file; external data is looked for beside it.
        config: the session's settings.
        runs_in_parallel: how many runs may go on at the same time; the cores are shared out among them.
        share: how many cores these are; 0 for all that the process may use.

    Raises:
        ModelLoadError: the file cannot be loaded, or takes or gives what is not a tensor.
    """

    def __init__(self, path: Path, config: RuntimeConfig, runs_in_parallel: int, share: int = 0) -> None:
        self._session = _open(path, config, _options(config, runs_in_parallel, share or cores()))
        try:
            self.signature = _signature(self._session, path)
            self.file = _describe(self._session, path)
        except ValueError as error:
            raise ModelLoadError(f"{path}: {error}") from error
        self.providers: Sequence[str] = tuple(self._session.get_providers())
        self._run = _runner(self._session)
        specs = (*self.signature.inputs.values(), *self.signature.outputs.values())
        # What numpy lacks crosses over as bits.
        self._by_bits = any(spec.datatype in BY_BITS for spec in specs)

    def run(
        self, outputs: Sequence[str], inputs: Mapping[str, Array], stop: Stop | None = None
    ) -> Sequence[Array]:
        """Runs the graph once; see `penstock.backends.backend.Backend.run`.

        A run ends early between two nodes of the graph.
        """
        options = None if stop is None else _options_to_stop(stop)
        try:
            if self._by_bits:
                return self._run_by_bits(outputs, inputs, options)
            return self._run(outputs, inputs, options)
        except Exception as error:  # ONNX Runtime's errors have no root of their own
            raise ModelFailed(f"the model failed on this request: {_explained(error)}") from error

    def close(self) -> None:
        """Lets go of the session."""
        del self._session, self._run

    def _run_by_bits(
        self, outputs: Sequence[str], inputs: Mapping[str, Array], options: ort.RunOptions | None
    ) -> Sequence[Array]:
        """As `run`, where some tensors are held as bits: those go in and come out as OrtValues."""
        feeds = {name: self._feed(name, array) for name, array in inputs.items()}
        datatypes = [self.signature.outputs[name].datatype for name in outputs]
        if BY_BITS.isdisjoint(datatypes):
            return self._session.run(outputs, feeds, options)  # type: ignore[no-any-return]
        values = {
            name: feed if isinstance(feed, ort.OrtValue) else ort.OrtValue.ortvalue_from_numpy(feed)
            for name, feed in feeds.items()
        }
        results = self._session.run_with_ort_values(list(outputs), values, options)
        return [
            _bits(value, datatype) if datatype in BY_BITS else value.numpy()
            for datatype, value in zip(datatypes, results, strict=True)
        ]

    def _feed(self, name: str, array: Array) -> Any:
        datatype = self.signature.inputs[name].datatype
        if datatype not in BY_BITS:
            return array
        # ONNX Runtime reads the memory as it lies, whatever the strides.
        contiguous = np.asarray(array, order="C")  # ascontiguousarray makes a scalar a vector
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(contiguous, datatype.onnx_type)


def _options_to_stop(stop: Stop) -> ort.RunOptions:
    """What lets one run be ended; making it takes less than a microsecond."""
    options = ort.RunOptions()

    def end() -> None:
        options.terminate = True

    stop.by(end)
    return options


def _runner(session: ort.InferenceSession) -> Callable[..., Sequence[Array]]:
    """What runs a session: outputs wanted, inputs by name, options.

    `InferenceSession.run` asks of every run what the codec has seen to already, such as whether an input is
    missing: 2 µs beside the 7 of a small model. Where a release has not what it calls in the end, it is
    called itself.
    """
    inner = getattr(session, "_sess", None)
    run: Callable[..., Sequence[Array]] = getattr(inner, "run", session.run)
    return run


def _bits(value: ort.OrtValue, datatype: DataType) -> Array:
    """A copy of the bits of a value."""
    shape = tuple(value.shape())
    count = int(np.prod(shape, dtype=np.int64))
    if not count:
        return np.empty(shape, datatype.dtype)
    data = ctypes.string_at(value.data_ptr(), count * datatype.dtype.itemsize)
    return np.frombuffer(data, datatype.dtype).reshape(shape)


def _open(path: Path, config: RuntimeConfig, options: ort.SessionOptions) -> ort.InferenceSession:
    unknown = sorted(set(config.providers) - set(ort.get_available_providers()))
    if unknown:
        available = ", ".join(ort.get_available_providers())
        raise ModelLoadError(f"no execution provider {', '.join(unknown)} here; there is {available}")
    try:
        session = ort.InferenceSession(
            str(path),
            options,
            providers=list(config.providers),
            enable_fallback=0,  # else a failing provider is replaced without a word
        )
    except Exception as error:  # as in run
        raise ModelLoadError(
            f"ONNX Runtime cannot load {path}: {_explained(error, LOAD_MESSAGE_LENGTH)}"
        ) from error
    return session


def _options(config: RuntimeConfig, runs_in_parallel: int, share: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = config.intra_op_threads or max(share // runs_in_parallel, 1)
    options.inter_op_num_threads = config.inter_op_threads
    parallel = config.inter_op_threads > 1
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if parallel else ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = OPTIMIZATION[config.optimization]
    options.enable_cpu_mem_arena = config.arena
    options.log_severity_level = ONLY_FATAL
    for kind in ("intra", "inter"):
        options.add_session_config_entry(f"session.{kind}_op.allow_spinning", str(int(config.spinning)))
    return options


def _signature(session: ort.InferenceSession, path: Path) -> Signature:
    arguments = [*session.get_inputs(), *session.get_outputs()]
    # ONNX Runtime shows a scalar and a tensor that declares no shape alike.
    unclear = any(not argument.shape for argument in arguments)
    any_rank = onnx_file.tensors_of_any_rank(path) if unclear and path.suffix == MODEL_SUFFIX else set()
    _refuse_text_beside_bits(arguments)
    inputs = [_spec("input", argument, any_rank) for argument in session.get_inputs()]
    outputs = [_spec("output", argument, any_rank) for argument in session.get_outputs()]
    return Signature({spec.name: spec for spec in inputs}, {spec.name: spec for spec in outputs})


def _refuse_text_beside_bits(arguments: Sequence[ort.NodeArg]) -> None:
    """ONNX Runtime's Python interface has no way for both in one run."""
    datatypes = {BY_ONNX_NAME.get(argument.type) for argument in arguments}
    held = sorted(str(each) for each in datatypes & BY_BITS)
    if DataType.BYTES in datatypes and held:
        raise ValueError(f"it has both BYTES and {held[0]}, which ONNX Runtime cannot run from Python")


def _spec(role: str, argument: ort.NodeArg, any_rank: set[str]) -> TensorSpec:
    datatype = BY_ONNX_NAME.get(argument.type)
    if datatype is None:
        raise ValueError(f"{role} {argument.name} is {argument.type}: {_advice(argument.type)}")
    if not argument.shape and argument.name in any_rank:
        return TensorSpec(argument.name, datatype, None)
    shape = tuple(size if isinstance(size, int) else size or "?" for size in argument.shape)
    return TensorSpec(argument.name, datatype, shape)


def _advice(kind: str) -> str:
    if "map(" in kind:
        return "only tensors can be served; export the classifier without ZipMap (options={'zipmap': False})"
    if not kind.startswith("tensor("):
        return "only tensors can be served; export the model so that it takes and gives plain tensors"
    return f"this datatype cannot be served; those that can are {', '.join(BY_ONNX_NAME)}"


def _describe(session: ort.InferenceSession, path: Path) -> ModelFile:
    meta = session.get_modelmeta()
    facts = {
        "producer": meta.producer_name,
        "domain": meta.domain,
        "graph": meta.graph_name,
        "description": meta.description or meta.graph_description,
        "model_version": str(meta.version) if 0 < meta.version < UNSET_VERSION else "",
    }
    return ModelFile(
        metadata={key: value for key, value in {**facts, **meta.custom_metadata_map}.items() if value},
        opsets=onnx_file.opsets(path),
        sha256=onnx_file.sha256(path),
        size_bytes=path.stat().st_size,
    )


def _explained(error: Exception, length: int = MESSAGE_LENGTH) -> str:
    """What ONNX Runtime says, in one line and without the places and conditions in its source code."""
    text = str(error).strip() or type(error).__name__
    for noise in NOISE:
        text = noise.sub("", text)
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[:length]}..."
