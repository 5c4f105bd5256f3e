"""What there is to set of the server, section by section: types, units, defaults and bounds."""

from __future__ import annotations

from typing import Literal

from penstock.config.section import Names, NonEmpty, Section, setting

INT32_MAX = 2**31 - 1


class ServerConfig(Section):
    """Addresses, the transport, and the bounds that protect the server."""

    host: NonEmpty = setting("127.0.0.1", "Address to listen on, for gRPC and operations alike.")
    port: int = setting(8001, "Port of gRPC; 0 takes a free one and says which.", ge=0, le=65535)
    ops_port: int = setting(
        8002, "Port of operations (HTTP); 0 takes a free one and says which.", ge=0, le=65535
    )
    drain_seconds: float = setting(
        20.0, "Longest time that stopping waits for accepted work to be answered.", "seconds", ge=0
    )
    transport: Literal["auto", "reactor", "portable"] = setting(
        "auto",
        "How gRPC is served: `reactor` is the fast road, `portable` uses only grpcio's public API, "
        "`auto` takes the reactor where its self-test passes.",
    )
    processes: int = setting(
        1,
        "Processes that serve behind the one port, each with its share of the cores; bounds such as "
        "`max_calls` hold for each. More than one needs Linux.",
        "processes",
        ge=1,
        le=1024,
    )
    connection_seconds: float = setting(
        0.0,
        "How long a connection is kept before its client is told to make a new one, while the calls on the "
        "old one go on. 0 means for ever, and with several processes 30: so they all get their share of the "
        "connections, and can be restarted one by one.",
        "seconds",
        ge=0,
        le=1_000_000,
    )
    max_message_bytes: int = setting(
        INT32_MAX,
        "Largest message that is accepted. The default, the most that protobuf reads, is no limit to gRPC; "
        "any lower one costs every call about 1 µs.",
        "bytes",
        gt=0,
        le=INT32_MAX,
    )
    max_calls: int = setting(10_000, "Most calls in flight; further ones are refused.", "calls", ge=1)
    max_stream_requests: int = setting(
        1024,
        "Most requests in flight on one stream; above that, or where 64 MiB of answers wait for its client, "
        "reading pauses.",
        "requests",
        ge=1,
    )
    total_queue_rows: int = setting(
        65_536, "Most rows waiting before all models together; requests beyond are refused.", "rows", ge=1
    )
    total_queue_bytes: int = setting(
        2**31, "Most bytes of messages waiting before all models together.", "bytes", ge=1
    )
    offload_bytes: int = setting(
        262_144, "Messages larger than this are decoded off the polling thread.", "bytes", ge=0
    )
    triton_status_codes: bool = setting(
        False,
        "Answers calls of the Open Inference Protocol as Triton does where a queue is full or a deadline has "
        "passed: with UNAVAILABLE, which retry policies written for Triton expect.",
    )
    workers: int = setting(4, "Threads for large messages, and as many for operator calls.", "threads", ge=1)


class BatchingConfig(Section):
    """How requests of one model are queued and run together; the defaults for all models."""

    max_rows: int = setting(
        0,
        "Most rows run at once; a larger single request runs alone. 0 chooses 32 to 256 by what a run costs.",
        "rows",
        ge=0,
    )
    max_delay_seconds: float = setting(
        0.0,
        "How long a request may be held back where that fills its batch; 0 never holds one back.",
        "seconds",
        ge=0,
    )
    queue_rows: int = setting(4096, "Most rows waiting; requests beyond are refused.", "rows", ge=1)
    queue_bytes: int = setting(
        2**30,
        "Most bytes of messages waiting; requests beyond are refused, but not a single one.",
        "bytes",
        ge=1,
    )


class RuntimeConfig(Section):
    """How ONNX Runtime runs models; the defaults for all models."""

    intra_op_threads: int = setting(
        0, "Threads inside one operator; 0 shares the cores out among the runs in parallel.", "threads", ge=0
    )
    inter_op_threads: int = setting(
        1, "Operators of one run that may work at the same time.", "threads", ge=1
    )
    optimization: Literal["disable", "basic", "extended", "all"] = setting(
        "all", "How far ONNX Runtime rewrites the graph at load."
    )
    providers: Names = setting(
        ("CPUExecutionProvider",), "Execution providers, in order of preference; none is added silently."
    )
    arena: bool = setting(True, "Keep freed memory for the next run: faster, and larger in memory.")
    spinning: bool = setting(
        False, "Let idle ONNX Runtime threads spin: quicker on cores of their own, costly on shared ones."
    )


class RunnersConfig(Section):
    """Who runs the batches: the polling thread the short ones, runner threads the others."""

    threads: int = setting(0, "Runner threads; 0 means one per core.", "threads", ge=0)
    inline_below_seconds: float = setting(
        0.001,
        "Runs expected to be shorter than this are run by the polling thread; 0 never does.",
        "seconds",
        ge=0,
    )
    hung_seconds: float = setting(
        60.0,
        "A run that goes on for longer is said to hang: until it ends, its model is "
        "not ready; 0 never says so.",
        "seconds",
        ge=0,
    )


class BreakerConfig(Section):
    """When a model that fails on whatever it is given is left alone for a while."""

    failures: int = setting(
        20,
        "Batches that fail to the last request, with no good run between, after which the model is tried on "
        "input that it could run when it was loaded: where it fails on that, too, requests are refused; "
        "0 never refuses any.",
        "batches",
        ge=0,
    )
    open_seconds: float = setting(
        1.0,
        "How long requests are refused before one is let through; twice as long after each further failure, "
        "up to 60 seconds.",
        "seconds",
        gt=0,
        le=60,
    )


class LogConfig(Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = setting("info", "The least level that is logged.")
    format: Literal["auto", "console", "json"] = setting(
        "auto", "`json` lines, `console` for people; `auto` is console on a terminal and json elsewhere."
    )
    access_sample: float = setting(
        0.0, "The share of requests that get a line in the log; 0 is none, 1 all.", "", ge=0, le=1
    )


class Config(Section):
    """All settings of the server."""

    server: ServerConfig = ServerConfig()
    batching: BatchingConfig = BatchingConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    runners: RunnersConfig = RunnersConfig()
    breaker: BreakerConfig = BreakerConfig()
    log: LogConfig = LogConfig()
