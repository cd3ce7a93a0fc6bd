"""``shitu keys``: make, list and remove the API keys of a service, which reads its file again by itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .access import CommandError, Json
from .options import ConfigOption, JsonOption, load_settings

if TYPE_CHECKING:
    from service.security.keys import ApiKey

app = typer.Typer(
    no_args_is_help=True,
    help="Make, list and remove the API keys of a service. A running service sees the change within seconds.",
)

FileOption = Annotated[
    Path | None, typer.Option("--file", "-f", metavar="FILE", help="File of the keys (SHITU_API_KEYS_FILE).")
]


@app.command(
    epilog="Examples:  shitu keys add camera1 --scope search --rate 10   |   "
    "shitu keys add importer --scope gallery --scope search --file keys.txt"
)
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the key, such as who uses it.")],
    *,
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope",
            metavar="search|gallery|admin",
            help="What it opens: one or more, parted by commas or repeated. admin includes the others.",
            show_default=False,
        ),
    ],
    rate: Annotated[
        str | None, typer.Option("--rate", metavar="N|none", help="Requests a second, if other than the service's.")
    ] = None,
    burst: Annotated[
        str | None, typer.Option("--burst", metavar="N", help="Requests at once after a quiet time (2 s worth).")
    ] = None,
    concurrent: Annotated[
        str | None, typer.Option("--concurrent", metavar="N|none", help="Requests under way, if other.")
    ] = None,
    print_only: Annotated[
        bool, typer.Option("--print-only", help="Change no file; print the line for SHITU_API_KEYS beside the key.")
    ] = False,
    file: FileOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, this once: only its hash is stored.

    The key alone goes to standard output. The file is made if it is not there, for its owner alone; everything else in
    it stays as it is.
    """
    from service.errors import KeyFileError
    from service.security.key_file import add_key
    from service.security.key_lines import new_key, write_line
    from service.security.keys import digest_of, make_key

    from .output import print_error, print_json

    secret = make_key()
    given = {"rate": rate, "burst": burst, "concurrent": concurrent}
    limits = {each: text for each, text in given.items() if text is not None}
    try:
        key = new_key(name, scope, digest_of(secret), limits)
    except KeyFileError as error:
        raise typer.BadParameter(str(error)) from None
    facts: Json = {"name": name, "key": secret}
    if print_only:
        facts["line"] = write_line(key)
        what = f"line for SHITU_API_KEYS: {facts['line']}"
    else:
        path = _file(file, config, key)
        add_key(path, key)
        facts["file"] = str(path)
        what = f"added {name} to {path}; the key is not stored and cannot be shown again"
    if as_json:
        print_json(facts)
        return
    print(secret)
    print_error(what)


@app.command(name="list", epilog="Example:  shitu keys list --file keys.txt --json")
def list_keys(*, file: FileOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the names, scopes and own limits of the keys in the file."""
    from service.security.access import SCOPES
    from service.security.key_file import read_keys
    from service.security.valid_keys import HOW_TO_MAKE_ONE

    from .output import print_error, print_json, print_keys

    path = _file(file, config)
    rows: list[Json] = [
        {
            "name": key.name,
            "scopes": [scope for scope in SCOPES if scope in key.scopes],
            "rate": _shown(key.limits.rate),
            "burst": _shown(key.limits.burst),
            "concurrent": _shown(key.limits.concurrent),
        }
        for key in read_keys(path)
    ]
    if as_json:
        for row in rows:
            print_json(row)
    elif rows:
        print_keys(rows)
    else:
        print_error(f"there is no key in {path}: {HOW_TO_MAKE_ONE}")


@app.command(epilog="Example:  shitu keys remove camera1")
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key.")],
    *,
    file: FileOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key: the service refuses it from then on. Fails if there was none of this name."""
    from service.security.key_file import remove_key

    from .output import print_json

    path = _file(file, config)
    if not remove_key(path, name):
        raise CommandError(f"{path} has no key of this name: `shitu keys list` shows them")
    if as_json:
        print_json({"removed": name, "file": str(path)})
    else:
        print(f"removed {name} from {path}")


def _file(file: Path | None, config: Path | None, new: ApiKey | None = None) -> Path:
    """Give the file to work on; a ``new`` key must not have the name of one that is configured beside it.

    Raises:
        CommandError: none is named.
        KeyFileError: the name is taken.
    """
    from service.errors import KeyFileError
    from service.security.key_lines import Source, parse

    if file is not None:
        return file
    settings = load_settings(config)
    sources = settings.key_sources
    if sources.file is None:
        raise CommandError("which file? Give --file FILE, or set SHITU_API_KEYS_FILE as for the service")
    if new is not None and sources.lines is not None:
        beside = parse([Source.variable(sources.setting, sources.lines)])
        if any(key.name == new.name for key in beside):
            raise KeyFileError([f"the name {new.name} is there already, in {sources.setting}"])
    return sources.file


def _shown(limit: float | None) -> float | int | str | None:
    if limit is None:
        return None
    if math.isinf(limit):
        return "none"
    return int(limit) if limit == int(limit) else limit
