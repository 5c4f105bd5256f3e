"""The backend of ONNX Runtime; the only file that imports onnxruntime."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from penstock.backends import onnx_file
from penstock.backends.backend import ModelFile, RunControl
from penstock.backends.digest import CHANGED, Digest, Stamps
from penstock.backends.onnx_ends import Ends, read_ends
from penstock.backends.onnx_errors import explained, why_not_loaded
from penstock.backends.private_memory import make_private
from penstock.config import RuntimeConfig
from penstock.core.errors import ModelFailed, ModelLoadError
from penstock.core.minifloats import BY_BITS
from penstock.core.processors import available
from penstock.core.tensors import BY_ONNX_NAME, MISSING_TEXT, Array, DataType, Signature, TensorSpec

OPTIMIZATION = {
    "disable": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
ONLY_FATAL = 4  # ONNX Runtime's log level: what matters comes as an exception
UNSET_VERSION = 2**63 - 1  # what ONNX Runtime returns if the file has no version
MODEL_SUFFIX = ".onnx"
MOST_DEFAULTS = 16  # inputs with a default value; a model with more of them has its weights among them
EXTERNAL_DATA_FOLDER = "session.model_external_initializers_file_folder_path"


def version() -> str:
    """The release of ONNX Runtime in use."""
    return str(ort.__version__)


class OnnxBackend:
    """One ONNX Runtime session.

    Args:
        path: the model file; external data is looked for beside it. Once the model is loaded, its files may
            be changed or deleted.
        config: the session's settings.
        runs_in_parallel: how many runs may go on at the same time; the cores are shared out among them.
        share: how many processors these are; 0 for all that the process may use, by affinity and quota.

    Raises:
        ModelLoadError: the file cannot be loaded, has inputs or outputs that are not tensors, or has changed
            meanwhile.
    """

    def __init__(self, path: Path, config: RuntimeConfig, runs_in_parallel: int, share: int = 0) -> None:
        stamps = Stamps([path])
        weights = _weights(path)
        stamps.add([path.parent / name for name in weights])
        known = onnx_file.remembered(path)
        ends = None if known is not None and known.tensors_only else read_ends(path)
        if ends is not None and ends.refusal:
            raise ModelLoadError(f"{path}: {ends.refusal}")
        threads = config.intra_op_threads or max((share or available().count) // runs_in_parallel, 1)
        self._session = _open(path, ends, config, threads)
        _detach_from_files(path, weights, stamps)
        try:
            self.signature = _signature(self._session, path)
            opsets = onnx_file.opsets(path) if known is None else known.opsets
        except ValueError as error:
            raise ModelLoadError(f"{path}: {error}") from error
        self._digest = digest = Digest(path, weights, stamps)
        self.file = ModelFile(
            metadata=_metadata(self._session),
            opsets=opsets,
            size_bytes=stamps.sizes_bytes[0],
            digest=lambda: digest.value,
            changes=ends.changes if ends else (),
        )
        self.providers: Sequence[str] = tuple(self._session.get_providers())
        self._run = _runner(self._session)
        self._has_arena = config.arena
        tensors = self.signature
        self._fed = {**tensors.inputs, **tensors.defaults}
        specs = (*self._fed.values(), *tensors.outputs.values())
        # Datatypes that numpy lacks are passed as bits.
        self._by_bits = any(spec.datatype in BY_BITS for spec in specs)

    def run(
        self, outputs: Sequence[str], inputs: Mapping[str, Array], control: RunControl | None = None, /
    ) -> Sequence[Array]:
        """Runs the graph once; see `penstock.backends.backend.Backend.run`.

        A run that is stopped ends between two nodes of the graph.
        """
        options = None
        if control is not None:
            options = ort.RunOptions()
            control.stop_with(partial(setattr, options, "terminate", True))
            if control.is_large and self._has_arena:
                options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        try:
            if self._by_bits:
                return self._run_by_bits(outputs, inputs, options)
            return self._run(outputs, inputs, options)
        except Exception as error:  # ONNX Runtime's errors have no root of their own
            raise ModelFailed(f"the model failed on this request: {explained(error)}") from error

    def close(self) -> None:
        """Frees the session."""
        self._digest.stop()
        del self._session, self._run

    def _run_by_bits(
        self, outputs: Sequence[str], inputs: Mapping[str, Array], options: ort.RunOptions | None
    ) -> Sequence[Array]:
        """As `run`, if some tensors are held as bits: these are passed as OrtValues."""
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
        datatype = self._fed[name].datatype
        if datatype not in BY_BITS:
            return array
        # ONNX Runtime reads the memory in order and ignores the strides.
        contiguous = np.asarray(array, order="C")  # ascontiguousarray makes a scalar a vector
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(contiguous, datatype.onnx_type)


def _runner(session: ort.InferenceSession) -> Callable[..., Sequence[Array]]:
    """The function that runs a session. It takes the requested outputs, the inputs by name, and options.

    `InferenceSession.run` checks in every run what the codec has checked already, such as whether an input is
    missing: 2 µs beside the 7 µs of a small model. So the inner function is called; if a release of ONNX
    Runtime does not have it, `InferenceSession.run` is used.
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


def _open(path: Path, ends: Ends | None, config: RuntimeConfig, threads: int) -> ort.InferenceSession:
    options = _options(config, threads)
    there = ort.get_available_providers()
    unknown = sorted(set(config.providers).difference(there))
    if unknown:
        available = ", ".join(there)
        raise ModelLoadError(
            f"execution provider {', '.join(unknown)} is not available; available: {available}"
        )
    try:
        repaired = ends.repaired if ends else None
        if repaired is not None:  # it no longer says by itself where its external data is
            options.add_session_config_entry(EXTERNAL_DATA_FOLDER, str(path.parent.resolve()))
        session = ort.InferenceSession(
            str(path) if repaired is None else repaired,
            options,
            providers=list(config.providers),
            enable_fallback=0,  # else a failing provider is replaced silently
        )
    except Exception as error:  # as in run
        raise ModelLoadError(why_not_loaded(error, path, version())) from error
    return session


def _weights(path: Path) -> Sequence[str]:
    """The names of the files beside the model that hold its external data."""
    try:
        return onnx_file.beside(path, onnx_file.external_files(path))
    except (OSError, ValueError):  # not a model: ONNX Runtime says in which way
        return ()


def _detach_from_files(path: Path, weights: Sequence[str], stamps: Stamps) -> None:
    """Makes the session independent of the files that it was loaded from.

    Raises:
        ModelLoadError: a file has changed meanwhile, or there is not enough memory.
    """
    try:
        make_private([path.parent / name for name in weights])
    except OSError as error:
        raise ModelLoadError(f"the weights of {path} cannot be read into memory: {error.strerror}") from error
    changed = stamps.changed()
    if changed is not None:
        raise ModelLoadError(f"{changed} {CHANGED}")


def _options(config: RuntimeConfig, threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
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
    taken, given = session.get_inputs(), session.get_outputs()
    arguments = [*taken, *given]
    # ONNX Runtime does not distinguish a scalar from a tensor that declares no shape.
    unclear = any(not argument.shape for argument in arguments)
    any_rank = _any_rank(path) if unclear and path.suffix == MODEL_SUFFIX else ()
    inputs = [_spec("input", argument, any_rank) for argument in taken]
    outputs = [_spec("output", argument, any_rank) for argument in given]
    _refuse_text_beside_bits({spec.datatype for spec in (*inputs, *outputs)})
    if any(spec.datatype is DataType.BYTES for spec in inputs):
        text = _missing_text(session.get_modelmeta().custom_metadata_map)
        inputs = [
            replace(spec, missing_text=text) if spec.datatype is DataType.BYTES else spec for spec in inputs
        ]
    tensors = ({spec.name: spec for spec in specs} for specs in (inputs, outputs, _defaults(session)))
    return Signature(*tensors)


def _missing_text(metadata: Mapping[str, str]) -> str | None:
    """What a missing text is sent as; None if the file does not say.

    Raises:
        ValueError: it is no text of JSON.
    """
    said = metadata.get(MISSING_TEXT)
    if said is None:
        return None
    try:
        text = json.loads(said)
        str(text).encode()  # half of a surrogate pair is no text
    except ValueError:
        text = None
    if not isinstance(text, str):
        raise ValueError(f'its metadata {MISSING_TEXT} is {said}, expected a text of JSON, such as ""')
    return text


def _any_rank(path: Path) -> Collection[str]:
    known = onnx_file.remembered(path)
    return onnx_file.tensors_of_any_rank(path) if known is None else known.any_rank


def _defaults(session: ort.InferenceSession) -> Sequence[TensorSpec]:
    """The inputs with a default value.

    Some exporters declare all weights as inputs, which then have a default value; no request is meant to send
    them. So a model with very many has none here. Nor is an input with an open shape one of them: its rows
    could be taken for a batch's.
    """
    arguments = session.get_overridable_initializers()
    if len(arguments) > MOST_DEFAULTS:
        return []
    usable = [each for each in arguments if each.type in BY_ONNX_NAME]
    return [_spec("input", each, ()) for each in usable if all(isinstance(n, int) for n in each.shape)]


def _refuse_text_beside_bits(datatypes: set[DataType]) -> None:
    """ONNX Runtime's Python interface has no way for both in one run."""
    if DataType.BYTES in datatypes and (held := sorted(str(each) for each in datatypes & BY_BITS)):
        raise ValueError(f"it has both BYTES and {held[0]}, which ONNX Runtime cannot run from Python")


def _spec(role: str, argument: ort.NodeArg, any_rank: Collection[str]) -> TensorSpec:
    datatype = BY_ONNX_NAME.get(argument.type)
    if datatype is None:
        raise ValueError(f"{role} {argument.name} is {argument.type}: {_advice(argument.type)}")
    if not argument.shape and argument.name in any_rank:
        return TensorSpec(argument.name, datatype, None)
    shape = tuple(size if isinstance(size, int) else size or "?" for size in argument.shape)
    return TensorSpec(argument.name, datatype, shape)


def _advice(kind: str) -> str:
    if not kind.startswith("tensor("):
        return "only tensors can be served; export the model with tensors as inputs and outputs"
    return f"this datatype cannot be served; supported datatypes: {', '.join(BY_ONNX_NAME)}"


def _metadata(session: ort.InferenceSession) -> Mapping[str, str]:
    meta = session.get_modelmeta()
    facts = {
        "producer": meta.producer_name,
        "domain": meta.domain,
        "graph": meta.graph_name,
        "description": meta.description or meta.graph_description,
        "model_version": str(meta.version) if 0 < meta.version < UNSET_VERSION else "",
    }
    return {key: value for key, value in {**facts, **meta.custom_metadata_map}.items() if value}
