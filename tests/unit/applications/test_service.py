"""Publishing, finding and withdrawing templates."""

from __future__ import annotations

import pytest

from heroes.api import applications as api
from heroes.api.errors import Conflict, HeroesError, NotAllowed, NotFound
from heroes_applications import service
from heroes_core.work import Caller, Database
from tests.unit.applications.conftest import (
    BILLING,
    COLLEAGUE,
    ENGINEER,
    MANAGER,
    PUBLISHER,
    STRANGER,
    document,
)


def publish(
    database: Database, caller: Caller, name: str, visibility: api.Visibility | None = None, title: str = "Sums"
) -> api.TemplateText:
    """Publish a small template in a unit of work of its own."""
    with database.write() as work:
        request = api.PublishTemplate(document=document(name, title), visibility=visibility)
        return service.publish(work, caller, request)


def names(database: Database, caller: Caller) -> list[str]:
    """What the caller may submit."""
    with database.read() as work:
        return [item.name for item in service.listing(work, caller, "", 50).items]


def test_a_template_of_ones_own(database: Database) -> None:
    """With `submit` one publishes a private template, which only oneself sees."""
    shown = publish(database, ENGINEER, "sums")
    assert (shown.info.version, shown.info.visibility, shown.info.owner) == (1, "private", "alice")
    assert names(database, ENGINEER) == ["sums"]
    assert names(database, MANAGER) == names(database, STRANGER) == []


def test_versions_are_numbered_and_never_change(database: Database) -> None:
    """Another text is the next version; the same text again is none; older versions stay readable."""
    publish(database, ENGINEER, "sums")
    assert publish(database, ENGINEER, "sums").info.version == 1
    assert publish(database, ENGINEER, "sums", title="More sums").info.version == 2
    with database.read() as work:
        first, latest = (service.find(work, ENGINEER, "sums", version) for version in (1, 0))
        assert (first.template.title, first.version) == ("Sums", 1)
        assert (latest.template.title, latest.version) == ("More sums", 2)
        assert first.digest != latest.digest
        assert service.template(work, ENGINEER, "sums", 1).title == "Sums"
        with pytest.raises(NotFound, match="sums has no version 3"):
            service.find(work, ENGINEER, "sums", 3)


def test_a_colleague_cannot_take_or_change_the_name(database: Database) -> None:
    """A name belongs to whoever published it first in the organisation; another organisation has its own."""
    publish(database, ENGINEER, "sums")
    with pytest.raises(Conflict, match="The name sums is taken in acme"):
        publish(database, COLLEAGUE, "sums", title="Mine")
    assert publish(database, STRANGER, "sums").info.organisation == "umbrella"
    with database.read() as work:
        assert service.find(work, ENGINEER, "sums").organisation == "acme"


def test_sharing_needs_the_right(database: Database) -> None:
    """Organisation-wide needs `workflows:manage`; for every organisation one must be allowed to publish, too."""
    with pytest.raises(NotAllowed, match="workflows:manage"):
        publish(database, ENGINEER, "sums", "organisation")
    with pytest.raises(NotAllowed, match="applications:publish"):
        publish(database, MANAGER, "sums", "shared")
    with pytest.raises(NotAllowed, match="the right submit"):
        publish(database, BILLING, "sums")
    publish(database, MANAGER, "sums", "organisation")
    publish(database, PUBLISHER, "products", "shared")
    assert names(database, ENGINEER) == ["products", "sums"]
    assert names(database, STRANGER) == ["products"]


def test_a_shared_template_changes_only_by_those_who_may_share(database: Database) -> None:
    """A template that others use cannot be replaced with `submit` alone."""
    publish(database, MANAGER, "sums", "organisation")
    with pytest.raises(NotAllowed):
        publish(database, ENGINEER, "sums", title="Other")
    with pytest.raises(NotAllowed):
        publish(database, ENGINEER, "sums", "private", title="Other")


def test_an_administrator_shares_what_a_user_wrote(database: Database) -> None:
    """Publishing the same text with another visibility changes the visibility, and the version stays."""
    publish(database, ENGINEER, "sums")
    shown = publish(database, MANAGER, "sums", "organisation")
    assert (shown.info.version, shown.info.visibility, shown.info.owner) == (1, "organisation", "alice")
    assert names(database, COLLEAGUE) == ["sums"]


def test_a_shared_name_is_not_given_to_others(database: Database) -> None:
    """Nobody can publish under the name of a template that everybody sees."""
    publish(database, PUBLISHER, "sums", "shared")
    with pytest.raises(Conflict, match="The name sums is taken"):
        publish(database, STRANGER, "sums")


def test_withdrawn_is_gone_and_its_name_stays_taken(database: Database) -> None:
    """A withdrawn template is not found, its name is not given again, and runs of it still read their version."""
    publish(database, ENGINEER, "sums")
    with database.write() as work:
        service.withdraw(work, ENGINEER, "sums")
    assert names(database, ENGINEER) == []
    with pytest.raises(Conflict, match="was withdrawn"):
        publish(database, ENGINEER, "sums", title="Again")
    with database.read() as work, pytest.raises(NotFound):
        service.find(work, ENGINEER, "sums")
    with database.read() as work:
        assert service.stored(work, "acme", "sums", 1).title == "Sums"
        with pytest.raises(NotFound):
            service.stored(work, "acme", "sums", 2)


@pytest.mark.parametrize(
    ("caller", "name", "error"),
    [
        (COLLEAGUE, "sums", NotFound),
        (STRANGER, "sums", NotFound),
        (ENGINEER, "nothing", NotFound),
        (COLLEAGUE, "ours", NotAllowed),
        (STRANGER, "ours", NotFound),
    ],
)
def test_withdrawing_needs_the_right(sqlite: Database, caller: Caller, name: str, error: type[HeroesError]) -> None:
    """Others' private templates look as if they were not there; shared ones need `workflows:manage`."""
    publish(sqlite, ENGINEER, "sums")
    publish(sqlite, MANAGER, "ours", "organisation")
    with pytest.raises(error), sqlite.write() as work:
        service.withdraw(work, caller, name)


def test_an_unknown_name_is_told_with_the_closest(sqlite: Database) -> None:
    """The hint names what was probably meant, and nothing that the caller may not see."""
    publish(sqlite, ENGINEER, "sums")
    with sqlite.read() as work:
        with pytest.raises(NotFound) as refused:
            service.find(work, ENGINEER, "sum")
        assert "Did you mean 'sums'?" in refused.value.hint
        with pytest.raises(NotFound) as refused:
            service.find(work, STRANGER, "sum")
        assert "sums" not in refused.value.hint


def test_pages_follow_each_other(database: Database) -> None:
    """A list is read page by page, by name, without a gap or a repetition."""
    for number in range(7):
        publish(database, ENGINEER, f"t{number}")
    seen: list[str] = []
    after = ""
    with database.read() as work:
        while True:
            page = service.listing(work, ENGINEER, after, 3)
            seen += [item.name for item in page.items]
            if page.next is None:
                break
            after = page.next
    assert seen == [f"t{number}" for number in range(7)]


def test_shipped_templates_are_everybodys(database: Database) -> None:
    """What the distribution brings is published once, for every organisation."""
    with database.write() as work:
        assert service.install_shipped(work) == ["job-runtime-model", "openfoam-cavity"]
    with database.write() as work:
        assert service.install_shipped(work) == []
    assert names(database, STRANGER) == ["job-runtime-model", "openfoam-cavity"]
    with database.read() as work:
        shown = service.show(work, STRANGER, api.GetTemplate(workflow_template_id="openfoam-cavity"))
    assert (shown.info.organisation, shown.latest) == ("heroes", 1)
