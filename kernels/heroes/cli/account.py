"""Signing in and out, the contract, and completion: commands that are no operation of their own."""

from __future__ import annotations

import sys
from typing import Any

import click

from heroes import credentials
from heroes.api import identity
from heroes.api.errors import NotFound, NotSignedIn, Unavailable
from heroes.cli.output import show_json
from heroes.client import Client


@click.command("login")
@click.option("--url", help="address of the API (default: HEROES_API_URL, or that of the last sign-in)")
@click.option("--organisation", prompt=True, help="your organisation")
@click.option("--user", prompt=True, help="your name there")
@click.option("--password", help="your password (default: asked for, or the first line of standard input)")
@click.option("--token", help="a token made elsewhere, instead of a password")
def login(url: str | None, organisation: str, user: str, password: str | None, token: str | None) -> None:
    """Sign in and keep the token in a file that only you can read."""
    address = credentials.address(url)
    client = Client(address, token or "")
    try:
        if token is None:
            asked = identity.Login(organisation=organisation, user=user, password=_password(password))
            token = client.call(identity.LOGIN, asked).token
            client = Client(address, token)
        me = client.call(identity.ME, identity.ME.request())
    finally:
        client.close()
    credentials.save(credentials.Credentials(address, token or "", me.organisation, me.user))
    click.echo(f"signed in to {address} as {me.user} of {me.organisation}", err=True)


def _password(given: str | None) -> str:
    if given is not None:
        return given
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True))
    return sys.stdin.readline().rstrip("\n")


@click.command("logout")
@click.option("--everywhere", is_flag=True, help="end all of your sign-ins, on every device")
def logout(everywhere: bool) -> None:
    """Sign out: the token is revoked and forgotten."""
    kept = credentials.stored()
    if kept is None or not kept.token:
        click.echo("nobody was signed in", err=True)
        return
    client = Client(kept.url, kept.token)
    try:
        client.call(identity.LOGOUT, identity.Logout(everywhere=everywhere))
    except (NotSignedIn, NotFound):
        pass  # it had ended already
    except Unavailable as error:
        click.echo(f"{error.message} The token is forgotten here, and stays valid until it expires.", err=True)
    finally:
        client.close()
    credentials.forget()
    click.echo("signed out", err=True)


@click.command("openapi")
def openapi() -> None:
    """Print the contract as an OpenAPI 3.1 document."""
    from heroes.openapi import document

    show_json(document())


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes this command; in bash: eval "$(heroes completion bash)"."""
    from heroes.cli.completion import shell_script

    click.echo(shell_script(shell))


ACCOUNT: tuple[Any, ...] = (login, logout, openapi, completion)
