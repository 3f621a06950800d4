"""What every directory of users does, the embedded one and any other: `heroes_identity.ports.Directory`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from heroes.api.errors import Conflict, NotFound
from heroes_core.work import Database
from heroes_identity.embedded import EmbeddedDirectory
from heroes_identity.model import Changes, NewPerson, Passwords
from heroes_identity.ports import Directory

CHEAP = Passwords(memory_kib=8, rounds=1, lanes=1)
SECRET = "correct horse battery"


@pytest.fixture
def directory(database: Database) -> Iterator[Directory]:
    """An empty directory."""
    with database.write() as work:
        yield EmbeddedDirectory(work, CHEAP)


def add(directory: Directory, name: str, organisation: str = "acme", program: bool = False) -> None:
    """Add a user with the password SECRET, or a program."""
    directory.add_person(NewPerson(organisation, name, program=program, password=None if program else SECRET))


def test_a_new_user_is_active_and_can_do_nothing(directory: Directory) -> None:
    """A user starts active, without roles and groups, with an identity of issuer and subject."""
    made = directory.add_person(NewPerson("acme", "ada", "Ada L.", "ada@acme.example", password=SECRET))
    assert (made.organisation, made.name, made.title, made.email) == ("acme", "ada", "Ada L.", "ada@acme.example")
    assert made.active
    assert not made.program
    assert (made.roles, made.groups) == (frozenset(), frozenset())
    assert made.issuer == directory.issuer("acme")
    assert made.subject
    assert directory.person("acme", "ada") == made


def test_the_identity_is_issuer_and_subject(directory: Directory) -> None:
    """The same name in two organisations is two persons, found by issuer and subject and never by e-mail."""
    add(directory, "ada", "acme")
    add(directory, "ada", "umbrella")
    ours, theirs = directory.person("acme", "ada"), directory.person("umbrella", "ada")
    assert (ours.issuer, ours.subject) != (theirs.issuer, theirs.subject)
    assert directory.by_subject(ours.issuer, ours.subject) == ours
    assert directory.by_subject(theirs.issuer, ours.subject) is None
    assert directory.by_subject(ours.issuer, "nobody") is None


def test_a_user_of_another_organisation_is_not_found(directory: Directory) -> None:
    """Names are looked up within one organisation only."""
    add(directory, "ada", "acme")
    with pytest.raises(NotFound, match="ada"):
        directory.person("umbrella", "ada")
    assert directory.people("umbrella") == []


def test_people_come_in_pages_by_name(directory: Directory) -> None:
    """Users come in order of name, after the cursor, no more than asked."""
    for name in ("carl", "ada", "bob"):
        add(directory, name)
    assert [each.name for each in directory.people("acme", limit=2)] == ["ada", "bob"]
    assert [each.name for each in directory.people("acme", after="bob", limit=2)] == ["carl"]


@pytest.mark.parametrize("again", ["ada", "ADA", "Ada"])
def test_a_name_is_never_given_again(directory: Directory, again: str) -> None:
    """Neither a standing nor a deleted user's name is given again, in whatever case."""
    add(directory, "ada")
    with pytest.raises(Conflict, match=again):
        add(directory, again)
    directory.remove_person("acme", "ada")
    with pytest.raises(Conflict, match=again):
        add(directory, again)
    add(directory, again, "umbrella")


def test_a_removed_user_is_gone_everywhere(directory: Directory) -> None:
    """After removal there is no user, no identity, no role, no membership and no signing in."""
    add(directory, "ada")
    directory.give_role("acme", "ada", "engineer")
    directory.add_group("acme", "team", "")
    directory.join("acme", "team", frozenset({"ada"}))
    gone = directory.person("acme", "ada")
    directory.remove_person("acme", "ada")
    with pytest.raises(NotFound):
        directory.person("acme", "ada")
    with pytest.raises(NotFound):
        directory.remove_person("acme", "ada")
    assert directory.by_subject(gone.issuer, gone.subject) is None
    assert directory.holders("acme", "engineer") == frozenset()
    assert directory.group("acme", "team").members == frozenset()
    assert not directory.password_matches("acme", "ada", SECRET)


def test_what_is_not_changed_stays(directory: Directory) -> None:
    """A change of one thing leaves the others; nobody is NotFound."""
    directory.add_person(NewPerson("acme", "ada", "Ada", "ada@acme.example", password=SECRET))
    changed = directory.change_person("acme", "ada", Changes(title="Countess"))
    assert (changed.title, changed.email, changed.active) == ("Countess", "ada@acme.example", True)
    assert directory.change_person("acme", "ada", Changes(email="")).email == ""
    assert directory.change_person("acme", "ada", Changes()) == directory.person("acme", "ada")
    with pytest.raises(NotFound):
        directory.change_person("acme", "bob", Changes(title="x"))


def test_a_password_belongs_to_an_active_person(directory: Directory) -> None:
    """Only the right password of an active person matches; an inactive or unknown user's or a program's never does."""
    add(directory, "ada")
    add(directory, "robot", program=True)
    assert directory.password_matches("acme", "ada", SECRET)
    assert not directory.password_matches("acme", "ada", SECRET + "x")
    assert not directory.password_matches("umbrella", "ada", SECRET)
    assert not directory.password_matches("acme", "nobody", SECRET)
    assert not directory.password_matches("acme", "robot", SECRET)
    directory.change_person("acme", "ada", Changes(active=False))
    assert not directory.password_matches("acme", "ada", SECRET)
    directory.change_person("acme", "ada", Changes(active=True))
    assert directory.password_matches("acme", "ada", SECRET)


def test_a_new_password_replaces_the_old(directory: Directory) -> None:
    """Only the last password signs in."""
    add(directory, "ada")
    directory.set_password("acme", "ada", "another long one")
    assert directory.password_matches("acme", "ada", "another long one")
    assert not directory.password_matches("acme", "ada", SECRET)
    with pytest.raises(NotFound):
        directory.set_password("acme", "bob", SECRET)


def test_roles_are_given_and_taken(directory: Directory) -> None:
    """A role given twice is held once; a role taken that was not held is no error."""
    add(directory, "ada")
    directory.give_role("acme", "ada", "engineer")
    assert directory.give_role("acme", "ada", "engineer").roles == {"engineer"}
    assert directory.give_role("acme", "ada", "billing-admin").roles == {"engineer", "billing-admin"}
    assert directory.take_role("acme", "ada", "engineer").roles == {"billing-admin"}
    assert directory.take_role("acme", "ada", "engineer").roles == {"billing-admin"}
    with pytest.raises(NotFound):
        directory.give_role("acme", "bob", "engineer")
    with pytest.raises(NotFound):
        directory.take_role("acme", "bob", "engineer")


def test_holders_are_those_of_the_organisation(directory: Directory) -> None:
    """Holders of a role are one organisation's; inactive ones and programs are left out where asked."""
    for name in ("ada", "bob"):
        add(directory, name)
        directory.give_role("acme", name, "engineer")
    add(directory, "robot", program=True)
    directory.give_role("acme", "robot", "engineer")
    add(directory, "eve", "umbrella")
    directory.give_role("umbrella", "eve", "engineer")
    directory.change_person("acme", "bob", Changes(active=False))
    assert directory.holders("acme", "engineer") == {"ada", "bob", "robot"}
    assert directory.holders("acme", "engineer", active_only=True) == {"ada"}


def test_members_join_and_leave_groups(directory: Directory) -> None:
    """Joining twice and leaving what one is not in are no errors; a user knows their groups."""
    add(directory, "ada")
    add(directory, "bob")
    directory.add_group("acme", "team", "The team")
    assert directory.join("acme", "team", frozenset({"ada", "bob"})).members == {"ada", "bob"}
    assert directory.join("acme", "team", frozenset({"ada"})).members == {"ada", "bob"}
    assert directory.person("acme", "ada").groups == {"team"}
    assert directory.leave("acme", "team", frozenset({"bob", "carl"})).members == {"ada"}
    assert directory.group("acme", "team").title == "The team"
    assert directory.change_group("acme", "team", "Us").title == "Us"


def test_only_users_join_a_group(directory: Directory) -> None:
    """Somebody unknown, or of another organisation, joins no group, and nobody joins with them."""
    add(directory, "ada")
    add(directory, "eve", "umbrella")
    directory.add_group("acme", "team", "")
    with pytest.raises(NotFound, match="eve"):
        directory.join("acme", "team", frozenset({"ada", "eve"}))
    assert directory.group("acme", "team").members == frozenset()


def test_group_names_are_never_given_again(directory: Directory) -> None:
    """A deleted group is gone from every list and every member, and its name stays taken."""
    add(directory, "ada")
    directory.add_group("acme", "team", "")
    directory.join("acme", "team", frozenset({"ada"}))
    directory.add_group("acme", "zoo", "")
    directory.remove_group("acme", "team")
    assert [each.name for each in directory.groups("acme")] == ["zoo"]
    assert directory.person("acme", "ada").groups == frozenset()
    with pytest.raises(NotFound, match="team"):
        directory.group("acme", "team")
    with pytest.raises(Conflict, match="Team"):
        directory.add_group("acme", "Team", "")
    directory.add_group("umbrella", "team", "")


def test_groups_come_in_pages_by_name(directory: Directory) -> None:
    """Groups come in order of name, after the cursor."""
    for name in ("b", "a", "c"):
        directory.add_group("acme", name, "")
    assert [each.name for each in directory.groups("acme", limit=2)] == ["a", "b"]
    assert [each.name for each in directory.groups("acme", after="b")] == ["c"]


@pytest.mark.parametrize("call", ["join", "leave", "change_group", "remove_group"])
def test_a_group_that_is_not_there_is_not_found(directory: Directory, call: str) -> None:
    """Every operation on an unknown group says so."""
    arguments = {"join": (frozenset(),), "leave": (frozenset(),), "change_group": ("x",), "remove_group": ()}[call]
    with pytest.raises(NotFound, match="nowhere"):
        getattr(directory, call)("acme", "nowhere", *arguments)
