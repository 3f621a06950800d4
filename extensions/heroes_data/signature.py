"""AWS Signature Version 4 for S3, as headers and as signed addresses.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html. Payloads are not signed
(`UNSIGNED-PAYLOAD`): they are streams, and their integrity is checked by MD5.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote, urlsplit

from heroes_data.model import S3Account

_UNSIGNED = "UNSIGNED-PAYLOAD"
_ALGORITHM = "AWS4-HMAC-SHA256"


def quoted_path(path: str) -> str:
    """A path as S3 wants it in requests and signatures: everything but unreserved characters and slashes escaped."""
    return quote(path, safe="/-_.~")


def quoted_query(query: Mapping[str, str]) -> str:
    """The canonical query: sorted, everything but unreserved characters escaped."""
    return "&".join(f"{quote(key, safe='-_.~')}={quote(query[key], safe='-_.~')}" for key in sorted(query))


def signed_headers(
    account: S3Account, method: str, host: str, path: str, query: Mapping[str, str], now: datetime
) -> dict[str, str]:
    """The headers that sign a request for `path` (not escaped) of `host`."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": host, "x-amz-content-sha256": _UNSIGNED, "x-amz-date": stamp}
    names = ";".join(sorted(headers))
    signature = _sign(account, method, path, quoted_query(query), headers, stamp)
    credential = f"{account.access_key}/{_scope(account, stamp)}"
    authorization = f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": authorization}


def signed_query(account: S3Account, method: str, host: str, path: str, seconds: int, now: datetime) -> str:
    """The query of an address that allows `method` on `path` for so many seconds."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    query = quoted_query(
        {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{account.access_key}/{_scope(account, stamp)}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(seconds),
            "X-Amz-SignedHeaders": "host",
        }
    )
    return f"{query}&X-Amz-Signature={_sign(account, method, path, query, {'host': host}, stamp)}"


def object_path(account: S3Account, bucket: str, key: str) -> str:
    """Where an object is below the server's root (not escaped); the bucket itself when `key` is empty."""
    parts = [part for part in (account.container, bucket) if part]
    return "/" + "/".join(parts) + (f"/{key}" if key else "")


def signed_address(account: S3Account, bucket: str, key: str, method: str, seconds: int, now: datetime) -> str:
    """An address, of the server as users reach it, that allows `method` on one object for so many seconds."""
    base, path = urlsplit(account.public or account.endpoint), object_path(account, bucket, key)
    query = signed_query(account, method, base.netloc, path, seconds, now)
    return f"{base.scheme}://{base.netloc}{quoted_path(path)}?{query}"


def _scope(account: S3Account, stamp: str) -> str:
    return f"{stamp[:8]}/{account.region}/s3/aws4_request"


def _sign(account: S3Account, method: str, path: str, query: str, headers: Mapping[str, str], stamp: str) -> str:
    names = sorted(headers)
    lines = [method, quoted_path(path), query, *(f"{name}:{headers[name]}" for name in names), "", ";".join(names)]
    request = "\n".join([*lines, _UNSIGNED])
    scope = _scope(account, stamp)
    text = "\n".join([_ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{account.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
