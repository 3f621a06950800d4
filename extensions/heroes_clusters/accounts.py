"""Use cases of service accounts: key pairs made here, one organisation each."""

from __future__ import annotations

from typing import Any

from heroes.api.errors import Conflict, NotAllowed, NotFound
from heroes_clusters import store
from heroes_clusters.keys import Vault, new_key_pair
from heroes_core.work import Caller, Work
from heroes_identity import service as identity

#: The right that reaches every organisation's.
PLATFORM = "platform:clusters"


def add(work: Work, caller: Caller, vault: Vault, name: str, organisation: str = "") -> Any:
    """A key pair for one organisation; the platform's administrators may make it for another than their own."""
    owner = organisation or caller.organisation
    if owner != caller.organisation and PLATFORM not in caller.rights:
        hint = "Leave the organisation out."
        raise NotAllowed(f"You may not make a service account for {owner}.", hint=hint, detail={"needs": [PLATFORM]})
    identity.organisation(work, owner)
    if store.account_name_taken(work, name):
        raise Conflict(f"The name {name} was given to a service account before.", hint="Choose another name.")
    pair = new_key_pair(f"heroes-{name}")
    store.add_account(work, name, owner, pair.public_key, vault.seal(pair.private_key))
    work.audit(owner, caller.actor, "service_account.add", name)
    return owned(work, caller, name)


def listed(work: Work, caller: Caller, after: str, limit: int) -> list[Any]:
    """The service accounts of the caller's organisation; of all for the platform's administrators."""
    return store.accounts(work, None if PLATFORM in caller.rights else caller.organisation, after, limit)


def remove(work: Work, caller: Caller, name: str) -> None:
    """Delete a service account that no cluster uses."""
    account = owned(work, caller, name)
    used = store.clusters_using(work, name)
    if used:
        raise Conflict(f"The service account {name} is used at {', '.join(used)}.", hint="Delete these clusters first.")
    store.remove_account(work, name)
    work.audit(account.organisation, caller.actor, "service_account.remove", name)


def private_key(work: Work, vault: Vault, name: str) -> str:
    """The private key of a service account; for the engine only."""
    account = store.get_account(work, name)
    if account is None:
        raise NotFound(f"There is no service account {name}.", hint="List them: heroes service-account list.")
    return vault.open(account.private_key)


def owned(work: Work, caller: Caller, name: str) -> Any:
    """A service account of the caller's organisation, of any for the platform's administrators; `NotFound`."""
    account = store.get_account(work, name)
    if account is None or (account.organisation != caller.organisation and PLATFORM not in caller.rights):
        hint = "List yours: heroes service-account list."
        raise NotFound(f"There is no service account {name} of yours.", hint=hint)
    return account
