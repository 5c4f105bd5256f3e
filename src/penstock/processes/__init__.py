"""Several processes behind one port.

    supervisor            starts the workers, watches them, restarts them, and stops them
    worker_process        how the supervisor sees a worker
    messages              what the two tell each other, over a pair of sockets that only they have
    worker                the worker's own side: a complete server
    departure             how a worker leaves the port so that no call is refused
    address               keeps the port for the workers, and strangers off it
    split                 the cores of each worker
    metrics, merging      one answer for all of them

Every worker is a fresh interpreter that listens on the same port (SO_REUSEPORT): the kernel gives each
connection to one of them. The supervisor serves no predictions and loads neither gRPC nor ONNX Runtime.
"""
