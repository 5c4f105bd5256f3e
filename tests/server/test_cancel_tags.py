"""Requests of a stream that are cancelled by their tags, at a running server."""

from __future__ import annotations

from google.rpc import code_pb2

from penstock_proto.v1 import prediction_pb2 as pb
from server import kit
from support import zoo

ALONE = "[batching]\nenabled = false\n"


def cancelling(*tags: int) -> bytes:
    return pb.PredictStreamRequest(cancel=tags).SerializeToString()


def test_what_waits_and_what_runs_is_cancelled_and_counted(serve) -> None:
    server = serve({"slow": zoo.slow(300)}, settings={"slow": ALONE})
    with kit.connect(server.target) as channel:
        stream = kit.Stream(channel)
        stream.send(*[kit.request("slow", tag=tag, x=kit.rows(1, width=1)) for tag in range(1, 7)])
        kit.wait_until(lambda: kit.metric(server.ops, "running_batches") == 1, "the first one runs")
        stream.send_bytes(cancelling(1, 3, 4, 99))
        stream.half_close()
        results = stream.rest()
    assert [each.tag for each in results] == list(range(1, 7))
    cancelled = {each.tag for each in results if each.error.code == code_pb2.CANCELLED}
    assert cancelled == {1, 3, 4}
    assert all(each.HasField("response") for each in results if each.tag not in cancelled)
    kit.wait_until(lambda: kit.is_idle(server.ops), "nothing waits or runs")
    kit.assert_counted(server.ops, 3, "requests_total", code="CANCELLED")
    kit.assert_counted(server.ops, 3, "requests_total", code="OK")
    assert kit.metric(server.ops, "rows_total") <= 4, "what waited was run"
