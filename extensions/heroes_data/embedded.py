"""The embedded S3 server: `rclone serve s3`, whose keys are files that the API writes and `authproxy.py` reads.

    <folder>/objects/<organisation>/<bucket>/…   the objects
    <folder>/keys/<access key>.json              what a key opens, its secret and its end; 0600

An organisation's platform key opens all of its buckets and signs addresses; a user's key opens the user's own bucket
and those granted, for an hour at most. The server asks again for a key every five minutes. It keeps the checksums of
what it read or wrote (rclone's hasher), so that no large object is read just to tell its etag.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from heroes.api.ids import NAME
from heroes_data.disk import DiskStore
from heroes_data.model import S3Account

_REGION = "us-east-1"


@dataclass(frozen=True)
class UserKey:
    """A short-lived key: where it works, what it opens, and when it ends."""

    account: S3Account
    buckets: tuple[str, ...]
    expires_at: datetime


class EmbeddedServer:
    """The keys and folders of the embedded server at `endpoint`; `public` is its address for users, where another."""

    def __init__(self, folder: Path, endpoint: str, public: str = "") -> None:
        self._objects = folder / "objects"
        self._keys = folder / "keys"
        self._nothing = folder / "nothing"
        self._endpoint = endpoint
        self._public = public
        for each in (self._objects, self._keys, self._nothing):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._known: dict[str, S3Account] = {}

    def store(self) -> DiskStore:
        """The objects, for whoever runs on the same machine as the platform itself."""
        return DiskStore(self._objects.parent, self.account)

    def argv(self, rclone: str, address: str) -> list[str]:
        """The server's command line, listening on `address` (`127.0.0.1:9000`)."""
        program = [sys.executable, "-I", "-S", str(Path(__file__).with_name("authproxy.py")), str(self._keys)]
        if any(character.isspace() for part in program for character in part):
            raise ValueError(
                f"rclone splits the command of its auth proxy at spaces, and a path here has some: {program}"
            )
        return [
            rclone, "serve", "s3", "--auth-proxy", " ".join(program), "--addr", address, "--config", os.devnull,
            "--dir-cache-time", "100ms", "--log-level", "NOTICE", "--server-read-timeout", "24h",
            "--server-write-timeout", "24h", "--cache-dir", str(self._objects.with_name("hashes")),
        ]  # fmt: skip

    def account(self, organisation: str) -> S3Account:
        """The platform's own key to all buckets of an organisation; made at the first question, the same ever after."""
        if organisation not in self._known:
            if not NAME.fullmatch(organisation):
                raise ValueError(f"{organisation!r} is no name")
            root = self._objects / organisation
            root.mkdir(mode=0o700, exist_ok=True)
            path = self._keys / f"platform.{organisation}.json"
            if not path.exists():
                content = {
                    "type": "hasher", "_root": "", "remote": str(root), "hashes": "md5", "max_age": "off",
                    "_secret_access_key": secrets.token_urlsafe(32),
                }  # fmt: skip
                _write_new(path, content)
            secret = json.loads(path.read_text())["_secret_access_key"]
            self._known[organisation] = self._account(path.stem, secret)
        return self._known[organisation]

    def issue(self, organisation: str, buckets: Mapping[str, bool], now: datetime, life: timedelta) -> UserKey:
        """A short-lived key to `buckets` (name: whether it may write)."""
        self._forget_ended(now)
        upstreams = " ".join(
            f'"{bucket}={self._upstream(organisation, bucket, writable)}"' for bucket, writable in buckets.items()
        )
        key, secret = f"user.{secrets.token_hex(10)}", secrets.token_urlsafe(32)
        content = {
            "type": "combine", "_root": "", "upstreams": upstreams, "_secret_access_key": secret,
            "expires": (now + life).timestamp(),
        }  # fmt: skip
        _write_new(self._keys / f"{key}.json", content)
        return UserKey(self._account(key, secret), tuple(sorted(buckets)), now + life)

    def _upstream(self, organisation: str, bucket: str, writable: bool) -> str:
        path = self._objects / organisation / bucket
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A union is rclone's only read-only remote, and needs two members: the other one is empty.
        remote = str(path) if writable else f":union,upstreams='{path}:ro {self._nothing}:ro':"
        return f':hasher,remote=""{remote}"",hashes=md5,max_age=off:'

    def _account(self, key: str, secret: str) -> S3Account:
        return S3Account(self._endpoint, key, secret, _REGION, public=self._public)

    def _forget_ended(self, now: datetime) -> None:
        for path in self._keys.glob("user.*.json"):
            try:
                ended = json.loads(path.read_text())["expires"] < now.timestamp()
            except FileNotFoundError:
                continue
            if ended:
                path.unlink(missing_ok=True)


def _write_new(path: Path, content: Mapping[str, object]) -> None:
    """Write a key's file at once and for its owner only; whoever comes second finds the first one's."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(handle, "w") as stream:
        json.dump(content, stream)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)
