"""Signature Version 4: against Amazon's own implementation."""

from __future__ import annotations

from datetime import UTC, datetime
from unittest import mock
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from heroes_data.model import S3Account
from heroes_data.signature import quoted_path, quoted_query, signed_headers, signed_query

ACCOUNT = S3Account("http://s3.example:9000", "AKEXAMPLE", "secret/with+odd=characters", "eu-central-1")
NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
PATHS = ["/bucket", "/bucket/key", "/bucket/a b+c%20/ü~-_.txt", "/bucket/a&b=c?d#e", "/"]


@pytest.fixture(autouse=True)
def still() -> object:
    """Amazon's clock stands still."""
    with mock.patch("botocore.auth.get_current_datetime", return_value=NOW.replace(tzinfo=None)):
        yield


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("query", [{}, {"uploads": ""}, {"prefix": "a/b c+ü", "list-type": "2", "max-keys": "5"}])
def test_headers_are_signed_as_amazon_signs_them(path: str, query: dict[str, str]) -> None:
    """Method, path, query and date give the same signature."""
    url = f"http://s3.example:9000{quoted_path(path)}" + (f"?{quoted_query(query)}" if query else "")
    ours = signed_headers(ACCOUNT, "GET", "s3.example:9000", path, query, NOW)
    request = AWSRequest("GET", url, headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    request.context["payload_signing_enabled"] = False
    auth = S3SigV4Auth(Credentials(ACCOUNT.access_key, ACCOUNT.secret_key), "s3", ACCOUNT.region)
    with mock.patch.object(auth, "payload", return_value="UNSIGNED-PAYLOAD"):
        auth.add_auth(request)
    assert ours["authorization"] == request.headers["Authorization"]


@pytest.mark.parametrize("path", PATHS[1:4])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_addresses_are_signed_as_amazon_signs_them(path: str, method: str) -> None:
    """The signed query has the same fields with the same values."""
    ours = signed_query(ACCOUNT, method, "s3.example:9000", path, 900, NOW)
    request = AWSRequest(method, f"http://s3.example:9000{quoted_path(path)}")
    auth = S3SigV4QueryAuth(Credentials(ACCOUNT.access_key, ACCOUNT.secret_key), "s3", ACCOUNT.region, expires=900)
    auth.add_auth(request)
    assert parse_qs(ours) == parse_qs(urlsplit(request.url).query)
