"""Translates ONNX Runtime's errors into messages that a caller or an operator can act on.

Everything that ONNX Runtime raises becomes a message here. Source paths, functions and conditions of its
code are left out; the exception itself, which the log keeps, still has them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from penstock.backends import onnx_file
from penstock.backends.files import why_unusable

RUN_LENGTH = 300  # characters of a message in answers, where headers limit it
LOAD_LENGTH = 1000  # at the start, where ONNX Runtime's advice stands last
OLDEST_OPSET = 7  # of ai.onnx: ONNX Runtime has no operators of earlier ones

MOST_READ = 4000  # characters of what it says: a model may give its nodes names of any length

_PATH = r"/\S{1,200}"  # of a limited length: each "/" may be the beginning of one
_SOURCE = "(?:cc|cpp|cuh?|h|hpp)"
_ARGUMENTS = r"\((?:[^()]|\([^()]*\))*\)"
_FUNCTION = rf"[^(\n]*(?:{_ARGUMENTS})+(?: const)?(?:::<?\w+{_ARGUMENTS}>?(?: const)?)*(?: \[with [^\]]*\])?"
NOISE = (
    re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ?"),
    re.compile(r"^Load model from .*? failed:"),
    # /src/file.h:540 void Class::method(int) condition was false. What matters
    re.compile(rf"{_PATH}\.{_SOURCE}:\d+ {_FUNCTION} (?:[^\n]*? was false\. )?"),
    re.compile(rf"{_PATH}\.{_SOURCE}:\d+"),
    # file.cc:59 method What matters
    re.compile(rf"\b\w+\.{_SOURCE}:\d+ \w+ "),
    re.compile(r":locale::\S+ name not valid"),
    # What is left of places and names in another form.
    re.compile(rf"\b\w+\.{_SOURCE}:\d+"),
    re.compile(r"\bonnxruntime::\S+"),
)
"""Parts of its errors that are not the reason, in the order in which they are removed."""

# An error of the bindings: it lists the signatures of their C++ functions, and the arguments.
BINDINGS = re.compile(r"^(\w+)\(\): incompatible (?:function|constructor) arguments\..*", re.DOTALL)


def explained(error: Exception, length: int = RUN_LENGTH) -> str:
    """ONNX Runtime's message in one line, without the parts that only its developers need.

    Args:
        error: what it raised.
        length: of the longest message, in characters.
    """
    text = str(error)[:MOST_READ]
    text = BINDINGS.sub(r"\1 was called with values of the wrong kind", text)
    for noise in NOISE:
        text = noise.sub("", text)
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= length else f"{text[:length]}..."


def why_not_loaded(error: Exception, path: Path, release: str) -> str:
    """Why a model cannot be loaded: the cause, if it is a known one, then ONNX Runtime's message.

    Args:
        error: what ONNX Runtime raised.
        path: the model file.
        release: of ONNX Runtime.
    """
    words = explained(error, LOAD_LENGTH)
    for cause in CAUSES:
        found = cause(words, path, release)
        if found:
            return f"{path} cannot be loaded: {found} (ONNX Runtime: {words})"
    return f"ONNX Runtime cannot load {path}: {words}"


# The known causes. Each function looks at ONNX Runtime's message and at the file; "" if it is not the cause.


def _file(words: str, path: Path, release: str) -> str:
    reason = why_unusable(path)
    return f"it {reason}" if reason else ""


def _format(words: str, path: Path, release: str) -> str:
    found = re.search(r"IR version: (\d+), max supported IR version: (\d+)", words)
    if not found:
        return ""
    return (
        f"{path.name} uses version {found[1]} of the ONNX file format (its IR version); "
        f"ONNX Runtime {release} takes up to {found[2]}"
    )


def _opset(words: str, path: Path, release: str) -> str:
    found = re.search(r"for domain (\S+) is till opset (\d+)", words)
    if not found:
        return ""
    domain, most = found[1], found[2]
    used = _opsets(path).get(domain, "a later one")
    return f"{path.name} uses opset {used} of {domain}; ONNX Runtime {release} takes up to {most}"


def _old_opset(words: str, path: Path, release: str) -> str:
    if not re.search("Could not find an implementation|No Op registered", words):
        return ""
    used = _opsets(path).get(onnx_file.STANDARD_DOMAIN, OLDEST_OPSET)
    if used >= OLDEST_OPSET:
        return ""
    return (
        f"{path.name} uses opset {used} of {onnx_file.STANDARD_DOMAIN}; ONNX Runtime {release} takes "
        f"{OLDEST_OPSET} and later"
    )


def _operator(words: str, path: Path, release: str) -> str:
    found = re.search(r"([\w.]+):(\w+)\(-?\d+\) is not a registered function/op", words)
    if not found:
        return ""
    return (
        f"it uses the operator {found[2]} of {found[1]}, which ONNX Runtime {release} does not have; "
        "libraries of custom operators cannot be loaded"
    )


def _locale(words: str, path: Path, release: str) -> str:
    found = re.search(r"locale with name:(([\w@]+)\.([\w-]+))", words)
    if not found:
        return ""
    return (
        f"its operators on text need the locale {found[1]}, which this system does not have; on Debian and "
        f"Ubuntu, get it by `apt-get install locales && localedef -i {found[2]} -f {found[3]} {found[1]}`"
    )


def _external_data(words: str, path: Path, release: str) -> str:
    try:
        names = onnx_file.external_files(path)
    except (OSError, ValueError):
        return ""
    reasons = {name: why_unusable(path.parent / name) for name in names}
    return "; ".join(f"its weights are in {name}, which {why}" for name, why in reasons.items() if why)


def _no_model(words: str, path: Path, release: str) -> str:
    if not re.match(r"Protobuf parsing failed|No graph was found", words):
        return ""
    return "it is not an ONNX model, or only a part of one"


def _opsets(path: Path) -> dict[str, int]:
    try:
        return onnx_file.opsets(path)
    except (OSError, ValueError):
        return {}


CAUSES: tuple[Callable[[str, Path, str], str], ...] = (
    _file,
    _format,
    _opset,
    _old_opset,
    _operator,
    _locale,
    _external_data,
    _no_model,
)
