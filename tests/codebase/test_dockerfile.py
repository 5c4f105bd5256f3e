"""The image's commands, done in a clean folder, give a process that serves, says it is healthy, and stops."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from support.image import Image, Instruction, has_locales, parse

ROOT = Path(__file__).parents[2]
START_SECONDS = 30
STOP_SECONDS = 25


@pytest.fixture(scope="module")
def instructions() -> list[Instruction]:
    return parse((ROOT / "Dockerfile").read_text())


def values(instructions: list[Instruction], name: str) -> list[str]:
    return [instruction.value for instruction in instructions if instruction.name == name]


def test_instructions_are_parsed() -> None:
    text = 'FROM a AS b\n# why\nRUN one \\\n    # two\n    && three\n\nCMD ["x"]\n'
    assert parse(text) == [
        Instruction("FROM", "a AS b"),
        Instruction("RUN", "one && three"),
        Instruction("CMD", '["x"]'),
    ]


def test_it_runs_as_a_numbered_user_that_is_not_root(instructions: list[Instruction]) -> None:
    user, _, group = values(instructions, "USER")[-1].partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_it_declares_ports_volume_signal_and_health(instructions: list[Instruction]) -> None:
    assert values(instructions, "EXPOSE") == ["8000 8001 8002"]
    assert values(instructions, "VOLUME") == ["/models"]
    assert values(instructions, "STOPSIGNAL") == ["SIGTERM"]
    [health] = values(instructions, "HEALTHCHECK")
    assert health.endswith('CMD ["penstock", "health"]')


def test_everything_copied_is_let_through(instructions: list[Instruction]) -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [
        source.rstrip("/")
        for value in values(instructions, "COPY")
        if not value.startswith("--from")
        for source in value.split()[:-1]
    ]
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert [source for source in copied if not any(fnmatch(source, pattern) for pattern in kept)] == []


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint has no package for this platform")
    run = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def spawn(image: Image, command: list[str], **options: object) -> subprocess.Popen[str]:
    """Starts a command of the image with nothing of this process's environment."""
    assert (image.path("/opt/penstock/bin") / command[0]).exists()
    return subprocess.Popen(command, env=image.environment, text=True, **options)  # type: ignore[call-overload]


@pytest.fixture
def server(image: Image, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The image's own command, on the bundled models and on ports that are free here, and its gRPC port."""
    port = free_port()
    here = {"/models": str(ROOT / "examples/models"), "0.0.0.0": "127.0.0.1"}
    command = [here.get(word, word) for word in image.argv("ENTRYPOINT", "CMD")]
    command += ["--port", str(port), "--http-port", "0", "--ops-port", "0"]
    with (tmp_path / "log").open("w") as log:
        process = spawn(image, command, stdout=log, stderr=log, cwd=tmp_path)
    try:
        yield process, port
    finally:
        process.kill()
        process.wait()


def checked(image: Image, port: int) -> int | None:
    """The exit code of the image's own health check of the server on `port`.

    None if it takes too long: then it is ended, and counts as no success, as container engines do it.
    """
    command = image.settings["HEALTHCHECK"].partition("CMD ")[2]
    image.settings["health command"] = command
    words = [*image.argv("health command"), f"127.0.0.1:{port}"]
    check = spawn(image, words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return check.wait(timeout=10)
    except subprocess.TimeoutExpired:
        return None
    finally:
        check.kill()
        check.wait()


def test_nothing_but_the_environment_and_an_empty_cache_is_shipped(image: Image) -> None:
    assert sorted(path.name for path in image.path("/").iterdir()) == ["opt", "var"]
    assert [path for path in image.path("/var").rglob("*") if path.name not in ("cache", "penstock")] == []
    assert image.environment["PENSTOCK_CACHE__FOLDER"] == str(image.path("/var/cache/penstock"))
    assert [path.name for path in image.path("/opt").iterdir()] == ["penstock"]
    assert not list(image.path("/opt/penstock/bin").glob("pip*"))


@pytest.mark.skipif(not has_locales(), reason="this machine lacks what locales are made of")
def test_text_models_run(image: Image, tmp_path: Path) -> None:
    """They want a locale that the base image has not."""
    text = helper.make_tensor_value_info("text", TensorProto.STRING, ["N"])
    lower = helper.make_tensor_value_info("lower", TensorProto.STRING, ["N"])
    attributes = {"case_change_action": "LOWER", "is_case_sensitive": 0}
    node = helper.make_node("StringNormalizer", ["text"], ["lower"], **attributes)
    model = helper.make_model(
        helper.make_graph([node], "g", [text], [lower]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    script = """if True:
        import numpy, sys
        from pathlib import Path
        from penstock.backends.onnx import OnnxBackend
        from penstock.config import RuntimeConfig
        backend = OnnxBackend(Path(sys.argv[1]), RuntimeConfig(), 1)
        print(*backend.run(["lower"], {"text": numpy.array(["ÀB"], object)})[0])
    """
    command = [image.path("/opt/penstock/bin/python"), "-c", script, tmp_path / "model.onnx"]
    environment = {**image.environment, "PYTHONUTF8": "1"}
    run = subprocess.run(
        command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert (run.returncode, run.stdout) == (0, "àb\n"), run.stderr


def test_what_it_starts_serves_and_stops(
    image: Image, server: tuple[subprocess.Popen[str], int], tmp_path: Path
) -> None:
    process, port = server
    end = time.monotonic() + START_SECONDS
    while (code := checked(image, free_port())) is None:
        assert time.monotonic() < end, "the health check never ends where no server is"
    assert code == 1
    end = time.monotonic() + START_SECONDS
    while checked(image, port) != 0:
        said = (tmp_path / "log").read_text()
        assert process.poll() is None, said
        assert time.monotonic() < end, said
    process.send_signal(getattr(signal, image.settings["STOPSIGNAL"]))
    assert process.wait(STOP_SECONDS) == 0, (tmp_path / "log").read_text()
