"""What a server imports until it is ready, and the garbage collector, which is off meanwhile."""

from __future__ import annotations

import subprocess
import sys

import pytest

from server import kit

# Looks from a thread, as the main thread serves.
PROGRAM = """
import gc, logging, os, sys, threading, time
from penstock.cli import main

def look():
    while not (logging.getLogger().handlers and "penstock.server" in sys.modules and gc.isenabled()):
        time.sleep(0.01)
    os.write(2, b"looked " + repr(gc.get_freeze_count() > 10_000).encode())
    os.write(2, f" {sorted({'rich', 'dotenv', 'pygments'} & set(sys.modules))}".encode())
    import rich.console  # may still be imported
    os._exit(0)  # workers end with their supervisor

threading.Thread(target=look, daemon=True).start()
main()
"""


@pytest.mark.parametrize(("processes", "module"), [("1", "server"), ("2", "processes.supervisor")])
def test_the_collector_is_on_again_and_nothing_is_imported_to_draw(processes: str, module: str) -> None:
    program = PROGRAM.replace("penstock.server", f"penstock.{module}")
    command = ["serve", str(kit.EXAMPLES), "--port", "0", "--ops-port", "0", "--processes", processes]
    run = subprocess.run(
        [sys.executable, "-c", program, *command], capture_output=True, text=True, timeout=60, check=True
    )
    assert "looked True []" in run.stderr
