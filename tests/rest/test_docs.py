"""`/docs`: Swagger UI's files out of a package. tests/page opens it in a browser."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from penstock.protocols.rest import docs
from rest.kit import Client


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(docs, "PACKAGE", "a_package_that_is_not_here")
    docs.folder.cache_clear()
    yield
    docs.folder.cache_clear()


@pytest.mark.skipif(find_spec(docs.PACKAGE) is None, reason="the extra docs is not installed")
def test_the_page_and_its_files_are_served(client: Client) -> None:
    page = client.get("/docs")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "script-src 'self';" in page.headers["content-security-policy"]
    needed = re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())
    assert len(needed) == 5
    for path in needed:
        plain = client.get(path)
        assert (plain.status, plain.headers["x-content-type-options"] if "docs" in path else "") in (
            (200, "nosniff"), (200, ""),
        )  # fmt: skip
        packed = client.get(path, Accept_Encoding="gzip")
        body = gzip.decompress(packed.body) if "content-encoding" in packed.headers else packed.body
        assert body == plain.body
        assert not re.search(rb"<script[^>]+https?:", plain.body)
    assert client.get("/docs/").body == page.body
    other = client.get("/docs/swagger-ui.js")
    assert (other.status, "there are start.js" in other.json["detail"]) == (404, True)
    assert client.get("/docs/%2e%2e%2fflask_swagger_ui.py").status == 404


@pytest.mark.usefixtures("without_package")
def test_without_the_package_it_is_said_what_to_install(client: Client) -> None:
    for path in ("/docs", "/docs/swagger-ui.css"):
        answer = client.get(path)
        assert answer.status == 404
        assert "pip install '.[docs]'" in answer.json["detail"]
        assert "/openapi.json" in answer.json["detail"]
