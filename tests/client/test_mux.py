"""What waits to be sent on a shared stream, without any stream."""

from types import SimpleNamespace
from typing import Any

from penstock_client._merge import Member
from penstock_client._mux import Multiplexer
from penstock_proto.v1 import prediction_pb2 as pb


class Waiter:
    def done(self) -> bool:
        return False


class Template:
    fields = pb.PredictRequest(model="merged").SerializeToString()


def member() -> Member:
    batch: Any = SimpleNamespace(rows=1, most_rows=32, inputs=())
    made = Member(Template(), batch, [b"", b""], "", None, None)  # type: ignore[arg-type]
    made.waiter = Waiter()
    return made


def test_requests_that_may_be_merged_are_not_passed_by_those_that_may_not() -> None:
    """They waited until nothing else did, which under load was never."""
    mux = Multiplexer(100, merging=True)
    mux.add_member(member())
    mux.add(Waiter(), [pb.PredictRequest(model="alone").SerializeToString()])
    message = mux.take()
    assert message is not None
    models = [each.model for each in pb.PredictStreamRequest.FromString(message).requests]
    assert sorted(models) == ["alone", "merged"]
    assert mux.take() is None
