"""Runs a command whose standard error is a full pipe that is not read.

    python benchmarks/programs/unread_log.py COMMAND [ARGUMENT ...]

The command takes the place of this process.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def main() -> None:
    read, write = os.pipe()
    os.set_inheritable(read, True)  # without a reader, writing would be an error
    os.set_blocking(write, False)
    for size in (1024, 1):  # to the last byte
        with suppress(BlockingIOError):
            while True:
                os.write(write, b"." * size)
    os.set_blocking(write, True)
    os.dup2(write, 2)
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
