"""The command line: flags → Config → Server, and a client to try it with.

The commands live in modules of their own, loaded when they are called: `penstock health` should not wait
for ONNX Runtime to load.
"""

from penstock.cli.main import main

__all__ = ["main"]
