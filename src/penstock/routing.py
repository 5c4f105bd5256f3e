"""From a name, and a version or a label, to the model that answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstock.errors import NotFound
from penstock.models.model import Model

LISTED = 20  # names in an error, at most
SHOWN_LENGTH = 100  # of a name that came: errors travel in headers, which must not be long


class Router:
    """The routes: by the model's name, then by version number, label, or "" for the default."""

    def __init__(self) -> None:
        self._routes: dict[str, dict[str, Model]] = {}

    def set(self, models: Iterable[Model]) -> None:
        """Replaces all routes by those to `models`, at once."""
        routes: dict[str, dict[str, Model]] = {}
        for model in models:
            versions = routes.setdefault(model.name, {})
            for key in (str(model.version), *model.labels, *([""] if model.is_default else [])):
                versions[key] = model
        self._routes = routes

    def find(self, name: str, version: str) -> Model:
        """The model that answers.

        Args:
            name: the model's name.
            version: a version number, a label, or "" for the default.

        Raises:
            NotFound: there is none; says what there is.
        """
        try:
            return self._routes[name][version]
        except KeyError:
            raise self._not_found(name, version) from None

    def _not_found(self, name: str, version: str) -> NotFound:
        versions = self._routes.get(name)
        if versions is not None:
            # By length first, so that 10 comes after 9.
            known = sorted((key for key in versions if key), key=lambda key: (len(key), key))
            return NotFound(
                f"model {name} has no version or label {_shown(version)}; it has {_listed(known)}"
            )
        return NotFound(f"there is no model {_shown(name)}; there is {_listed(sorted(self._routes))}")


def _shown(name: str) -> str:
    return repr(name if len(name) <= SHOWN_LENGTH else f"{name[:SHOWN_LENGTH]}...")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return (", ".join(names[:LISTED]) or "none") + more
