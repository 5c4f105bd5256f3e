"""Generates the synchronous client from the asyncio client.

    .venv/bin/python clients/python/make_sync.py

`_sync.py` and `_sync_connection.py` are `_aio.py` and `_aio_connection.py` without the parts for asyncio: the
lines between `# [async` and `# ]` are omitted, the words below are replaced, and ruff removes unused imports
and sorts the rest. Parts that differ more are written by hand for both clients: the calls, the shared stream
and the stream of `predict_stream`. A test checks that the files are up to date.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent / "src/penstock_client"
MADE = {"_aio.py": "_sync.py", "_aio_connection.py": "_sync_connection.py"}
OMITTED = re.compile(r"^ *# \[async\n.*?^ *# \]\n", re.MULTILINE | re.DOTALL)

WORDS = [
    (r"\basync def ", "def "),
    (r"\bawait ", ""),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r"\bIterable\[Item\] \| AsyncIterable\[Item\]", "Iterable[Item]"),
    (r"\bAsyncGenerator\[Prediction, None\]", "Iterator[Prediction]"),
    (r"\bAsyncGenerator\[Prediction \| PenstockError, None\]", "Iterator[Prediction | PenstockError]"),
    (r"\bAsyncGenerator, AsyncIterable, Iterable\b", "Iterable, Iterator"),
    (r"\bAwaitable, ", ""),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\bAsyncClient\b", "Client"),
    (r"\b_aio_", "_sync_"),
    (r"\bStream, each\b", "Stream"),
    (r"\beach\(inputs\)", "iter(inputs)"),
    (r"\banother task\b", "another thread"),
    ("The client for asyncio", "The client for plain, threaded Python"),
    ("of the asyncio client", "of the threaded client"),
    (
        "A connection to a Penstock server, for asyncio. Make it inside the event loop that uses it.",
        "A connection to a Penstock server. Safe to share between threads.",
    ),
    (
        r"Stopping early cancels the call: at once with `aclose.*?to\.\n",
        """The iterable is read on another thread. Stopping early (`break`, or `close()` on the generator)
        cancels the call and ends that thread; if the iterable is waiting for its next item, the thread
        ends when that item comes.
""",
    ),
    (r"which has an id\. A plain .*?waited for\.", "which has an id."),
    (r" +RuntimeError: no event loop runs here\.\n", ""),
    ("An asynchronous generator of the results", "A generator of the results"),
]
"""Patterns and their replacements. A test fails if a pattern is not found."""


def made(source: str) -> str:
    """The text of the file that is generated from the file `source`.

    Raises:
        subprocess.CalledProcessError: ruff rejects it.
    """
    text = OMITTED.sub("", (PACKAGE / source).read_text(encoding="utf-8"))
    for pattern, words in WORDS:
        text = re.sub(pattern, words, text, flags=re.DOTALL)
    text = f"# Made by clients/python/make_sync.py out of {source}: change that, and run the script.\n{text}"
    text = _ruff("check", "--fix", "--quiet", "--select", "I,F401", given=text)
    return _ruff("format", "--quiet", given=text)


def _ruff(*arguments: str, given: str) -> str:
    command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", str(PACKAGE / "made.py"), "-"]
    return subprocess.run(command, input=given, capture_output=True, check=True, text=True).stdout


def main() -> None:
    """Writes the files."""
    for source, target in MADE.items():
        (PACKAGE / target).write_text(made(source), encoding="utf-8")


if __name__ == "__main__":
    main()
