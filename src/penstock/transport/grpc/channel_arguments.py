"""The options of grpc's server that both transports use."""

from __future__ import annotations

from penstock.transport.grpc.call import UNLIMITED, Limits

WINDOW_BYTES = 131_072
"""How much of each stream, and of each connection beyond the messages that are asked for, gRPC's core reads
ahead. By itself core measures the connection and lets fast senders have megabytes each: 200 streams filled
0.5 GB, and reading all that held up every other caller."""


def channel_arguments(limits: Limits) -> tuple[tuple[str, int], ...]:
    """The options of grpc's server that both transports use."""
    age = (("grpc.max_connection_age_ms", max(round(limits.connection_seconds * 1000), 1)),)
    return (
        # A second server on the same port would silently take half the calls, unless that is wanted.
        ("grpc.so_reuseport", int(limits.shares_port)),
        *(age if limits.connection_seconds else ()),
        *((("grpc.max_allowed_incoming_connections", limits.connections),) if limits.connections else ()),
        # With a limit, grpc checks the size of each message, which costs a call over 1 µs.
        ("grpc.max_receive_message_length", limits.message_bytes if limits.message_bytes < UNLIMITED else -1),
        ("grpc.max_send_message_length", -1),
        # Between a soft limit and a hard one core refuses calls by chance, so the two are the same.
        ("grpc.max_metadata_size", limits.metadata_bytes),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes),
        # Grpc's own limits on calls that have arrived and are not taken yet: from 1,000 on it drops some, and
        # their clients get CANCELLED. `Limits.calls` takes their place, with a message that says why.
        ("grpc.server.max_pending_requests", 2 * limits.calls),
        ("grpc.server.max_pending_requests_hard_limit", 4 * limits.calls),
        # Clients may keep idle connections alive with a ping every ten seconds.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.bdp_probe", 0),  # the window stays as it is
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    )
