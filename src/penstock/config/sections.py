"""The settings of the server, section by section: types, units, defaults and limits."""

from __future__ import annotations

from typing import Literal

from penstock.config.hosts import Host, HostNames
from penstock.config.section import AnyNames, Names, Section, setting

INT32_MAX = 2**31 - 1


class ServerConfig(Section):
    """Addresses, the transport, and the limits that protect the server."""

    host: Host = setting("127.0.0.1", "Address to listen on, for gRPC, HTTP and operations.")
    port: int = setting(8001, "Port of gRPC. 0 chooses a free port and prints it.", ge=0, le=65535)
    ops_port: int = setting(
        8002, "Port of operations (HTTP). 0 chooses a free port and prints it.", ge=0, le=65535
    )
    status_page: bool = setting(
        True,
        "Whether the operations port shows the page, which also calls models over HTTP if `http` is true.",
    )
    page_names: HostNames = setting(
        (),
        "Host names under which a browser may open the page, such as that of a reverse proxy. IP addresses, "
        "`localhost` and `host` always may.",
    )
    http: bool = setting(
        True, "Whether predictions are also served over HTTP, as JSON and by the Open Inference Protocol."
    )
    http_port: int = setting(
        8000,
        "Port of predictions over HTTP, if `http` is true. 0 chooses a free port and prints it.",
        ge=0,
        le=65535,
    )
    http_max_body_bytes: int = setting(
        2**26,
        "Largest body of a request over HTTP with binary data. Also the limit of a body once it is "
        "decompressed.",
        "bytes",
        gt=0,
        le=INT32_MAX,
    )
    http_max_json_bytes: int = setting(
        2**24,
        "Largest JSON over HTTP: a body, the JSON before binary data, or a line of a stream. JSON takes up "
        "to 25 times its size in memory, and up to 0.3 s of CPU for each megabyte.",
        "bytes",
        gt=0,
        le=INT32_MAX,
    )
    http_allow_origins: AnyNames = setting(
        (),
        'Origins of web pages that may call over HTTP from a browser (CORS), such as "https://example.com"; '
        '"*" allows all.',
    )
    drain_seconds: float = setting(
        20.0, "How long a server that stops waits until all accepted requests are answered.", "seconds", ge=0
    )
    linger_seconds: float = setting(
        0.0,
        "How long a server that stops still accepts calls, while its health says NOT_SERVING: for as long as "
        "load balancers take to notice. `drain_seconds` follow.",
        "seconds",
        ge=0,
    )
    transport: Literal["auto", "reactor", "portable"] = setting(
        "auto",
        "How gRPC is served. `reactor` is fast; `portable` is slower and uses only grpcio's public API; "
        "`auto` uses the reactor if its self-test passes.",
    )
    processes: int = setting(
        1,
        "Processes that serve on the same port, each with its share of the cores. Limits such as `max_calls` "
        "apply to each process. More than one process needs Linux.",
        "processes",
        ge=1,
        le=1024,
    )
    connection_seconds: float = setting(
        0.0,
        "How long a connection is kept. Then its client is told to open a new one; calls on the old one go "
        "on. 0 keeps connections for ever. With several processes, 0 means 30 seconds: so every process gets "
        "its share of the connections, and can be restarted alone. Some clients turn the end of a connection "
        "into failed calls; for them, minutes are better than seconds.",
        "seconds",
        ge=0,
        le=1_000_000,
    )
    max_message_bytes: int = setting(
        INT32_MAX,
        "Largest message that is accepted. The default is the largest that protobuf can read, and switches "
        "gRPC's check off; any lower limit costs each call about 1 µs.",
        "bytes",
        gt=0,
        le=INT32_MAX,
    )
    max_metadata_bytes: int = setting(
        16_384,
        "Largest metadata (headers) of a call, such as a token; calls with more are rejected. Each entry "
        "counts as its key, its value and 32 bytes. gRPC's own entries take about 500 bytes.",
        "bytes",
        ge=1024,
        le=2**24,
    )
    max_calls: int = setting(
        10_000, "Most calls in flight at once; further calls are rejected.", "calls", ge=1
    )
    max_stream_requests: int = setting(
        1024,
        "Most requests in flight on one stream. At this limit the server stops reading from the stream until "
        "answers have left.",
        "requests",
        ge=1,
    )
    max_answer_bytes: int = setting(
        INT32_MAX,
        "Largest answer; a larger one is an error of its request. The default is the largest that protobuf "
        "can carry.",
        "bytes",
        gt=0,
        le=INT32_MAX,
    )
    stream_answer_bytes: int = setting(
        2**25,
        "Most bytes of answers that are expected or wait on one stream. Further requests wait, and the "
        "stream is not read; one answer alone may be larger. Answers of up to 1 KiB do not count, nor do "
        "several that are sent as one, if they have up to 256 bytes on average.",
        "bytes",
        ge=1,
    )
    caller_answer_bytes: int = setting(
        2**26,
        "The same for all calls of one connection. If much is used by all, a connection may use as much as "
        "is left free, so that others have room.",
        "bytes",
        ge=1,
    )
    total_answer_bytes: int = setting(
        2**27,
        "The same for all callers; beyond it, up to twice as much, each connection may have one answer only. "
        "What is being sent takes memory twice: once more in gRPC.",
        "bytes",
        ge=1,
    )
    total_queue_rows: int = setting(
        65_536,
        "Most rows waiting for all models together; further requests are rejected. A request of more rows "
        "is accepted if no other waits, and then counts as half of this.",
        "rows",
        ge=1,
    )
    total_queue_bytes: int = setting(
        2**31,
        "Most bytes of messages waiting for all models together; further requests are rejected. A request "
        "that is larger than this is accepted if no other waits, and then counts as half of this.",
        "bytes",
        ge=1,
    )
    offload_bytes: int = setting(
        262_144,
        "Messages larger than this are decoded by worker threads, so that they do not delay other calls.",
        "bytes",
        ge=0,
    )
    inline_decode_seconds: float = setting(
        0.002,
        "Smaller messages that are expected to take longer than this to decode go to worker threads as well, "
        "such as those with many typed values or texts.",
        "seconds",
        ge=0,
    )
    max_request_names: int = setting(
        1024,
        "Most inputs, requested outputs, parameters and metadata entries of a request together; a request "
        "with more is rejected. A loaded model with many inputs and outputs raises it.",
        "names",
        ge=1,
    )
    max_message_requests: int = setting(
        16_384,
        "Most requests and cancelled tags in one message of a stream; a message with more ends its stream.",
        "requests",
        ge=1,
    )
    on_broken: Literal["exit", "serve"] = setting(
        "exit",
        "What the server does if a model cannot be loaded at its start: `exit` ends it with the reason; "
        "`serve` serves the other models, and requests for the broken one are rejected.",
    )
    triton_status_codes: bool = setting(
        False,
        "Whether calls of the Open Inference Protocol get Triton's status code if a queue is full or a "
        "deadline has passed: UNAVAILABLE, which retry policies written for Triton expect.",
    )
    workers: int = setting(
        4,
        "Threads that decode large messages. As many again answer health checks and calls about models.",
        "threads",
        ge=1,
    )

    @property
    def own_names(self) -> tuple[str, ...]:
        """The names under which a browser may open the page."""
        return (self.host, *self.page_names)


class BatchingConfig(Section):
    """How requests for a model are queued and run in batches. A model may override each setting."""

    max_rows: int = setting(
        0,
        "Most rows in a batch; a single request with more rows runs alone. 0 chooses up to 256 by the "
        "measured time of a run. A batch of rows whose outputs are large has fewer: up to 32 MiB of outputs.",
        "rows",
        ge=0,
    )
    max_delay_seconds: float = setting(
        0.0,
        "How long a request may be held back to wait for more rows in its batch. 0 never holds back.",
        "seconds",
        ge=0,
    )
    queue_rows: int = setting(
        4096,
        "Most rows waiting for the model; further requests are rejected. A request of more rows is accepted "
        "if no other waits, and then counts as half of this.",
        "rows",
        ge=1,
    )
    queue_bytes: int = setting(
        2**30,
        "Most bytes of messages waiting for the model; further requests are rejected. A request that is "
        "larger than this is accepted if no other waits, and then counts as half of this.",
        "bytes",
        ge=1,
    )
    exact: bool = setting(
        False,
        "Whether requests run together only if the answers are the same bit for bit as alone. Otherwise "
        "they may differ in the last digits, since sums are added in another order.",
    )
    tolerance: float = setting(
        0.0,
        "Largest accepted difference between answers of requests together and alone, relative to the "
        "largest values of an output. 0 accepts what another order of summation explains: 1e-4 for FP32. "
        "`0.01` also batches models that round more coarsely in a batch.",
        ge=0,
        le=0.1,
    )
    verify: float = setting(
        0.001,
        "Share of batches that are verified: while the server is idle, their requests are run again, alone, "
        "and the answers compared. If they differ, the model's requests run alone from then on, also after a "
        "restart. The first batches after the start are verified more often, and those of a model whose "
        "graph does not show that rows keep apart. 0 verifies none.",
        ge=0,
        le=1,
    )


class RuntimeConfig(Section):
    """How ONNX Runtime runs models. A model may override each setting."""

    intra_op_threads: int = setting(
        0,
        "Threads that work on one operator. 0 divides the cores among the runs of a model in parallel.",
        "threads",
        ge=0,
    )
    inter_op_threads: int = setting(
        1, "Most operators of one run that work at the same time.", "threads", ge=1
    )
    optimization: Literal["disable", "basic", "extended", "all"] = setting(
        "all", "How much ONNX Runtime optimises the graph when it loads a model."
    )
    providers: Names = setting(
        ("CPUExecutionProvider",), "Execution providers, in order of preference. No other provider is used."
    )
    arena: bool = setting(True, "Whether memory is kept for the next run: faster, but uses more memory.")
    spinning: bool = setting(
        False,
        "Whether idle threads of ONNX Runtime spin: faster on cores that nothing else uses, else costly.",
    )


class RunnersConfig(Section):
    """Which threads run batches: the polling thread runs short ones, runner threads the others."""

    threads: int = setting(0, "Runner threads. 0 means one for each core.", "threads", ge=0)
    inline_below_seconds: float = setting(
        0.001,
        "Batches that are expected to take less time than this run on the polling thread. 0 runs none there.",
        "seconds",
        ge=0,
    )
    hung_seconds: float = setting(
        60.0,
        "A run that takes longer than this counts as hung: its model is not ready until the run ends. 0 "
        "switches this off.",
        "seconds",
        ge=0,
    )
    hung_unready: Literal["model", "server"] = setting(
        "model",
        "What is not ready while a run hangs: only its `model`, or the whole `server`. `/readyz` names the "
        "model in either case. A server of which every model hangs is never ready.",
    )


class BreakerConfig(Section):
    """When requests for a model that always fails are rejected for a while (a circuit breaker)."""

    failures: int = setting(
        20,
        "After this many batches in a row in which every request failed, the model is tried on input that "
        "worked when it was loaded. If that fails too, requests are rejected. 0 switches this off.",
        "batches",
        ge=0,
    )
    open_seconds: float = setting(
        1.0,
        "How long requests are rejected before one is tried. The time doubles with each further failure, up "
        "to 60 seconds.",
        "seconds",
        gt=0,
        le=60,
    )


class TrialConfig(Section):
    """How models are tried in a child process before they are loaded: a broken file ends only that one."""

    enabled: bool = setting(
        True, "Whether there is a child process. Without it, models are tried in the server itself."
    )
    seconds: float = setting(
        300.0, "How long the trial of one model may take, its load included.", "seconds", gt=0, le=86_400
    )
    memory_bytes: int = setting(
        0,
        "How much memory the child may take. 0 means 90 % of what is left, on the machine or within the "
        "container's limit. On Linux only.",
        "bytes",
        ge=0,
    )


class CacheConfig(Section):
    """Where what was learned about models is kept for the next start."""

    enabled: bool = setting(True, "Whether it is kept. Without it, models are tried at each start.")
    folder: str = setting(
        "",
        "The folder. By default, `$XDG_CACHE_HOME/penstock`, or `.cache/penstock` in the home folder. If it "
        "cannot be written, nothing is kept.",
    )


class LogConfig(Section):
    """What is logged, and in which format."""

    level: Literal["debug", "info", "warning", "error"] = setting("info", "Lowest level that is logged.")
    format: Literal["auto", "console", "json"] = setting(
        "auto",
        "`json` writes one JSON object a line, `console` is for people; `auto` is `console` on a terminal, "
        "else `json`.",
    )
    access_sample: float = setting(
        0.0, "Share of requests with a line in the log, from 0 (none) to 1 (all).", "", ge=0, le=1
    )


class Config(Section):
    """All settings of the server."""

    server: ServerConfig = ServerConfig()
    batching: BatchingConfig = BatchingConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    runners: RunnersConfig = RunnersConfig()
    breaker: BreakerConfig = BreakerConfig()
    trial: TrialConfig = TrialConfig()
    cache: CacheConfig = CacheConfig()
    log: LogConfig = LogConfig()
