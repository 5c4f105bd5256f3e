"""Does what a Dockerfile says in a folder, for machines that cannot build images.

The folder stands for the root of the file system of the image. `python` in it is the interpreter that runs
the tests. Packages of the system are not installed: what they hold is this machine's, where it has it. All
else is done for real: environments are made, Python's packages fetched, wheels built.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ABSOLUTE_PATH = re.compile(r"(?<![\w.:/*-])/(?=\w)")
COMMENT = re.compile(r"^\s*#.*\n", re.MULTILINE)
CONTINUED = re.compile(r"\s*\\\n\s*")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name, such as "RUN", and the rest of its line."""

    name: str
    value: str


def parse(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, lines that are continued put together."""
    lines = CONTINUED.sub(" ", COMMENT.sub("", text)).splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in lines if line.strip()]


def has_locales() -> bool:
    """Whether this machine has what Debian's package `locales` installs."""
    return bool(shutil.which("localedef")) and Path("/usr/share/i18n/locales/en_US").exists()


class Image:
    """An image in the making.

    Attributes:
        environment: what ENV has set, PATH included.
        settings: the last value of ENTRYPOINT, CMD, HEALTHCHECK, USER, VOLUME, EXPOSE, STOPSIGNAL, LABEL.
    """

    def __init__(self, folder: Path, context: Path) -> None:
        self._root = folder / "root"
        self._stages = folder / "stages"
        self._tools = folder / "tools"
        self._context = context
        self._stage = ""
        self._tools.mkdir(parents=True)
        self._add_python()
        self._add_package_manager()
        self._from("scratch")

    def build(self, instructions: list[Instruction]) -> None:
        """Does them all, in order.

        Raises:
            subprocess.CalledProcessError: a RUN failed; its output is in the error's `stderr`.
        """
        actions = {"FROM": self._from, "WORKDIR": self._workdir, "ENV": self._env, "COPY": self._copy}
        for instruction in instructions:
            if instruction.name == "RUN":
                self._run(instruction.value)
            elif instruction.name in actions:
                actions[instruction.name](instruction.value)
            else:
                self.settings[instruction.name] = instruction.value

    def argv(self, *names: str) -> list[str]:
        """The words of settings in their JSON form, one after the other."""
        return [word for name in names for word in json.loads(self.settings[name])]

    def path(self, path: str) -> Path:
        """Where a path of the image lies on this machine."""
        return self._root / path.lstrip("/")

    def _add_python(self) -> None:
        """Puts a `python` on PATH that knows of no environment it may itself be in."""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        self._add_tool("python", f'exec "{sys.base_prefix}/bin/python{version}" "$@"')

    def _add_package_manager(self) -> None:
        """Puts an `apt-get` on PATH that leaves this machine as it is."""
        self._add_tool("apt-get", "exit 0")
        if not has_locales():  # whose package would bring it
            self._add_tool("localedef", 'for last; do :; done; mkdir "$last"')

    def _add_tool(self, name: str, line: str) -> None:
        tool = self._tools / name
        tool.write_text(f"#!/bin/sh\n{line}\n")
        tool.chmod(0o755)

    def _from(self, value: str) -> None:
        """Begins a stage with an empty root; the last one is kept for COPY --from."""
        if self._root.exists():
            self._stages.mkdir(exist_ok=True)
            self._root.rename(self._stages / (self._stage or "scratch"))
        self._root.mkdir()
        self._stage = value.partition(" AS ")[2]
        self._directory = self._root
        self.environment = {"PATH": f"{self._tools}:/usr/bin:/bin"}
        self.settings: dict[str, str] = {}

    def _workdir(self, value: str) -> None:
        self._directory = self.path(value)
        self._directory.mkdir(parents=True, exist_ok=True)

    def _env(self, value: str) -> None:
        for word in shlex.split(value):
            key, _, text = word.partition("=")
            text = text.replace("$PATH", self.environment["PATH"])
            self.environment[key] = text if text.startswith(str(self._root)) else self._moved(text)

    def _copy(self, value: str) -> None:
        # Owners are left out: nothing here runs as another user.
        *sources, target = [word for word in value.split() if not word.startswith("--chown=")]
        if sources[0].startswith("--from="):
            stage = self._stages / sources.pop(0).removeprefix("--from=")
            # What was made at one path need not work at another.
            assert sources == [target], f"COPY --from moves {sources} to {target}"
            self.path(target).parent.mkdir(parents=True, exist_ok=True)
            (stage / target.lstrip("/")).rename(self.path(target))
            return
        into = self._directory / target
        for source in sources:
            origin = self._context / source
            if origin.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(origin, into, dirs_exist_ok=True, ignore=ignored)
            else:
                into.mkdir(parents=True, exist_ok=True)
                shutil.copy(origin, into)

    def _run(self, command: str) -> None:
        # How this machine reaches packages is its own affair, and its cache of them spares a download.
        outer = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL"))}
        environment = {**outer, **self.environment}
        environment.pop("PIP_NO_CACHE_DIR", None)
        subprocess.run(
            # Beside tests: it takes the time that they leave.
            ["/bin/sh", "-euc", self._moved(command)],
            cwd=self._directory,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )

    def _moved(self, text: str) -> str:
        """The text with its absolute paths in the folder."""
        return ABSOLUTE_PATH.sub(f"{self._root}/", text)
