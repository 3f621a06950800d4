"""The object store on an S3 server, embedded or any other, by its account. Implements `ports.ObjectStore`."""

from __future__ import annotations

import base64
import hashlib
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NoReturn
from urllib.parse import unquote_plus, urlsplit

import httpx

from heroes.api.errors import Conflict, InvalidSpec, NotFound, StoreBusy
from heroes_data.model import ObjectInfo, ObjectPage, S3Account, md5_of
from heroes_data.signature import object_path, quoted_path, quoted_query, signed_address, signed_headers

#: The account of each organisation.
Accounts = Callable[[str], S3Account]

_PART = 16 * 2**20
_CHUNK = 2**18
#: Every so many parts their size doubles, so that 10,000 parts (S3's limit) reach 5 TiB (S3's limit too).
_DOUBLE_EVERY = 1000
_TRIES = 3
_PAUSE_S = 0.1
_AGAIN = frozenset({500, 502, 503, 504})


class S3Store:
    """Objects on S3 servers, one account for each organisation. Thread-safe."""

    def __init__(self, accounts: Accounts, *, timeout_s: float = 60.0, connections: int = 32) -> None:
        self._accounts = accounts
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._http = httpx.Client(timeout=httpx.Timeout(timeout_s, pool=None), limits=limits, trust_env=False)

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def make_bucket(self, organisation: str, bucket: str) -> None:
        """Make a bucket; below a container there is nothing to make."""
        if not self._accounts(organisation).container:
            self._call(organisation, "PUT", bucket, fine=(409,))

    def remove_bucket(self, organisation: str, bucket: str) -> None:
        """Delete an empty bucket."""
        if self.listing(organisation, bucket, limit=1).objects:
            raise Conflict(f"The bucket {bucket} is not empty.", hint="Delete what is in it first.")
        if not self._accounts(organisation).container:
            self._call(organisation, "DELETE", bucket)

    def listing(
        self, organisation: str, bucket: str, prefix: str = "", *, after: str = "", limit: int = 1000, flat: bool = True
    ) -> ObjectPage:
        """Objects below a prefix in order of key."""
        account = self._accounts(organisation)
        inside = f"{bucket}/" if account.container else ""
        query = {
            "list-type": "2", "encoding-type": "url", "max-keys": str(min(limit, 1000)), "prefix": inside + prefix,
        }  # fmt: skip
        if not flat:
            query["delimiter"] = "/"
        if after:
            query["start-after"] = inside + after
        answer = self._call(organisation, "GET", bucket if not account.container else "", query=query)
        return _page(answer.content, inside)

    def stat(self, organisation: str, bucket: str, key: str) -> ObjectInfo:
        """One object."""
        return _info(key, self._call(organisation, "HEAD", bucket, key).headers)

    def digest(self, organisation: str, bucket: str, key: str) -> str:
        """The etag, where it is the MD5; else by reading the content."""
        known = md5_of(self.stat(organisation, bucket, key).etag)
        if known is not None:
            return known
        digest = hashlib.md5(usedforsecurity=False)
        for part in self.get(organisation, bucket, key):
            digest.update(part)
        return digest.hexdigest()

    def put(self, organisation: str, bucket: str, key: str, parts: Iterable[bytes]) -> ObjectInfo:
        """Store what comes: in one request when it is small, else in parts that become visible together."""
        blocks = _blocks(parts)
        first = next(blocks, b"")
        second = next(blocks, None)
        if second is None:
            answer = self._call(organisation, "PUT", bucket, key, content=first)
            return ObjectInfo(key, len(first), _etag(answer.headers), datetime.now(UTC))
        return self._put_parts(organisation, bucket, key, _chained(first, second, blocks))

    def get(
        self, organisation: str, bucket: str, key: str, *, offset: int = 0, length: int | None = None
    ) -> Iterator[bytes]:
        """The content, or a part of it."""
        headers = {}
        if offset or length is not None:
            headers["range"] = f"bytes={offset}-{'' if length is None else offset + length - 1}"
        answer = self._call(organisation, "GET", bucket, key, headers=headers, fine=(416,), stream=True)
        if answer.status_code == 416:
            answer.close()
            return iter(())
        return _content(answer)

    def delete(self, organisation: str, bucket: str, key: str) -> None:
        """Delete an object."""
        self._call(organisation, "DELETE", bucket, key, fine=(404,))

    def sign(self, organisation: str, bucket: str, key: str, method: str, seconds: int, now: datetime) -> str:
        """A signed address, of the server as users reach it."""
        return signed_address(self._accounts(organisation), bucket, key, method, seconds, now)

    def remote(self, organisation: str) -> Mapping[str, str]:
        """The rclone settings of the organisation's root: uploads in one part up to 5 GiB, so that etags are MD5."""
        account = self._accounts(organisation)
        return {
            "type": "s3", "provider": "Rclone", "endpoint": account.endpoint, "region": account.region,
            "access_key_id": account.access_key, "secret_access_key": account.secret_key, "root": account.container,
            "force_path_style": "true", "no_check_bucket": "true", "no_head": "true", "disable_checksum": "true",
            "upload_cutoff": "5Gi", "use_unsigned_payload": "true",
        }  # fmt: skip

    def _put_parts(self, organisation: str, bucket: str, key: str, blocks: Iterator[bytes]) -> ObjectInfo:
        started = self._call(organisation, "POST", bucket, key, query={"uploads": ""})
        upload = _text(_root(started.content), "UploadId")
        complete = False
        try:
            etags, size = [], 0
            for number, block in enumerate(blocks, 1):
                query = {"partNumber": str(number), "uploadId": upload}
                etags.append(_etag(self._call(organisation, "PUT", bucket, key, query=query, content=block).headers))
                size += len(block)
            body = "".join(
                f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
                for number, etag in enumerate(etags, 1)
            )
            content = f"<CompleteMultipartUpload>{body}</CompleteMultipartUpload>".encode()
            self._call(organisation, "POST", bucket, key, query={"uploadId": upload}, content=content)
            complete = True
        finally:
            if not complete:
                self._call(organisation, "DELETE", bucket, key, query={"uploadId": upload}, fine=(404,))
        return self.stat(organisation, bucket, key)

    def _call(
        self,
        organisation: str,
        method: str,
        bucket: str,
        key: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        fine: tuple[int, ...] = (),
        stream: bool = False,
    ) -> httpx.Response:
        """One request, again when the store is busy: every one of them may be repeated. `fine`: statuses that are no
        error."""
        account = self._accounts(organisation)
        path, query = object_path(account, bucket, key), query or {}
        url = account.endpoint.rstrip("/") + quoted_path(path) + (f"?{quoted_query(query)}" if query else "")
        host = urlsplit(url).netloc
        for attempt in range(1, _TRIES + 1):
            signed = signed_headers(account, method, host, path, query, datetime.now(UTC))
            if content:
                signed["content-md5"] = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
            request = self._http.build_request(method, url, headers={**signed, **(headers or {})}, content=content)
            try:
                answer = self._http.send(request, stream=stream)
            except httpx.TransportError as error:
                if attempt == _TRIES:
                    raise _busy(f"{type(error).__name__} {error}") from error
            else:
                if answer.is_success or answer.status_code in fine:
                    return answer
                if answer.status_code not in _AGAIN or attempt == _TRIES:
                    _refuse(answer, bucket, key)
                answer.close()
            time.sleep(_PAUSE_S * attempt)
        raise AssertionError("the last try returns or raises")


def _blocks(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in blocks fit to be parts of an upload, only the last one smaller."""
    pending, held, size, number = list[bytes](), 0, _PART, 0
    for part in parts:
        pending.append(part)
        held += len(part)
        while held >= size:
            joined = b"".join(pending)
            yield joined[:size]
            pending, held = [joined[size:]], held - size
            number += 1
            size = _PART * 2 ** (number // _DOUBLE_EVERY)
    if held:
        yield b"".join(pending)


def _chained(first: bytes, second: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield second
    yield from rest


def _content(answer: httpx.Response) -> Iterator[bytes]:
    try:
        yield from answer.iter_raw(_CHUNK)
    except httpx.TransportError as error:
        raise _busy(f"{type(error).__name__} {error}") from error
    finally:
        answer.close()


def _etag(headers: Mapping[str, str]) -> str:
    return headers.get("etag", "").strip('"')


def _info(key: str, headers: Mapping[str, str]) -> ObjectInfo:
    modified = parsedate_to_datetime(headers["last-modified"])
    return ObjectInfo(key, int(headers.get("content-length", 0)), _etag(headers), modified)


def _root(content: bytes) -> ET.Element:
    """The answer without its namespace, which servers agree upon less than upon all else."""
    root = ET.fromstring(content)  # noqa: S314 - from the operator's own store, and expat bounds entities
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _text(element: ET.Element, name: str) -> str:
    return element.findtext(name, "")


def _page(content: bytes, inside: str) -> ObjectPage:
    root = _root(content)
    objects = tuple(
        ObjectInfo(
            unquote_plus(_text(each, "Key")).removeprefix(inside),
            int(_text(each, "Size") or 0),
            _text(each, "ETag").strip('"'),
            datetime.fromisoformat(_text(each, "LastModified")),
        )
        for each in root.iter("Contents")
    )
    folders = tuple(unquote_plus(_text(each, "Prefix")).removeprefix(inside) for each in root.iter("CommonPrefixes"))
    last = max([*(each.key for each in objects[-1:]), *folders[-1:]], default=None)
    return ObjectPage(objects, folders, last if _text(root, "IsTruncated") == "true" else None)


def _refuse(answer: httpx.Response, bucket: str, key: str) -> NoReturn:
    answer.read()
    answer.close()
    code = _text(_root(answer.content), "Code") if answer.content else ""
    if answer.status_code == 404:
        what = f"object {key} in the bucket {bucket}" if key else f"bucket {bucket}"
        raise NotFound(f"There is no {what}.", hint="List what there is: heroes data list.")
    if answer.status_code == 409:
        raise Conflict(f"The object store says {code} of {bucket}/{key}.", hint="Look at what is there, and try again.")
    if answer.status_code == 400:
        raise InvalidSpec(
            f"The object store refuses {bucket}/{key}: {code or 'bad request'}.", hint="Use plainer names."
        )
    raise _busy(f"status {answer.status_code} {code}")


def _busy(told: str) -> StoreBusy:
    return StoreBusy(f"The object store does not answer well ({told.strip()}).", hint="Try again in a moment.")
