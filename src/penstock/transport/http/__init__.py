"""Carries calls over HTTP/1.1: one thread with one event loop, beside the thread that polls gRPC.

uvicorn reads and writes HTTP (`connection`), a small ASGI application turns its requests into calls
(`application`), and a call is a `ServerCall` (`call`), which every protocol's handlers know how to answer.
Nothing here is imported unless the server serves HTTP.
"""
