"""From a name, and a version or a label, to the model that answers."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.errors import NotFound
from penstock.models.model import Model

LISTED = 20  # names in an error, at most


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
            known = [key for key in versions if key]
            return NotFound(f"model {name} has no version or label {version!r}; it has {_listed(known)}")
        return NotFound(f"there is no model {name!r}; there is {_listed(self._routes)}")


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - LISTED} more" if len(ordered) > LISTED else ""
    return ", ".join(ordered[:LISTED]) + more
