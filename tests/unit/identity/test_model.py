"""The rules of identity: the table of roles, reach, passwords, pace and tokens."""

from __future__ import annotations

import re
from datetime import timedelta

import argon2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heroes.api.errors import InvalidSpec, NotAllowed, NotFound
from heroes.api.registry import RIGHTS
from heroes_identity.model import (
    ADMINISTRATOR,
    ROLES_OF_KIND,
    Pace,
    Passwords,
    check_password,
    check_reach,
    digest,
    givable,
    mint_token,
    read_roles,
    rights_of,
    role_for,
    roles_for,
    token_id,
)

#: The published table: one row for each role, a cross where it gives the column's right.
TABLE = """
| role | submit | data: home | data: manage | workflows: manage | users, groups, roles | package application \
| publish application | publish resources | clusters: manage | billing |
| *client* | | | | | | | | | | |
| engineer | x | x | | | | | | | | |
| researcher | x | x | | | | | | | | |
| workflow admin | x | x | | x | | | | | | |
| application packager | x | | | | | x | | | | |
| project admin | | | x | | x | | | | | |
| billing admin | | | | | | | | | | x |
| organisation administrator | | | x | x | x | | | | x (own) | x |
| *platform* | | | | | | | | | | |
| solution admin | x | x | x | x | x | x | | | | x |
| tenant admin | | | | | x | | | | | x |
| infrastructure admin | | | | | | | | | x | |
| billing admin | | | | | | | | | | x |
| *provider* | | | | | | | | | | |
| resource provider | | | | | | | | x | x (own) | |
| application provider | x | | | | | x | x | | | |
"""
COLUMNS = (
    "submit", "data:home", "data:manage", "workflows:manage", "users:manage", "applications:package",
    "applications:publish", "resources:publish", "clusters:manage", "billing",
)  # fmt: skip
OVER_PLATFORM = {
    "solution-admin": {"platform:organizations", "platform:clusters", "platform:operate"},
    "tenant-admin": {"platform:organizations"},
    "infrastructure-admin": {"platform:clusters"},
}
CHEAP = Passwords(memory_kib=8, rounds=1, lanes=1)


def published() -> dict[tuple[str, str], set[str]]:
    """The table's crosses by kind of organisation and role."""
    found, kind = {}, ""
    for line in TABLE.strip().splitlines()[1:]:
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if name.startswith("*"):
            kind = name.strip("*")
            continue
        found[kind, name.replace(" ", "-")] = {
            right for right, cell in zip(COLUMNS, cells, strict=True) if cell.startswith("x")
        }
    return found


def test_the_shipped_roles_are_the_published_table() -> None:
    """Every role gives exactly the rights that the table crosses, and those over the platform; no role is missing."""
    table = published()
    shipped = {}
    for kind in ("client", "platform", "provider"):
        for name, role in roles_for(kind).items():
            if kind == "provider" and name in roles_for("client"):
                continue
            shipped[kind, name] = set(role.rights)
    over = {("platform", name): rights for name, rights in OVER_PLATFORM.items()}
    assert shipped == {row: rights | over.get(row, set()) for row, rights in table.items()}


def test_rights_over_the_platform_stay_within_it() -> None:
    """No role of a client or provider gives or hands on a right over the platform."""
    for kind in ("client", "provider"):
        for role in roles_for(kind).values():
            assert not {right for right in role.rights | role.gives if right.startswith("platform:")}


def test_the_administrator_reaches_every_role_of_their_organisation() -> None:
    """Whoever holds the administering role may give every role there is in such an organisation."""
    for kind in ROLES_OF_KIND:
        for name in roles_for(kind):
            check_reach(kind, [ADMINISTRATOR[kind]], [name], "x")


@pytest.mark.parametrize(
    ("kind", "granter", "wanted"),
    [
        ("client", "project-admin", "organisation-administrator"),
        ("client", "project-admin", "billing-admin"),
        ("client", "project-admin", "workflow-admin"),
        ("platform", "tenant-admin", "solution-admin"),
        ("platform", "tenant-admin", "infrastructure-admin"),
        ("client", "engineer", "project-admin"),
    ],
)
def test_nobody_gives_more_than_they_reach(kind: str, granter: str, wanted: str) -> None:
    """A role with a right beyond the granter's reach is refused, and the right is named."""
    excess = rights_of(kind, [wanted]) - givable(kind, [granter])
    with pytest.raises(NotAllowed) as caught:
        check_reach(kind, [granter], [wanted], "It")
    assert caught.value.detail == {"rights": sorted(excess)}
    assert all(right in str(caught.value) for right in excess)


@given(
    st.sampled_from(sorted(ROLES_OF_KIND)).flatmap(
        lambda kind: st.tuples(
            st.just(kind),
            st.sets(st.sampled_from(sorted(roles_for(kind)))),
            st.lists(st.sampled_from(sorted(roles_for(kind))), max_size=6),
        )
    )
)
def test_no_chain_of_grants_leads_up(case: tuple[str, set[str], list[str]]) -> None:
    """Whatever someone gives to themselves, step by step, they never reach more than at the beginning."""
    kind, start, wishes = case
    reach, held = givable(kind, start), set(start)
    for wish in wishes:
        if rights_of(kind, [wish]) <= givable(kind, held) and "users:manage" in rights_of(kind, held):
            held.add(wish)
    assert rights_of(kind, held) <= reach


def test_a_role_of_another_kind_is_not_there() -> None:
    """A client cannot give the platform's roles, and the answer names those it can."""
    with pytest.raises(NotFound, match="engineer"):
        role_for("client", "solution-admin")
    assert rights_of("client", ["solution-admin", "nonsense"]) == frozenset()


def test_a_right_that_does_not_exist_is_found_in_the_table() -> None:
    """A table that names an unknown right is refused with its name."""
    with pytest.raises(ValueError, match="fly"):
        read_roles('[client.pilot]\ntitle = "Pilot"\nrights = ["fly"]')
    assert all(role.rights <= RIGHTS for kind in ROLES_OF_KIND for role in roles_for(kind).values())


@pytest.mark.parametrize("length", [0, 9, 257])
def test_a_password_of_bad_length_is_refused_without_repeating_it(length: int) -> None:
    """The message tells the length and never the password."""
    with pytest.raises(InvalidSpec) as caught:
        check_password("q" * length)
    assert str(length) in str(caught.value)
    assert "qqq" not in str(caught.value) + str(caught.value.detail)


@pytest.mark.parametrize("password", ["x" * 10, "x" * 256, "пароль из слов", "with \x00 and \n"])
def test_a_password_matches_its_own_hash_only(password: str) -> None:
    """Any text of good length is a password, and another one does not match its hash."""
    hashed = CHEAP.hash(check_password(password))
    assert CHEAP.matches(hashed, password)
    assert not CHEAP.matches(hashed, password + "x")
    assert password not in hashed


def test_hashes_are_salted_and_know_their_cost() -> None:
    """Two hashes of one password differ; one made with other costs is outdated."""
    first, second = CHEAP.hash("the same words"), CHEAP.hash("the same words")
    assert first != second
    assert not CHEAP.outdated(first)
    assert Passwords(memory_kib=16, rounds=1, lanes=1).outdated(first)


def test_nobody_costs_as_much_as_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking a password against no user computes one hash of the same costs, as it does against a user."""
    computed: list[str] = []
    real = argon2.PasswordHasher.verify

    def spy(hasher: argon2.PasswordHasher, hashed: str, password: str) -> bool:
        computed.append(hashed.rpartition("$")[0].rpartition("$")[0])
        return real(hasher, hashed, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", spy)
    hashed = CHEAP.hash("correct horse")
    assert not CHEAP.matches(hashed, "wrong horse")
    assert not CHEAP.matches(None, "wrong horse")
    assert computed == ["$argon2id$v=19$m=8,t=1,p=1"] * 2


def test_nothing_matches_a_broken_or_missing_hash() -> None:
    """A user without a password, and one with a damaged hash, cannot sign in."""
    assert not CHEAP.matches(None, "anything at all")
    assert not CHEAP.matches("not a hash", "anything at all")


def test_guessing_gets_slower_up_to_a_limit() -> None:
    """The first failures cost nothing, then the wait doubles up to the longest."""
    pace = Pace(free=3, first_s=1, longest_s=10)
    waits = [pace.wait(failures).total_seconds() for failures in range(1, 9)]
    assert waits == [0, 0, 1, 2, 4, 8, 10, 10]
    assert pace.wait(10_000) == timedelta(seconds=10)


def test_a_token_carries_its_id_and_is_stored_as_a_digest() -> None:
    """Tokens differ, name their id, and their digest gives nothing of them away."""
    first, second = mint_token(), mint_token()
    assert first.text != second.text
    assert token_id(first.text) == first.id
    assert first.digest == digest(first.text)
    assert re.fullmatch("[0-9a-f]{64}", first.digest)


@pytest.mark.parametrize(
    "text",
    ["", "x", "heroes", "heroes_", "heroes_x_y", "heroes_01ARZ3NDEKTSV4RRFFQ69G5FAV_",
     "other_01ARZ3NDEKTSV4RRFFQ69G5FAV_x", "heroes_01ARZ3NDEKTSV4RRFFQ69G5FAV_" + "x" * 300,
     "heroes_01ARZ3NDEKTSV4RRFFQ69G5FAI_x"],
)  # fmt: skip
def test_what_is_no_token_has_no_id(text: str) -> None:
    """Anything but our own form is recognised as no token of ours."""
    assert token_id(text) is None


@given(st.text(max_size=60))
def test_any_text_is_a_token_or_not(text: str) -> None:
    """No text whatever makes the reading of a token fail."""
    assert token_id(text) is None or text.startswith("heroes_")
