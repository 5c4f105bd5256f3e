"""Interceptors: what is done to every call of every service, such as to check who calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from penstock.transport.grpc.call import Methods

Interceptor: TypeAlias = Callable[[Methods], Methods]
"""Takes the methods of services, and returns methods to use in their place."""


def intercepted(methods: Methods, interceptors: Sequence[Interceptor]) -> Methods:
    """The methods, wrapped by the interceptors; the first one sees a call first."""
    for interceptor in reversed(interceptors):
        methods = interceptor(methods)
    return methods
