"""A server whose models never run, so that its queues and its calls stay full after the first request.

    python benchmarks/programs/stalled_server.py serve MODELS ...

Runs in the environment of any checkout. What is measured is how requests are rejected that find it full.
"""

from __future__ import annotations

from penstock.scheduling.batcher import DynamicBatcher


def main() -> None:
    """Serves."""
    DynamicBatcher.may_run = lambda self: False  # type: ignore[method-assign]
    DynamicBatcher.run_once = lambda self, *_: False  # type: ignore[method-assign]
    from penstock.cli import main as command

    command()


if __name__ == "__main__":
    main()
