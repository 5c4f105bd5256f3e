"""Finds the model that answers a request, by its name and by a version or label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from penstock.core.errors import NotFound, Unavailable
from penstock.core.names import listed, shown
from penstock.models.model import Broken, Model


class Router:
    """The routes: by the model's name, and by version number, label, or "" for the default.

    Attributes:
        targets: the models by name and key. It is replaced by a new mapping when routes change, so read the
            attribute anew for every look-up.
        broken: the versions that could not be loaded, whose requests are rejected.
    """

    def __init__(self) -> None:
        self.targets: Mapping[tuple[str, str], Model] = {}
        self.broken: Sequence[Broken] = ()
        self._broken: Mapping[tuple[str, str], Broken] = {}

    def set(self, models: Iterable[Model], broken: Iterable[Broken] = ()) -> None:
        """Replaces all routes by those to `models`, at once.

        Args:
            models: the models that can be served.
            broken: the versions that cannot, whose requests are rejected.
        """
        self.broken = tuple(broken)
        self._broken = {(model.name, key): model for model in self.broken for key in _keys(model)}
        # Last: an error that was found before is known to belong to the earlier mapping.
        self.targets = {(model.name, key): model for model in models for key in _keys(model)}

    def find(self, name: str, version: str) -> Model:
        """The model that answers.

        Args:
            name: the model's name.
            version: a version number, a label, or "" for the default.

        Raises:
            NotFound: there is no such model or version; names the ones that exist.
            Unavailable: the version could not be loaded.
        """
        try:
            return self.targets[name, version]
        except KeyError:
            raise self._rejected(name, version) from None

    def find_broken(self, name: str, version: str) -> Broken | None:
        """The version of these, if it could not be loaded."""
        return self._broken.get((name, version))

    def _rejected(self, name: str, version: str) -> NotFound | Unavailable:
        broken = self._broken.get((name, version))
        if broken is None:
            return self._not_found(name, version)
        return Unavailable(
            f"model {name} version {broken.version} could not be loaded; GetModel and the log say why"
        )

    def _not_found(self, name: str, version: str) -> NotFound:
        names = sorted({each for each, _ in (*self.targets, *self._broken)})
        if not name:
            return NotFound(f"the request names no model; available: {listed(names)}")
        if name not in names:
            return NotFound(f"no model {shown(name)}; available: {listed(names)}")
        # By length first, so that 10 comes after 9.
        known = sorted(
            (key for each, key in (*self.targets, *self._broken) if each == name and key),
            key=lambda key: (len(key), key),
        )
        return NotFound(f"model {name} has no version or label {shown(version)}; it has {listed(known)}")


def _keys(model: Model | Broken) -> Iterator[str]:
    """What a request may ask for to get this version."""
    yield str(model.version)
    yield from model.labels
    if model.is_default:
        yield ""
