"""Makes the two streams of NATS, fills one with events, and waits for the scores in the other.

python examples/events/streams.py --events 1000 [--nats nats://127.0.0.1:4222] [--wait]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

import nats
from nats.js import JetStreamContext

SOURCES = ("paid_ads", "referral", "organic_search", "events")


async def publish(stream: JetStreamContext, first: int, count: int) -> None:
    """Publishes that many leads, with the ids from `first` on."""
    for number in range(first, first + count):
        lead = {
            "id": number,
            "lead_source": SOURCES[number % len(SOURCES)],
            "number_of_courses_viewed": number % 9,
            "annual_income": 20_000.0 + 37 * number,
        }
        await stream.publish("leads", json.dumps(lead).encode())


async def stored(stream: JetStreamContext) -> int:
    """How many scores there are."""
    return (await stream.stream_info("SCORES")).state.messages


async def scores(stream: JetStreamContext) -> list[dict[str, object]]:
    """All of them, in order."""
    info = (await stream.stream_info("SCORES")).state
    messages = [await stream.get_msg("SCORES", place) for place in range(info.first_seq, info.last_seq + 1)]
    return [json.loads(message.data or b"") for message in messages]


async def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="makes events and counts scores")
    parser.add_argument("--nats", default="nats://127.0.0.1:4222")
    parser.add_argument("--events", type=int, default=0, help="how many to publish")
    parser.add_argument("--first", type=int, default=0, help="the id of the first")
    parser.add_argument("--wait", type=int, default=0, help="wait until there are this many scores")
    parser.add_argument("--seconds", type=float, default=60.0, help="the longest to wait")
    parser.add_argument("--show", action="store_true", help="print all scores as JSON lines")
    arguments = parser.parse_args()
    connection = await nats.connect(arguments.nats)
    stream = connection.jetstream()
    await stream.add_stream(name="LEADS", subjects=["leads"])
    await stream.add_stream(name="SCORES", subjects=["scores"], duplicate_window=120)
    await publish(stream, arguments.first, arguments.events)
    end = time.monotonic() + arguments.seconds
    while await stored(stream) < arguments.wait and time.monotonic() < end:
        await asyncio.sleep(0.02)
    if arguments.show:
        for score in await scores(stream):
            print(json.dumps(score))
    print(f"{await stored(stream)} scores")
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main())
