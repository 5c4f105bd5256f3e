"""Network addresses as text: "host:port"."""

from __future__ import annotations


def address(host: str, port: int) -> str:
    """Host and port as one text; an IPv6 address is put in brackets, as in URLs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
