"""Serving with several processes behind one port (`penstock serve --processes N`).

    supervisor            starts the workers, watches them, restarts them, and stops them
    worker_process        a worker, as the supervisor sees it
    messages              the messages between the two, over a pair of sockets that only they have
    worker                the worker's own side: a complete server
    handoff               how a worker leaves the port so that no call is refused
    address               reserves the port for the workers
    split                 the cores of each worker
    metrics, merging      one answer to `/metrics`, and to the page, for all workers
    endings               how a worker ended, in words

Every worker is a fresh interpreter that listens on the same port (SO_REUSEPORT): the kernel gives each
connection to one of them. The supervisor serves no predictions and loads neither gRPC nor ONNX Runtime.
"""
