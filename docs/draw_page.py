"""Takes the pictures of the page for the documentation.

    python docs/draw_page.py docs/pictures

Serves the bundled model and two made-up ones, puts them under load, and opens the page in Chromium, which
`make browser` prepares for. Not in the tests: pictures of live figures are never the same twice.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from penstock_client import Client

ROOT = Path(__file__).parents[1]
BROWSER = ROOT / ".venv-browser/bin/python"
SECONDS = 62
"""Under load before the pictures are taken: the lines show a minute."""
COLOURS = 200
"""In a picture, which makes it half as large."""

SHOOT = """
import sys
from playwright.sync_api import sync_playwright

chromium, url, folder, seconds = sys.argv[1:]
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    pages = {}
    for name, scheme, width in (("light", "light", 1100), ("dark", "dark", 1100), ("narrow", "light", 360)):
        viewport = {"width": width, "height": 1250}
        context = browser.new_context(color_scheme=scheme, viewport=viewport)
        page = pages[name] = context.new_page()
        page.goto(f"{url}/#lead_scoring/1")
        page.locator("button.main").wait_for()
        page.get_by_label("lead_source").fill("paid_ads")
        page.get_by_label("number_of_courses_viewed").fill("2")
        page.get_by_label("annual_income").fill("79276")
    pages["light"].wait_for_timeout(float(seconds) * 1000)
    for name, page in pages.items():
        page.locator("button.main").click()
        page.locator("#answer .head").wait_for()
        page.wait_for_timeout(300)
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        page.wait_for_timeout(300)
        page.screenshot(path=f"{folder}/page-{name}.png")
    browser.close()
"""
"""Runs in the environment of Playwright."""


def ranker() -> onnx.ModelProto:
    """A layer with dynamic quantization: one scale over the whole batch, so its requests run alone."""
    weights = np.random.default_rng(1).integers(-100, 100, (32, 8), np.int8)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"], "quantize"),
        helper.make_node("MatMulInteger", ["q", "w", "zero"], ["product"]),
        helper.make_node("Cast", ["product"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scores"]),
    ]
    return _model(nodes, ("x", ["N", 32]), ("scores", ["N", 8]), {"w": weights})


def embedder() -> onnx.ModelProto:
    """Two layers."""
    draw = np.random.default_rng(2).standard_normal
    first, second = draw((64, 512)).astype(np.float32), draw((512, 16)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "b"], ["embedding"]),
    ]
    return _model(nodes, ("x", ["N", 64]), ("embedding", ["N", 16]), {"a": first, "b": second})


def _model(
    nodes: list[onnx.NodeProto],
    taken: tuple[str, list[str | int]],
    given: tuple[str, list[str | int]],
    constants: dict[str, np.ndarray],
) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (taken, given)]
    arrays = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, str]]:
    """A server: its address for gRPC, and the page's URL."""
    (folder / "lead_scoring").symlink_to(ROOT / "examples/models/lead_scoring", target_is_directory=True)
    for name, model in (("ranker", ranker()), ("embedder", embedder())):
        (folder / name / "1").mkdir(parents=True)
        onnx.save(model, str(folder / name / "1/model.onnx"))
    penstock = str(Path(sys.executable).with_name("penstock"))
    command = [penstock, "serve", str(folder), "--http-port", "0", "--port", "0", "--ops-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            text = ""
            while "Try it" not in text:
                line = server.stdout.readline()
                if not line:
                    sys.exit("the server did not start")
                text += line
            [grpc], [ops] = (
                re.findall(r"^gRPC +(\S+)", text, re.M),
                re.findall(r"^operations +(\S+)", text, re.M),
            )
            yield grpc, ops
        finally:
            server.terminate()


@contextmanager
def load(target: str, ops: str) -> Iterator[None]:
    """Callers of the three models, one of whom makes mistakes."""
    stop = threading.Event()
    lead: dict[str, object] = {"lead_source": "referral", "number_of_courses_viewed": 4, "annual_income": 5e4}
    inputs: dict[str, dict[str, object]] = {
        "lead_scoring": lead,
        "ranker": {"x": np.ones((1, 32), np.float32)},
        "embedder": {"x": np.ones((4, 64), np.float32)},
    }

    def call(model: str, pause: float) -> None:
        with Client(target) as client:
            while not stop.wait(pause * (1 + np.sin(time.monotonic() / 7) / 2)):
                client.predict(model, inputs[model])

    def mistake() -> None:
        host = ops.removeprefix("http://")
        wrong = {**lead, "number_of_courses_viewed": 1.5}
        while not stop.wait(4):
            for model, record in (("lead_scoring", wrong), ("lead_scorer", lead)):
                connection = HTTPConnection(host, timeout=10)
                headers = {"Content-Type": "application/json"}
                connection.request("POST", f"/call?model={model}", json.dumps(record), headers)
                connection.getresponse().read()
                connection.close()

    shares = [("lead_scoring", 0.004)] * 6 + [("ranker", 0.03), ("embedder", 0.01)]
    threads = [threading.Thread(target=call, args=share) for share in shares]
    threads.append(threading.Thread(target=mistake))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def main() -> None:
    """Takes the pictures."""
    chromium = shutil.which("chromium")
    if chromium is None or not BROWSER.exists():
        sys.exit("this needs Chromium and `make browser`")
    folder = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as made, serving(Path(made)) as (grpc, ops), load(grpc, ops):
        command = [str(BROWSER), "-c", SHOOT, chromium, ops, str(folder), str(SECONDS)]
        subprocess.run(command, check=True)
    for path in sorted(folder.glob("page-*.png")):
        with Image.open(path) as picture:
            picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
