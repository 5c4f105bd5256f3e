"""Scores the events of a NATS stream, each at least once.

python examples/events/consume.py [--nats nats://127.0.0.1:4222] [--target HOST:PORT]

pip install nats-py ./clients/python
"""

from __future__ import annotations

import argparse
import asyncio
import json

import nats
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig

from penstock_client import AsyncClient, InvalidInput, PenstockError

MODEL, IN_FLIGHT, AGAIN_SECONDS = "lead_scoring", 256, 5


async def consume(url: str, target: str) -> None:
    """Answers the events of the subject `leads` on the subject `scores`, until it is stopped."""
    connection = await nats.connect(url)
    stream = connection.jetstream()
    # An event that is not acknowledged within this time, for its consumer is gone, is delivered again.
    config = ConsumerConfig(ack_wait=AGAIN_SECONDS, max_ack_pending=IN_FLIGHT)
    events = await stream.pull_subscribe("leads", durable="scoring", config=config)
    async with AsyncClient(target, timeout=AGAIN_SECONDS / 2) as client:
        while True:
            try:
                arrived = await events.fetch(IN_FLIGHT, timeout=1)
            except TimeoutError:  # of nats, which is one, or of asyncio: both come
                continue
            # All at once: the client puts them on one stream, and the server into batches.
            await asyncio.gather(*(answer(stream, client, event) for event in arrived))


async def answer(stream: JetStreamContext, client: AsyncClient, event: Msg) -> None:
    """Scores one event; it is acknowledged once its score is stored, and not before."""
    place = str(event.metadata.sequence.stream)
    try:
        lead = dict(json.loads(event.data))
        score = {"id": lead.pop("id", place)}
        result = await client.predict(MODEL, lead)
        score["probability"] = float(result["probabilities"][0, 1])
    except (InvalidInput, ValueError, TypeError) as error:  # it will be wrong each time
        score = {"event": place, "error": str(error)}
    except PenstockError:  # the server is away, or full: later
        await event.nak(delay=1)
        return
    # A score that is sent twice within the stream's window for duplicates is stored once.
    await stream.publish("scores", json.dumps(score).encode(), headers={"Nats-Msg-Id": place})
    await event.ack()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="scores the events of a NATS stream")
    parser.add_argument("--nats", default="nats://127.0.0.1:4222")
    parser.add_argument("--target", default="127.0.0.1:8001")
    arguments = parser.parse_args()
    asyncio.run(consume(arguments.nats, arguments.target))
