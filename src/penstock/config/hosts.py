"""Hosts in settings: an address to listen on, and names of this server."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from penstock.config.section import AnyNames, NonEmpty


def _a_host_alone(host: str) -> str:
    """The host as sockets take it: an IPv6 address may stand in brackets, as it does in URLs."""
    if host.startswith(("unix:", "unix-abstract:")) or host.startswith("/"):
        raise ValueError("should be a name or an IP address: Unix sockets are not supported")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if "/" in bare or (":" in bare and not _is_ipv6(bare)):
        raise ValueError("should be a name or an IP address, without http:// and without a port")
    return bare


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def _names_alone(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names; without what stands beside them in a URL."""
    for name in names:
        if set(name) & set(":/*[] "):
            raise ValueError(f"{name!r} should be a host name, without http://, a port or *")
    return names


Host: TypeAlias = Annotated[NonEmpty, AfterValidator(_a_host_alone)]
HostNames: TypeAlias = Annotated[AnyNames, AfterValidator(_names_alone)]
