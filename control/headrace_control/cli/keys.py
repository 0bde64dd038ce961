"""`headrace keys`: API keys for the access policy of a server."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import secrets
from pathlib import Path

import click

from headrace_control.cli.output import Output, epilog, json_option
from headrace_control.cli.params import SECONDS

KEY_PREFIX = "hr_"
ACTIONS = ("predict", "read_features", "write_features", "manage_models", "read_metadata", "*")


@click.group(
    "keys",
    epilog=epilog(
        "headrace keys create batch --scopes 'predict:fraud,read_features:*'",
        "headrace keys create batch --scopes 'predict:*' --expires 30d --write access.toml",
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Given to the commands below: print one JSON object.")
def command(as_json: bool) -> None:
    """Make the keys that a server's access policy knows."""


@command.command("create", epilog=epilog("headrace keys create batch --scopes 'predict:fraud,read_features:*'"))
@click.argument("name")
@click.option("--scopes", required=True, help="What it may do, as ACTION:NAME, separated by commas; * is any text.")
@click.option("--expires", type=SECONDS, help="After which time it is worth nothing, such as 30d. Default: never.")
@click.option("--rate", help="Requests that it may send, such as 100/s, 600/m or 1000/h.")
@click.option(
    "--write",
    "policy",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append the entry to this access file, instead of printing it.",
)
@json_option
def create(
    name: str, scopes: str, expires: datetime.timedelta | None, rate: str | None, policy: Path | None, as_json: bool
) -> None:
    """Print a new key, once, and its entry in the access file, which holds a hash only.

    Actions: predict (of a model), read_features (of a feature service), write_features (of a feature view),
    manage_models (load, unload, settings), read_metadata.
    """
    if not re.fullmatch(r"[\w.@-]{1,100}", name):
        raise click.BadParameter("letters, digits and . _ @ - are taken", param_hint="NAME")
    granted = checked_scopes(scopes)
    if rate is not None and not re.fullmatch(r"[1-9]\d{0,8}/[smh]", rate):
        raise click.BadParameter(f"'{rate}' is not a rate; write it like 100/s", param_hint="--rate")
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    digest = f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}"
    lines = ["[[keys]]", f"name = {json.dumps(name)}", f'hash = "{digest}"', f"scopes = {json.dumps(granted)}"]
    until = None
    if expires is not None:
        until = (datetime.datetime.now(datetime.UTC) + expires).strftime("%Y-%m-%dT%H:%M:%SZ")
        lines.append(f"expires = {until}")
    if rate is not None:
        lines.append(f'rate = "{rate}"')
    entry = "\n".join(lines) + "\n"
    if policy is not None:
        append(policy, name, entry)
    output = Output(as_json)
    output.note("The key is shown this once; only its hash is kept.")
    if as_json:
        values = {"name": name, "key": secret, "hash": digest, "scopes": granted, "expires": until, "entry": entry}
        output.result(values)
    else:  # as it is, however narrow the terminal: it will be copied
        click.echo(secret if policy is not None else f"{secret}\n\n{entry}", nl=policy is not None)


def checked_scopes(text: str) -> list[str]:
    """The scopes of a list, as the server will read them."""
    scopes = [scope.strip() for scope in text.split(",")]
    for scope in scopes:
        action, _, resource = scope.partition(":")
        if action not in ACTIONS or not resource:
            raise click.BadParameter(
                f"'{scope}' is no scope: write ACTION:NAME; actions: {', '.join(ACTIONS)}", param_hint="--scopes"
            )
    return scopes


def append(policy: Path, name: str, entry: str) -> None:
    """Adds an entry at the end, in one step: a server that watches the file never reads half of it."""
    import os
    import tempfile
    import tomllib

    text = policy.read_text("utf-8") if policy.exists() else ""
    try:
        known = tomllib.loads(text).get("keys", [])
    except tomllib.TOMLDecodeError as error:
        raise click.ClickException(f"{policy}: {error}") from None
    if any(key.get("name") == name for key in known):
        raise click.ClickException(f"{policy} has a key '{name}' already (take another name, or remove it there)")
    separator = "" if not text or text.endswith("\n\n") else "\n" if text.endswith("\n") else "\n\n"
    mode = policy.stat().st_mode & 0o777 if policy.exists() else 0o600
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=policy.parent, delete=False) as new:
        new.write(text + separator + entry)
        new.flush()
        os.fsync(new.fileno())
    Path(new.name).chmod(mode)
    os.replace(new.name, policy)
