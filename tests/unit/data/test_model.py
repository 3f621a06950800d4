"""The rules of data: keys, collisions, etags."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heroes.api.errors import InvalidSpec
from heroes_data.model import (
    ObjectInfo,
    S3Account,
    check_collisions,
    check_key,
    check_prefix,
    data_path,
    folder_etag,
    md5_of,
)

NOW = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    "key", ["a", "in/data.csv", "a b/ü+%20.txt", "...", "..a/b..", "x" * 255, "/".join(["y" * 200] * 5), "-rf", "$(id)"]
)
def test_a_relative_path_is_a_key(key: str) -> None:
    """Any relative path of bounded length is a key, whatever its characters mean to shells."""
    assert check_key(key) == key
    assert check_prefix(key + "/") == key + "/"


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("", "empty"),
        ("x" * 1025, "1024"),
        ("é" * 513, "1024"),
        ("..", "part"),
        ("../x", "part"),
        ("a/../b", "part"),
        ("a/..", "part"),
        ("./a", "part"),
        ("a/./b", "part"),
        ("/a", "slash"),
        ("a/", "slash"),
        ("a//b", "slash"),
        ("a\nb", "control"),
        ("a\x00b", "control"),
        ("a\x7fb", "control"),
        ("a\x85b", "control"),
        ("a\u2028b", "control"),
        ("a/" + "x" * 256, "255"),
        ("a/.rclone_temp_put_x", "reserved"),
        (".heroes-folder", "reserved"),
        ("a/.heroes-folder/b", "reserved"),
    ],
)
def test_what_is_no_path_is_refused(key: str, problem: str) -> None:
    """Each mistake is named, with the value in a form that no terminal obeys."""
    with pytest.raises(InvalidSpec, match=problem) as caught:
        check_key(key)
    assert caught.value.hint
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("prefix", ["/", "a//", "../", "a/../"])
def test_a_folder_ends_in_one_slash(prefix: str) -> None:
    """A folder is a key and one slash."""
    with pytest.raises(InvalidSpec):
        check_prefix(prefix)


@given(st.text(max_size=300))
def test_no_key_leads_out_of_its_bucket(key: str) -> None:
    """Whatever the text, it is refused or stays below where it is joined to."""
    import posixpath

    try:
        check_key(key)
    except InvalidSpec:
        return
    joined = posixpath.normpath(posixpath.join("/base/bucket", key))
    assert joined == f"/base/bucket/{key}"


@pytest.mark.parametrize(
    "keys",
    [["a", "A"], ["dir/x", "DIR/x"], ["stra\u00dfe", "STRASSE"], ["\u00e9", "e\u0301"], ["a", "a/b"], ["b/c/d", "B/c"]],
)
def test_keys_that_cannot_stand_beside_each_other_are_refused(keys: list[str]) -> None:
    """Names that some file system takes for one, and files where folders are needed, are refused in either order."""
    for order in (keys, keys[::-1]):
        with pytest.raises(InvalidSpec):
            check_collisions(order)


@pytest.mark.parametrize("keys", [[], ["a"], ["a", "b", "a.b", "ab", "a-b/c"], ["x/y", "x/z", "x/yz/w"], ["a", "a"]])
def test_other_keys_stand_beside_each_other(keys: list[str]) -> None:
    """Different paths are no collision, and the same one twice is none either."""
    check_collisions(keys)


def test_only_an_md5_is_taken_for_one() -> None:
    """An etag of a multi-part upload, or of another kind, is no checksum."""
    digest = hashlib.md5(b"x").hexdigest()
    assert md5_of(digest) == digest
    for etag in (digest + "-3", digest.upper(), "", "abc", '"' + digest + '"'):
        assert md5_of(etag) is None


def test_a_folders_etag_tells_every_change() -> None:
    """It changes when an object comes, goes, changes or is renamed, and not otherwise."""
    first, second = ObjectInfo("a", 1, "e1", NOW), ObjectInfo("b", 2, "e2", NOW)
    etags = {
        folder_etag(objects)
        for objects in (
            [], [first], [second], [first, second], [ObjectInfo("a", 1, "e3", NOW)], [ObjectInfo("c", 1, "e1", NOW)],
        )
    }  # fmt: skip
    assert len(etags) == 6
    assert folder_etag([first, second]) == folder_etag([ObjectInfo("a", 1, "e1", NOW.replace(year=2027)), second])


def test_an_account_does_not_show_its_secret() -> None:
    """A secret key is in no representation."""
    assert "hush" not in repr(S3Account("http://x", "key", "hush"))


def test_paths_at_sites_are_their_owners() -> None:
    """Organisation, user and bucket come first in every path."""
    assert data_path("acme", "ada", "shared", "in/x") == "data/acme/ada/shared/in/x"
