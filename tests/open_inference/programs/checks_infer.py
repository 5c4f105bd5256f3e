"""Inference one request at a time, and several at once by callbacks."""

from __future__ import annotations

import threading
import time

import numpy as np
import tritonclient.grpc as triton
from checking import SECONDS, Answers, connected, fails, refused, rows, tensor, x
from tritonclient.grpc import service_pb2 as pb


def check_infer(target: str) -> None:
    with connected(target) as client:
        result = client.infer("add", [tensor("a", rows(1, 2)), tensor("b", rows(3, 4))], request_id="an id")
        assert result.as_numpy("y").tolist() == rows(4, 6).tolist()
        answer = result.get_response()
        assert (answer.model_name, answer.model_version, answer.id) == ("add", "1", "an id")
        assert len(answer.raw_output_contents) == 1
        assert not answer.outputs[0].HasField("contents")
        assert not answer.parameters


def check_requested_outputs(target: str) -> None:
    with connected(target) as client:
        everything = client.infer("multi", x(1)).get_response()
        assert [each.name for each in everything.outputs] == ["double", "total", "positive"]
        wanted = [triton.InferRequestedOutput(name) for name in ("positive", "double")]
        result = client.infer("multi", x(1, -1), outputs=wanted)
        assert {each.name for each in result.get_response().outputs} == {"positive", "double"}
        assert result.as_numpy("double").tolist() == rows(2, -2).tolist()
        assert result.as_numpy("positive").tolist() == [[True] * 3, [False] * 3]
        assert result.as_numpy("total") is None
        nobody = [triton.InferRequestedOutput("nobody")]
        refused(lambda: client.infer("multi", x(), outputs=nobody), "INVALID_ARGUMENT", "nobody")


def check_versions(target: str) -> None:
    with connected(target) as client:
        for version, factor in {"": 10, "1": 1, "2": 2, "10": 10, "stable": 2}.items():
            result = client.infer("scale", x(3), model_version=version)
            assert result.as_numpy("y").tolist() == rows(3 * factor).tolist()
            assert result.get_response().model_version == str(factor)
        for version in ("99", "nobody"):
            refused(lambda v=version: client.infer("scale", x(), model_version=v), "NOT_FOUND", version)
        refused(lambda: client.infer("nobody", x()), "NOT_FOUND", "nobody")


def check_classification(target: str) -> None:
    with connected(target) as client:
        given = [tensor("x", np.array([[0.5, 2, -1], [3, 4, 5]], np.float32))]
        wanted = [triton.InferRequestedOutput("y", class_count=2)]
        classes = client.infer("identity", given, outputs=wanted).as_numpy("y")
        assert classes.tolist() == [[b"2.000000:1", b"0.500000:0"], [b"5.000000:2", b"4.000000:1"]]
        wanted = [triton.InferRequestedOutput("y", class_count=10)]
        assert client.infer("identity", given, outputs=wanted).as_numpy("y").shape == (2, 3)
        numbers = [tensor("x", np.array([[7], [2**53 + 1]]), "INT64")]
        classes = client.infer("integers", numbers, outputs=wanted).as_numpy("y")
        assert classes.tolist() == [[b"7:0"], [b"9007199254740993:0"]]
        alone = client.infer("alone", given, outputs=wanted).as_numpy("y")
        assert alone.shape == (6,)
        labels = client.infer("labelled", given, outputs=[triton.InferRequestedOutput("y", class_count=1)])
        assert labels.as_numpy("y").tolist() == [[b"2.000000:1:bee"], [b"5.000000:2:cat"]]
        truths = [triton.InferRequestedOutput("positive", class_count=1)]
        refused(lambda: client.infer("multi", x(), outputs=truths), "INVALID_ARGUMENT", "positive")


def check_bad_input(target: str) -> None:
    with connected(target) as client:
        bad = [
            [],
            [tensor("z", rows(1))],
            [tensor("x", rows(1)), tensor("z", rows(1))],
            [tensor("x", rows(1)), tensor("x", rows(1))],
            [tensor("x", rows(1, width=4))],
            [tensor("x", np.ones(3, np.float32))],
            [tensor("x", np.ones((1, 3), np.int32), "INT32")],
        ]
        for inputs in bad:
            refused(lambda i=inputs: client.infer("identity", i), "INVALID_ARGUMENT")
        a = [tensor("a", rows(1))]
        refused(lambda: client.infer("add", a), "INVALID_ARGUMENT", "b")
        ragged = [*a, tensor("b", rows(1, 2))]
        refused(lambda: client.infer("add", ragged), "INVALID_ARGUMENT")
        assert client.infer("identity", x()).as_numpy("y").shape == (1, 3)


def check_a_model_that_fails(target: str) -> None:
    with connected(target) as client:
        bad = [tensor("x", np.array([[100]]), "INT64")]
        refused(lambda: client.infer("fails", bad), "INTERNAL")
        good = [tensor("x", np.array([[1]]), "INT64")]
        assert client.infer("fails", good).as_numpy("y").tolist() == [[1]]


def check_compression(target: str) -> None:
    with connected(target) as client:
        big = [tensor("x", np.tile(np.arange(1000, dtype=np.float32), (20, 1)))]
        for algorithm in ("gzip", "deflate", None):
            result = client.infer("wide", big, compression_algorithm=algorithm)
            assert (result.as_numpy("y") == big_values()).all(), algorithm


def big_values() -> np.ndarray:
    return np.tile(np.arange(1000, dtype=np.float32), (20, 1))


def check_priority_timeout_and_custom_parameters(target: str) -> None:
    with connected(target) as client:
        custom = {"text": "ü", "truth": True, "number": -7, "share": 0.5}
        result = client.infer("identity", x(5), priority=3, timeout=10_000_000, parameters=custom)
        assert result.as_numpy("y").tolist() == rows(5).tolist()
        result = client.infer("identity", x(5), sequence_id=7, sequence_start=True, sequence_end=True)
        assert result.as_numpy("y").tolist() == rows(5).tolist()


def check_reserved_parameters_are_refused(target: str) -> None:
    with connected(target) as client:
        request = pb.ModelInferRequest(model_name="identity", raw_input_contents=[rows(1).tobytes()])
        request.inputs.add(name="x", datatype="FP32", shape=[1, 3])
        request.parameters["triton_anything"].int64_param = 1
        error = client._client_stub.ModelInfer.future(request, timeout=SECONDS).exception()
        assert (error.code().name, "triton_" in error.details()) == ("INVALID_ARGUMENT", True)


def check_client_timeout(target: str) -> None:
    with connected(target) as client:
        started = time.monotonic()
        refused(lambda: client.infer("slow", x(1, width=1), client_timeout=0.05), "DEADLINE_EXCEEDED")
        assert time.monotonic() - started < 5
        assert client.infer("slow", x(2, width=1)).as_numpy("y").tolist() == [[2]]


def check_timeout_in_the_queue(target: str) -> None:
    """The parameter, in microseconds, bounds the wait of a request whose call may go on for longer."""
    with connected(target) as client:
        answers = Answers()
        for _ in range(2):
            client.async_infer("slow", x(1, width=1), answers)
        time.sleep(0.05)  # both are there: calls may overtake each other
        refused(lambda: client.infer("slow", x(1, width=1), timeout=20_000), "DEADLINE_EXCEEDED")
        for _ in range(2):
            answers.next_result()


def check_queue_full(target: str) -> None:
    with connected(target) as client:
        answers = Answers()
        for _ in range(10):
            client.async_infer("slow", x(1, width=1), answers)
        errors = [error for _, error in (answers.next() for _ in range(10)) if error]
        assert 4 <= len(errors) <= 7, errors
        for error in errors:
            fails(error, "RESOURCE_EXHAUSTED")


def check_callbacks(target: str) -> None:
    with connected(target) as client:
        answers = Answers()
        for n in range(200):
            client.async_infer("scale", x(n), answers, request_id=str(n), model_version="2")
        seen = {}
        for _ in range(200):
            result = answers.next_result()
            seen[int(result.get_response().id)] = result.as_numpy("y")[0, 0]
        assert seen == {n: 2 * n for n in range(200)}


def check_callbacks_with_errors(target: str) -> None:
    with connected(target) as client:
        answers = Answers()
        client.async_infer("nobody", x(), answers)
        fails(answers.next_error(), "NOT_FOUND", "nobody")
        client.async_infer("identity", x(width=4), answers)
        fails(answers.next_error(), "INVALID_ARGUMENT")
        client.async_infer("slow", x(width=1), answers, client_timeout=0.02)
        fails(answers.next_error(), "DEADLINE_EXCEEDED")


def check_cancelling(target: str) -> None:
    with connected(target) as client:
        answers = Answers()
        call = client.async_infer("slow", x(width=1), answers)
        time.sleep(0.02)
        call.cancel()
        fails(answers.next_error(), "CANCELLED")
        assert client.infer("slow", x(3, width=1)).as_numpy("y").tolist() == [[3]]


def check_cancelling_spares_the_others(target: str) -> None:
    with connected(target) as client:
        gone, kept = Answers(), Answers()
        calls = [client.async_infer("lazy", x(width=1), gone) for _ in range(20)]
        for n in range(20):
            client.async_infer("lazy", x(n, width=1), kept, request_id=str(n))
        for call in calls:
            call.cancel()
        assert {int(kept.next_result().get_response().id) for _ in range(20)} == set(range(20))
        for _ in range(20):
            gone.next()  # cancelled, or answered before


def check_many_threads_of_one_client(target: str) -> None:
    with connected(target) as client:
        wrong: list[object] = []

        def work(n: int) -> None:
            answers = [client.infer("identity", x(n)).as_numpy("y").tolist() for _ in range(25)]
            wrong.extend(answer for answer in answers if answer != rows(n).tolist())

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert wrong == []


def check_headers(target: str) -> None:
    with connected(target) as client:
        result = client.infer("identity", x(4), headers={"x-anything": "value", "route-key": "7"})
        assert result.as_numpy("y").tolist() == rows(4).tolist()


def check_the_bundled_model(target: str) -> None:
    with connected(target) as client:
        inputs = [
            tensor("lead_source", np.array([["paid_ads"]], object), "BYTES"),
            tensor("number_of_courses_viewed", np.array([[2]]), "INT64"),
            tensor("annual_income", np.array([[79276]], np.float32)),
        ]
        for given in (inputs, inputs[::-1]):  # in any order
            result = client.infer("lead_scoring", given)
            assert result.as_numpy("label").tolist() == [0]
            assert np.allclose(result.as_numpy("probabilities"), [[0.6878185, 0.31218147]], atol=1e-5)
        wanted = [triton.InferRequestedOutput("probabilities", class_count=1)]
        classes = client.infer("lead_scoring", inputs, outputs=wanted).as_numpy("probabilities")
        assert classes.shape == (1, 1)
        assert classes[0, 0].startswith(b"0.6878")
