"""Users, groups, roles, projects and organisations: what administrators can do, and what nobody can."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from heroes.api import identity as api
from heroes.api.errors import Conflict, HeroesError, InvalidSpec, NotAllowed, NotFound, NotSignedIn
from heroes.api.registry import ANYBODY, SIGNED_IN
from heroes_core.audit import verify
from heroes_identity import service
from heroes_identity.model import roles_for
from tests.unit.identity.conftest import SECRET, Platform


def test_the_paths_are_those_of_the_published_interface() -> None:
    """The operations of the published interface have exactly its methods and paths."""
    stand = {(each.method, each.path) for each in api.OPERATIONS}
    users, groups, roles = ("/organization/admin/" + each for each in ("users/", "groups/", "roles/"))
    assert stand >= {
        ("POST", "/organization/auth/login"),
        ("POST", "/organization/auth/logout"),
        ("GET", "/organization/auth/refresh_token"),
        ("GET", "/organization/auth/me"),
        ("GET", users),
        ("POST", users),
        *((method, users + "{username}") for method in ("GET", "DELETE", "PATCH")),
        ("GET", groups),
        ("POST", groups),
        *((method, groups + "{groupname}") for method in ("GET", "DELETE", "PATCH")),
        ("GET", roles),
        ("POST", roles),
        *((method, roles + "{rolename}") for method in ("GET", "DELETE")),
        *((method, "/heroes/admin/organizations/") for method in ("GET", "POST", "DELETE")),
        ("GET", "/heroes/admin/organizations/{organization_target}"),
    }


def test_effective_rights_are_the_table_for_every_role_and_operation(platform: Platform) -> None:
    """For each role, exactly the operations whose right it gives admit its holder; all others are refused."""
    homes = {"client": "acme", "provider": "depot", "platform": "heroes"}
    for kind, home in homes.items():
        for name, role in roles_for(kind).items():
            token = platform.add(f"has-{name}", name, organisation=home)
            for operation in api.OPERATIONS:
                if {ANYBODY, SIGNED_IN} & set(operation.rights):
                    continue
                admitted = bool(role.rights & set(operation.rights))
                assert _admits(platform, token, operation) is admitted, (name, operation.name)


def _admits(platform: Platform, token: str, operation: object) -> bool:
    from heroes_core.module import admit

    try:
        admit(operation, platform.provider.identify(token))  # type: ignore[arg-type]
    except NotAllowed:
        return False
    return True


def test_an_administrator_adds_a_user_who_can_work(both: Platform) -> None:
    """A user added with a role and a group signs in and has them; it is audited without the password."""
    admin = both.login("admin")
    both.ask(admin, api.ADD_GROUP, name="team", title="The team")
    made: api.User = both.ask(
        admin, api.ADD_USER, name="ada", title="Ada", email="ada@acme.example", password=SECRET, roles=["engineer"],
        groups=["team"],
    )  # fmt: skip
    assert (made.name, made.roles, made.groups, made.active) == ("ada", ("engineer",), ("team",), True)
    assert both.ask(admin, api.USER, username="ada") == made
    assert both.ask(both.login("ada"), api.ME).rights == ("data:home", "submit")
    assert ("admin", "user.add", "ada") in both.actions()
    with both.database.read() as work:
        assert verify(work.connection, both.database.audit_key, "acme") > 0


def test_adding_twice_with_one_key_adds_once(platform: Platform) -> None:
    """The same request with the same idempotency key gets the same answer."""
    admin = platform.login("admin")
    request = {"name": "ada", "password": SECRET, "roles": ["engineer"]}
    first = platform.ask(admin, api.ADD_USER, key="k1", **request)
    assert platform.ask(admin, api.ADD_USER, key="k1", **request) == first
    with pytest.raises(Conflict, match="ada"):
        platform.ask(admin, api.ADD_USER, key="k2", **request)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"name": "a b"}, InvalidSpec, "name"),
        ({"name": "../ada"}, InvalidSpec, "name"),
        ({"name": "-rf"}, InvalidSpec, "name"),
        ({"name": ""}, InvalidSpec, "name"),
        ({"name": "x" * 64}, InvalidSpec, "name"),
        ({"name": "ada", "email": "no mail"}, InvalidSpec, "email"),
        ({"name": "ada", "roles": ["king"]}, NotFound, "king"),
        ({"name": "ada", "roles": ["solution-admin"]}, NotFound, "solution-admin"),
        ({"name": "ada", "groups": ["nowhere"]}, NotFound, "nowhere"),
        ({"name": "ada", "password": "short"}, InvalidSpec, "10 to 256"),
        ({"name": "ada", "password": None}, InvalidSpec, "needs a password"),
        ({"name": "ada", "program": True}, InvalidSpec, "has a password"),
        ({"name": "admin"}, Conflict, "admin"),
        ({"name": "Admin"}, Conflict, "Admin"),
        ({"name": "ada", "wings": 2}, InvalidSpec, "wings"),
    ],
)
def test_a_bad_user_is_refused_and_nothing_stays(
    platform: Platform, fields: dict[str, object], error: type[HeroesError], words: str
) -> None:
    """Each mistake is named, has a way out, and leaves no user behind."""
    admin = platform.login("admin")
    with pytest.raises(error, match=words) as caught:
        platform.ask(admin, api.ADD_USER, **{"password": SECRET, **fields})
    assert caught.value.hint
    assert [each.name for each in platform.ask(admin, api.USERS).items] == ["admin"]


def test_users_come_in_pages(platform: Platform) -> None:
    """`next` leads from page to page and is null at the end."""
    for name in ("ada", "bob"):
        platform.add(name, "engineer")
    admin = platform.login("admin")
    first = platform.ask(admin, api.USERS, limit=2)
    assert ([each.name for each in first.items], first.next) == (["ada", "admin"], "admin")
    second = platform.ask(admin, api.USERS, limit=2, after=first.next)
    assert ([each.name for each in second.items], second.next) == (["bob"], None)


def test_deactivation_is_effective_at_once(both: Platform) -> None:
    """A deactivated user's tokens are refused from the next request on, and stay refused after reactivation."""
    token, admin = both.add("ada", "engineer"), both.login("admin")
    assert both.ask(token, api.ME).user == "ada"
    assert both.ask(admin, api.CHANGE_USER, username="ada", active=False).active is False
    with pytest.raises(NotSignedIn, match="no longer active"):
        both.ask(token, api.ME)
    with pytest.raises(NotSignedIn, match="not active"):
        both.login("ada")
    both.ask(admin, api.CHANGE_USER, username="ada", active=True)
    with pytest.raises(NotSignedIn, match="revoked"):
        both.ask(token, api.ME)
    assert both.login("ada")


def test_deletion_is_effective_at_once_and_the_name_stays_taken(platform: Platform) -> None:
    """A deleted user is signed out, unknown, and their name is never given again."""
    token, admin = platform.add("ada", "engineer"), platform.login("admin")
    platform.ask(admin, api.ADD_PROJECT, name="wing", members=["ada"])
    platform.ask(admin, api.REMOVE_USER, username="ada")
    with pytest.raises(NotSignedIn, match="no longer active"):
        platform.ask(token, api.ME)
    with pytest.raises(NotFound):
        platform.ask(admin, api.USER, username="ada")
    with pytest.raises(Conflict, match="never given again"):
        platform.ask(admin, api.ADD_USER, name="ada", password=SECRET)
    assert platform.ask(admin, api.PROJECT, projectname="wing").members == ()


def test_a_new_password_by_an_administrator_ends_every_sign_in(platform: Platform) -> None:
    """An administrator's new password is the only one that signs in."""
    token, admin = platform.add("ada", "engineer"), platform.login("admin")
    platform.ask(admin, api.CHANGE_USER, username="ada", password="set by the admin")
    with pytest.raises(NotSignedIn, match="revoked"):
        platform.ask(token, api.ME)
    assert platform.login("ada", password="set by the admin")


@pytest.mark.parametrize(
    "attempt",
    [
        lambda p, t: p.ask(t, api.GIVE_ROLE, user="lead", role="organisation-administrator"),
        lambda p, t: p.ask(t, api.GIVE_ROLE, user="ada", role="billing-admin"),
        lambda p, t: p.ask(t, api.TAKE_ROLE, user="admin", rolename="organisation-administrator"),
        lambda p, t: p.ask(t, api.ADD_USER, name="x", password=SECRET, roles=["organisation-administrator"]),
        lambda p, t: p.ask(t, api.CHANGE_USER, username="admin", password="mine from now on"),
        lambda p, t: p.ask(t, api.CHANGE_USER, username="admin", active=False),
        lambda p, t: p.ask(t, api.CHANGE_USER, username="admin", email="me@acme.example"),
        lambda p, t: p.ask(t, api.REMOVE_USER, username="admin"),
        lambda p, t: p.ask(t, api.ADD_TOKEN, user="mighty"),
        lambda p, t: p.ask(t, api.ADD_ORGANISATION, name="x", administrator="x", password=SECRET),
    ],
)  # fmt: skip
def test_no_way_leads_up(platform: Platform, attempt: Callable[[Platform, str], object]) -> None:
    """A project admin cannot make themselves, a friend or a program an administrator, nor take one over."""
    token = platform.add("lead", "project-admin")
    platform.add("ada", "engineer")
    platform.add("mighty", "organisation-administrator", program=True)
    before = platform.actions()
    with pytest.raises(NotAllowed) as caught:
        attempt(platform, token)
    assert caught.value.hint
    assert platform.actions() == before
    assert platform.login("admin")


def test_a_project_admin_brings_in_engineers(platform: Platform) -> None:
    """What a project admin may hand on works: people who submit and have data."""
    token = platform.add("lead", "project-admin")
    platform.ask(token, api.ADD_USER, name="ada", password=SECRET, roles=["engineer"])
    assert platform.ask(platform.login("ada"), api.ME).rights == ("data:home", "submit")


@pytest.mark.parametrize("organisation", ["acme", "depot", "heroes"])
def test_the_last_administrator_stays(both: Platform, organisation: str) -> None:
    """The only active administrator cannot lose the role, be deactivated or be deleted; with a second one they can."""
    role = "solution-admin" if organisation == "heroes" else "organisation-administrator"
    token = both.login("admin", organisation)
    attempts: list[Callable[[], object]] = [
        lambda: both.ask(token, api.TAKE_ROLE, user="admin", rolename=role),
        lambda: both.ask(token, api.CHANGE_USER, username="admin", active=False),
        lambda: both.ask(token, api.REMOVE_USER, username="admin"),
    ]
    both.add("robot", role, organisation=organisation, program=True)
    both.add("idle", role, organisation=organisation)
    both.ask(token, api.CHANGE_USER, username="idle", active=False)
    for attempt in attempts:
        with pytest.raises(Conflict, match="last active"):
            attempt()
    both.ask(token, api.CHANGE_USER, username="idle", active=True)
    both.ask(token, api.REMOVE_USER, username="admin")
    assert both.login("idle", organisation)


def test_two_administrators_cannot_remove_each_other_at_once(both: Platform) -> None:
    """Whatever the timing, one administrator is left."""
    first = both.login("admin")
    second = both.add("boss", "organisation-administrator")
    start = threading.Barrier(2)
    refused: list[HeroesError] = []

    def remove(token: str, whom: str) -> None:
        start.wait()
        try:
            both.ask(token, api.REMOVE_USER, username=whom)
        except HeroesError as error:
            refused.append(error)

    threads = [threading.Thread(target=remove, args=each) for each in ((first, "boss"), (second, "admin"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    with both.database.read() as work:
        from tests.unit.identity.conftest import CHEAP

        left = service.embedded(CHEAP)(work).holders("acme", "organisation-administrator", active_only=True)
    assert len(left) == 1


def test_groups_are_kept(platform: Platform) -> None:
    """Groups are made, listed, changed and deleted."""
    platform.add("ada", "engineer")
    admin = platform.login("admin")
    assert platform.ask(admin, api.ADD_GROUP, name="team", members=["ada"]).members == ("ada",)
    changed = platform.ask(admin, api.CHANGE_GROUP, groupname="team", title="T", join=["admin"], leave=["ada"])
    assert (changed.title, changed.members) == ("T", ("admin",))
    assert [each.name for each in platform.ask(admin, api.GROUPS).items] == ["team"]
    assert platform.ask(admin, api.GROUP, groupname="team") == changed
    platform.ask(admin, api.REMOVE_GROUP, groupname="team")
    assert platform.ask(admin, api.GROUPS).items == ()
    assert [each[1] for each in platform.actions()][-3:] == ["group.add", "group.change", "group.remove"]


def test_projects_are_kept_and_checked(both: Platform) -> None:
    """Only members of an active project may act for it."""
    both.add("ada", "engineer")
    admin = both.login("admin")
    both.ask(admin, api.ADD_PROJECT, name="wing", title="Wing", members=["ada"])
    with both.database.read() as work:
        assert service.check_project(work, "acme", "ada", "wing").title == "Wing"
        assert service.projects_of(work, "acme", "ada") == {"wing"}
        with pytest.raises(NotAllowed, match="not in the project"):
            service.check_project(work, "acme", "admin", "wing")
        with pytest.raises(NotFound, match="wing"):
            service.check_project(work, "umbrella", "ada", "wing")
    both.ask(admin, api.CHANGE_PROJECT, projectname="wing", active=False)
    with both.database.read() as work:
        assert service.projects_of(work, "acme", "ada") == frozenset()
        with pytest.raises(NotAllowed, match="not active"):
            service.check_project(work, "acme", "ada", "wing")
    both.ask(admin, api.REMOVE_PROJECT, projectname="wing")
    with pytest.raises(Conflict, match="never given again"):
        both.ask(admin, api.ADD_PROJECT, name="WING")
    assert both.ask(admin, api.PROJECTS).items == ()


def test_roles_tell_rights_and_holders(platform: Platform) -> None:
    """The list of roles is the organisation's kind's, with its own holders."""
    platform.add("ada", "engineer")
    platform.add("eve", "engineer", organisation="umbrella")
    admin = platform.login("admin")
    found = {each.name: each for each in platform.ask(admin, api.ROLES).items}
    assert set(found) == set(roles_for("client"))
    assert (found["engineer"].rights, found["engineer"].holders) == (("data:home", "submit"), ("ada",))
    assert platform.ask(admin, api.ROLE, rolename="engineer") == found["engineer"]
    with pytest.raises(NotFound, match="king"):
        platform.ask(admin, api.ROLE, rolename="king")


@pytest.mark.parametrize(
    "ask",
    [
        lambda p, t: p.ask(t, api.USER, username="ada"),
        lambda p, t: p.ask(t, api.CHANGE_USER, username="ada", title="x"),
        lambda p, t: p.ask(t, api.REMOVE_USER, username="ada"),
        lambda p, t: p.ask(t, api.GIVE_ROLE, user="ada", role="engineer"),
        lambda p, t: p.ask(t, api.TAKE_ROLE, user="ada", rolename="engineer"),
        lambda p, t: p.ask(t, api.GROUP, groupname="team"),
        lambda p, t: p.ask(t, api.ADD_GROUP, name="other", members=["ada"]),
        lambda p, t: p.ask(t, api.PROJECT, projectname="wing"),
        lambda p, t: p.ask(t, api.ADD_TOKEN, user="ada"),
    ],
)
def test_another_organisations_names_are_not_there(platform: Platform, ask: Callable[[Platform, str], object]) -> None:
    """An administrator of another organisation cannot see or change anything of ours."""
    platform.add("ada", "engineer")
    admin = platform.login("admin")
    platform.ask(admin, api.ADD_GROUP, name="team")
    platform.ask(admin, api.ADD_PROJECT, name="wing")
    before = platform.actions()
    with pytest.raises(NotFound):
        ask(platform, platform.login("admin", "umbrella"))
    assert platform.actions() == before


def test_an_organisation_comes_and_goes(both: Platform) -> None:
    """A new organisation has an administrator; closed, its users are out at once and its name stays taken."""
    root = both.login("admin", "heroes")
    request = {"name": "newco", "title": "New", "currency": "CHF", "administrator": "ceo", "password": SECRET}
    made: api.Organisation = both.ask(root, api.ADD_ORGANISATION, **request)
    assert (made.kind, made.currency, made.users, made.active) == ("client", "CHF", 1, True)
    assert both.ask(root, api.ORGANISATION, organization_target="newco") == made
    token = both.login("ceo", "newco")
    assert "users:manage" in both.ask(token, api.ME).rights
    both.ask(root, api.REMOVE_ORGANISATION, name="newco")
    with pytest.raises(NotSignedIn, match="closed"):
        both.ask(token, api.ME)
    with pytest.raises(NotSignedIn, match="do not belong"):
        both.login("ceo", "newco")
    with pytest.raises(NotFound, match="newco"):
        both.ask(root, api.ORGANISATION, organization_target="newco")
    with pytest.raises(Conflict, match="never given again"):
        both.ask(root, api.ADD_ORGANISATION, **{**request, "name": "NEWCO"})
    names = [each.name for each in both.ask(root, api.ORGANISATIONS).items]
    assert names == ["acme", "depot", "heroes", "umbrella"]


def test_the_platforms_own_organisation_stays(platform: Platform) -> None:
    """The organisation that runs the platform cannot be removed, and no second one can be made."""
    root = platform.login("admin", "heroes")
    with pytest.raises(Conflict, match="runs the platform"):
        platform.ask(root, api.REMOVE_ORGANISATION, name="heroes")
    with pytest.raises(InvalidSpec, match="kind"):
        platform.ask(root, api.ADD_ORGANISATION, name="x", kind="platform", administrator="x", password=SECRET)


def test_the_platforms_people_are_marked(platform: Platform) -> None:
    """Callers of the HEROES organisation are platform callers, and only they."""
    assert platform.caller("admin", "heroes").platform
    assert not platform.caller("admin", "acme").platform
    assert not platform.caller("admin", "depot").platform


def test_others_ask_by_name(platform: Platform) -> None:
    """Other modules find organisations, users and groups by name, within one organisation."""
    platform.add("ada", "engineer")
    platform.ask(platform.login("admin"), api.ADD_GROUP, name="team", members=["ada"])
    with platform.database.read() as work:
        assert service.organisation(work, "acme").currency == "EUR"
        assert service.user(work, "acme", "ada").roles == {"engineer"}
        assert service.groups_of(work, "acme", "ada") == {"team"}
        assert service.groups_of(work, "umbrella", "ada") == frozenset()
        with pytest.raises(NotFound, match="nowhere"):
            service.organisation(work, "nowhere")
        with pytest.raises(NotFound, match="ada"):
            service.user(work, "umbrella", "ada")
