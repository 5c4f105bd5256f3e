"""Streams by tritonclient's callbacks."""

from __future__ import annotations

import time

import numpy as np
import tritonclient.grpc as triton
from checking import Answers, connected, fails, rows, tensor, x


def failing_row() -> list[triton.InferInput]:
    return [tensor("x", np.array([[100]]), "INT64")]


def check_stream(target: str) -> None:
    """Answers come in order, whichever model gives them, and closing waits for all of them."""
    with connected(target) as client:
        answers = Answers()
        client.start_stream(answers)
        for n in range(100):
            model, version = (("scale", "2"), ("identity", ""), ("scale", "1"))[n % 3]
            client.async_stream_infer(model, x(n), model_version=version, request_id=str(n))
        client.stop_stream()
        for n in range(100):
            result = answers.next_result()
            factor = (2, 1, 1)[n % 3]
            assert (result.get_response().id, result.as_numpy("y")[0, 0]) == (str(n), n * factor)
        assert answers.none_left()


def check_order_of_fast_behind_slow(target: str) -> None:
    with connected(target) as client:
        answers = Answers()
        client.start_stream(answers)
        client.async_stream_infer("slow", x(width=1), request_id="slow")
        for n in range(5):
            client.async_stream_infer("identity", x(n), request_id=str(n))
        seen = [answers.next_result().get_response().id for _ in range(6)]
        assert seen == ["slow", *"01234"]


def check_answers_come_while_the_stream_is_open(target: str) -> None:
    with connected(target) as client:
        answers = Answers()
        client.start_stream(answers)
        for n in range(10):
            client.async_stream_infer("identity", x(n), request_id=str(n))
            assert answers.next_result().get_response().id == str(n)


def check_errors_in_a_stream(target: str) -> None:
    """They come in their places, and the stream goes on."""
    with connected(target) as client:
        answers = Answers()
        client.start_stream(answers)
        client.async_stream_infer("identity", x(1), request_id="a")
        client.async_stream_infer("nobody", x(), request_id="b")
        client.async_stream_infer("identity", x(width=4), request_id="c")
        client.async_stream_infer("scale", x(), model_version="99", request_id="d")
        client.async_stream_infer("fails", failing_row(), request_id="e")
        client.async_stream_infer("identity", x(2), request_id="f")
        client.stop_stream()
        assert answers.next_result().get_response().id == "a"
        fails(answers.next_error(), None, "nobody")
        fails(answers.next_error(), None, "x")
        fails(answers.next_error(), None, "99")
        fails(answers.next_error(), None)
        assert answers.next_result().get_response().id == "f"
        assert answers.none_left()


def check_final_response(target: str) -> None:
    with connected(target) as client:
        answers = Answers()
        client.start_stream(answers)
        for asked in (True, False):
            client.async_stream_infer("identity", x(), enable_empty_final_response=asked)
        client.stop_stream()
        for _ in range(2):
            answer = answers.next_result().get_response()
            assert answer.parameters["triton_final_response"].bool_param is True
            assert len(answer.outputs) == 1
        assert answers.none_left()


def check_strict_errors(target: str) -> None:
    """With `triton_grpc_error` the model's failure ends the stream, and has its status."""
    with connected(target) as client:
        answers = Answers()
        client.start_stream(answers, headers={"triton_grpc_error": "true"})
        client.async_stream_infer("identity", x(), request_id="a")
        client.async_stream_infer("fails", failing_row(), request_id="b")
        assert answers.next_result().get_response().id == "a"
        fails(answers.next_error(), "INTERNAL")
        client.stop_stream()
        assert answers.none_left()
        client.start_stream(answers)  # the client can be used on
        client.async_stream_infer("identity", x(), request_id="c")
        assert answers.next_result().get_response().id == "c"


def check_strict_errors_of_bad_input(target: str) -> None:
    with connected(target) as client:
        answers = Answers()
        client.start_stream(answers, headers={"triton_grpc_error": "true"})
        client.async_stream_infer("nobody", x())
        fails(answers.next_error(), "NOT_FOUND", "nobody")


def check_outputs_and_parameters_in_a_stream(target: str) -> None:
    with connected(target) as client:
        answers = Answers()
        client.start_stream(answers)
        wanted = [triton.InferRequestedOutput("double", class_count=1)]
        client.async_stream_infer("multi", x(4), outputs=wanted, priority=1, parameters={"custom": "x"})
        result = answers.next_result()
        assert [each.name for each in result.get_response().outputs] == ["double"]
        assert result.as_numpy("double").tolist() == [[b"8.000000:0"]]


def check_compression_of_a_stream(target: str) -> None:
    with connected(target) as client:
        for algorithm in ("gzip", "deflate"):
            answers = Answers()
            client.start_stream(answers, compression_algorithm=algorithm)
            for n in range(5):
                client.async_stream_infer("wide", x(n, width=5000))
            client.stop_stream()
            for n in range(5):
                assert (answers.next_result().as_numpy("y") == n).all()


def check_big_tensors_in_a_stream(target: str) -> None:
    with connected(target) as client:
        answers = Answers()
        client.start_stream(answers)
        for n in range(3):
            client.async_stream_infer("wide", x(n, width=1 << 20))
        client.stop_stream()
        for n in range(3):
            assert answers.next_result().as_numpy("y").tobytes() == rows(n, width=1 << 20).tobytes()


def check_stream_timeout(target: str) -> None:
    with connected(target) as client:
        answers = Answers()
        client.start_stream(answers, stream_timeout=0.1)
        client.async_stream_infer("slow", x(width=1))
        client.async_stream_infer("slow", x(width=1))
        error = answers.next_error()
        while error.status() is None:  # a server may see that a request cannot be in time, and say so before
            assert "deadline" in error.message(), error.message()
            error = answers.next_error()
        fails(error, "DEADLINE_EXCEEDED")


def check_cancelling_a_stream(target: str) -> None:
    with connected(target) as client:
        answers = Answers()
        client.start_stream(answers)
        for _ in range(3):
            client.async_stream_infer("slow", x(width=1))
        time.sleep(0.05)
        started = time.monotonic()
        client.stop_stream(cancel_requests=True)
        assert time.monotonic() - started < 5
        fails(answers.next_error(), "CANCELLED")
        assert client.infer("identity", x(3)).as_numpy("y").tolist() == rows(3).tolist()


def check_an_empty_stream(target: str) -> None:
    with connected(target) as client:
        answers = Answers()
        client.start_stream(answers)
        client.stop_stream()
        assert answers.none_left()
