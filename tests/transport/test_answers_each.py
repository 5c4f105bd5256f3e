"""Streams whose requests are each answered by themselves: no thread for each, and known answers at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from penstock.protocols.standard.reflection import add_reflection
from penstock.transport.grpc.portable import Portable
from penstock.transport.grpc.reactor import Reactor
from penstock.transport.grpc.servicers import MAX_THREADS, MOST_KEPT, ServicerMethods
from server import kit
from support.calls import served

LIST = reflection_pb2.ServerReflectionRequest(list_services="")


@pytest.fixture(params=[Reactor, Portable], ids=lambda each: each.name)
def channel(request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    failures: list[BaseException] = []
    workers = ThreadPoolExecutor(2)
    methods = ServicerMethods(workers, failures.append)
    add_reflection(["penstock.v1.PredictionService"], methods)
    with served(request.param, methods.methods()) as server, server.channel() as channel:
        yield channel
    workers.shutdown()
    assert failures == []


def asked(channel: grpc.Channel, requests: Any) -> Any:
    return reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(requests, timeout=kit.BOUND)


def test_answers_come_in_order_known_ones_too(channel: grpc.Channel) -> None:
    requests = [
        LIST,
        *[
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"none.{number % 3}")
            for number in range(9)
        ],
        LIST,
    ]
    answers = list(asked(channel, iter(requests)))
    assert [each.original_request for each in answers[1:-1]] == requests[1:-1]
    assert answers[0] == answers[-1]
    assert answers[0].list_services_response.service


def test_more_streams_than_there_may_be_threads(channel: grpc.Channel) -> None:
    done = threading.Event()

    def requests() -> Iterator[Any]:
        yield LIST
        done.wait(kit.BOUND)

    streams = [asked(channel, requests()) for _ in range(MAX_THREADS + 6)]
    assert all(next(each).list_services_response.service for each in streams)
    assert not any("penstock-servicer" in each.name for each in threading.enumerate())
    done.set()
    assert all(list(each) == [] for each in streams)


def test_only_so_many_answers_are_kept(channel: grpc.Channel) -> None:
    ask = [
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"none.{number}")
        for number in range(MOST_KEPT + 20)
    ]
    assert [each.original_request for each in asked(channel, iter(ask))] == ask
