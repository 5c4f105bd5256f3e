"""How `pip install .` in a checkout finds the client: hatchling calls this for the list of dependencies.

The server needs the client of the same version. In a checkout it lies beside the server, and may be newer
than any release of that version. So the metadata names its folder there, and pip installs both. What
`make wheels` builds names the version alone, as no other machine has that folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

CLIENT = "penstock-client"
FOLDER = "clients/python"
FOR_OTHERS = "PENSTOCK_BUILD_FOR_OTHERS"
"""Set by `make wheels` and the Dockerfile: what is built leaves this machine."""


class Dependencies(MetadataHookInterface):
    """Gives the list of `pyproject.toml`, with the client's folder in place of its version in a checkout."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Sets the dependencies."""
        listed: list[str] = self.config["dependencies"]
        folder = Path(self.root, FOLDER)
        if not os.environ.get(FOR_OTHERS) and (folder / "pyproject.toml").is_file():
            beside = f"{CLIENT} @ {folder.as_uri()}"
            listed = [beside if each.partition("=")[0] == CLIENT else each for each in listed]
        metadata["dependencies"] = listed
