"""``shitu keys``, and the key that commands send to a server."""

from __future__ import annotations

import http.server
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import typer

from service.cli import app
from service.security.key_file import add_key, read_keys, remove_key
from service.security.key_lines import Source, new_key, parse
from service.security.keys import digest_of, is_key, make_key

from .conftest import Draw, Server, Shitu


def test_a_key_is_made_shown_once_listed_and_removed(shitu: Shitu, tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    made = shitu.ok("keys", "add", "camera1", "--scope", "search", "--scope", "gallery", "--rate", "0.5", "-f", path)
    secret = made.out.strip()
    assert is_key(secret)
    assert secret not in made.err
    assert str(path) in made.err
    (key,) = read_keys(path)
    assert (key.name, key.scopes, key.digest) == ("camera1", {"search", "gallery"}, digest_of(secret))
    assert secret not in path.read_text()

    shitu.ok("keys", "add", "boss", "--scope", "admin", "--burst", "9", "--concurrent", "none", "--file", path)
    listed = shitu.ok("keys", "list", "--file", path)
    assert "sha256" not in listed.out
    assert key.digest.hex() not in listed.out
    assert listed.out.splitlines()[1].split() == ["camera1", "search,", "gallery", "0.5"]
    assert shitu.ok("keys", "list", "-f", path, "--json").json_lines == [
        {"name": "camera1", "scopes": ["search", "gallery"], "rate": 0.5, "burst": None, "concurrent": None},
        {"name": "boss", "scopes": ["admin"], "rate": None, "burst": 9, "concurrent": "none"},
    ]

    shitu.ok("keys", "remove", "camera1", "--file", path)
    assert [key.name for key in read_keys(path)] == ["boss"]
    again = shitu("keys", "remove", "camera1", "--file", path)
    assert (again.code, again.out) == (1, "")
    assert "shitu keys list" in again.err


def test_scopes_may_be_parted_by_commas_as_in_the_file(shitu: Shitu) -> None:
    facts = shitu.ok("keys", "add", "till", "--scope", "gallery,search", "--print-only", "--json").json
    assert facts["line"].split()[:2] == ["till", "search,gallery"]


def test_a_file_without_keys_is_named(shitu: Shitu, tmp_path: Path) -> None:
    listed = shitu.ok("keys", "list", "--file", tmp_path / "typo")
    assert listed.out == ""
    assert str(tmp_path / "typo") in listed.err
    assert shitu.ok("keys", "list", "--file", tmp_path / "typo", "--json").out == ""


def test_a_key_for_the_variable_changes_no_file(shitu: Shitu) -> None:
    facts = shitu.ok("keys", "add", "boss", "--scope", "admin", "--print-only", "--json").json
    (key,) = parse([Source.variable("SHITU_API_KEYS", facts["line"])])
    assert key.digest == digest_of(facts["key"])
    people = shitu.ok("keys", "add", "boss", "--scope", "admin", "--print-only")
    assert is_key(people.out.strip())
    assert "sha256:" in people.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("a", "--scope", "root"),
        ("a/b", "--scope", "admin"),
        ("a", "--scope", "admin", "--rate", "fast"),
        ("a", "--scope", "admin", "--rate", "0"),
        ("a", "--scope", "admin", "--burst", "none"),
        ("a", "--scope", "admin", "--concurrent", "1.5"),
        ("a",),
    ],
)
def test_what_no_line_can_say_is_wrong_usage(shitu: Shitu, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    path = tmp_path / "keys.txt"
    assert shitu("keys", "add", *arguments, "--file", path).code == 2
    assert not path.exists()


def test_the_configured_file_is_taken(shitu: Shitu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unnamed = shitu("keys", "list")
    assert unnamed.code == 1
    assert "--file" in unnamed.err
    path = tmp_path / "keys.txt"
    monkeypatch.setenv("SHITU_API_KEYS_FILE", str(path))
    line = shitu.ok("keys", "add", "taken", "--scope", "admin", "--print-only", "--json").json["line"]
    monkeypatch.setenv("SHITU_API_KEYS", line)
    refused = shitu("keys", "add", "taken", "--scope", "search")
    assert refused.code == 1
    assert "SHITU_API_KEYS" in refused.err
    assert not path.exists()
    shitu.ok("keys", "add", "free", "--scope", "search")
    assert [row["name"] for row in shitu.ok("keys", "list", "--json").json_lines] == ["free"]


def test_a_file_with_mistakes_is_not_changed(shitu: Shitu, tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    line = shitu.ok("keys", "add", "good", "--scope", "admin", "--print-only", "--json").json["line"]
    text = f"{line}\nrubbish\n"
    path.write_text(text, encoding="utf-8")
    for command in (("add", "a", "--scope", "admin"), ("remove", "good")):
        refused = shitu("keys", *command, "--file", path)
        assert (refused.code, refused.out) == (1, "")
        assert f"{path}:2: " in refused.err
        assert path.read_text(encoding="utf-8") == text


def test_keys_that_are_made_at_the_same_time_are_all_kept(shitu: Shitu, tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    together = threading.Barrier(8)

    def change(number: int) -> None:
        together.wait()
        for round_ in range(4):
            add_key(path, new_key(f"{number}-{round_}", ["search"], digest_of(make_key()), {}))
        remove_key(path, f"{number}-0")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(change, range(8)))
    assert {key.name for key in read_keys(path)} == {
        f"{number}-{round_}" for number in range(8) for round_ in (1, 2, 3)
    }


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_service_follows_its_file_and_the_commands_send_their_key(
    start_server: Callable[..., Server], shitu: Shitu, draw: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.txt"
    server = start_server("--data-dir", tmp_path / "data", environment={"SHITU_API_KEYS_FILE": str(path)})
    url = server.url()
    assert any("every request is refused" in line and str(path) in line for line in server.log)
    closed = shitu("gallery", "list", "--server", url)
    assert closed.code == 1
    assert "shitu keys add NAME --scope admin" in closed.err

    searcher, curator = (
        shitu.ok("keys", "add", scope, "--scope", scope, "--file", path).out.strip() for scope in ("search", "gallery")
    )
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: shitu("gallery", "info", "--server", url, "--api-key", curator).code == 0)

    picture = draw(f"{tmp_path}/a.png", 1)
    shitu.ok("gallery", "add", picture, "--label", "a", "--id", "a", "--server", url, "--api-key", curator)
    monkeypatch.setenv("SHITU_API_KEY", searcher)
    found = shitu.ok("search", picture, "--server", url, "--json").json
    assert found["objects"][0]["matches"][0]["id"] == "a"

    refused = shitu("gallery", "list", "--server", url)
    assert refused.code == 1
    assert "gallery" in refused.err
    assert "--api-key" in refused.err
    assert searcher not in refused.err
    wrong = make_key()
    refused = shitu("search", picture, "--server", url, "--api-key", wrong)
    assert refused.code == 1
    assert "--api-key or SHITU_API_KEY" in refused.err
    assert wrong not in refused.err

    shitu.ok("keys", "remove", "search", "--file", path)
    wait_for(lambda: shitu("search", picture, "--server", url).code == 1)
    assert server.stop() == 0
    log = "".join(server.log)
    assert not any(secret in log for secret in (searcher, curator, wrong))
    assert "Traceback" not in log


def test_a_hangup_does_not_end_a_service_without_keys(start_server: Callable[..., Server], tmp_path: Path) -> None:
    server = start_server("--data-dir", tmp_path / "data")
    url = server.url()
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: any("no file of API keys is watched" in line for line in server.log))
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert server.stop() == 0


@contextmanager
def redirecting(target: str) -> Iterator[tuple[str, list[str]]]:
    """A server on all addresses that sends everybody to ``target``; its URL, and the keys that came."""
    came: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            came.append(self.headers.get("Authorization", ""))
            self.send_response(307)
            self.send_header("Location", f"{target}{self.path}")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://0.0.0.0:{server.server_port}", came
        finally:
            server.shutdown()
            thread.join()


def test_a_redirect_does_not_take_the_key_along(shitu: Shitu) -> None:
    secret = make_key()
    with redirecting("http://127.0.0.1:9") as (other, never), redirecting(other) as (url, came):
        answer = shitu("gallery", "list", "--server", url, "--api-key", secret)
    assert answer.code == 1
    assert "307" in answer.err
    assert (came, never) == ([f"Bearer {secret}"], [])
    assert "unencrypted" in answer.err  # 0.0.0.0 is no loopback address
    assert secret not in answer.err


@pytest.mark.parametrize("given", ["with blank", "line\nend", "ümlaut"])
def test_what_cannot_be_a_key_is_refused_and_not_repeated(shitu: Shitu, given: str) -> None:
    answer = shitu("gallery", "list", "--server", "http://127.0.0.1:9", "--api-key", given)
    assert answer.code == 1
    assert "is no API key" in answer.err
    assert given not in answer.err


def test_every_command_for_a_server_takes_a_key(shitu: Shitu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHITU_API_KEY", "shitu_of_the_environment")
    pages = []
    for group in ([], ["gallery"]):
        commands = typer.main.get_command(app)
        for name in group:
            commands = commands.commands[name]  # type: ignore[attr-defined]
        for name, command in commands.commands.items():  # type: ignore[attr-defined]
            options = {option for parameter in command.params for option in parameter.opts}
            assert ("--server" in options) == ("--api-key" in options), name
            if "--server" in options:
                pages.append(shitu.ok(*group, name, "--help").out)
    assert len(pages) >= 8
    assert not any("shitu_of_the_environment" in page for page in pages)
    assert all("SHITU_API_KEY" in page for page in pages)
