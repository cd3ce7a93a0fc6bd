"""Keys that come and go while the service runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.errors import KeyFileError
from service.security.key_file import add_key, read_keys, remove_key
from service.security.key_lines import new_key
from service.security.keys import digest_of, make_key
from service.security.valid_keys import KeySources, ValidKeys

from ..conftest import Issue, Issued


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def status(server: Any, key: Issued) -> int:
    return int(server.client.get("/index", headers=key.headers).status_code)


def test_a_service_whose_file_is_not_there_yet_is_closed_until_it_is(
    serve: Any, issue: Issue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, key = tmp_path / "keys.txt", issue("first", "admin")
    with serve(tmp_path / "data", api_keys_file=path) as server:
        assert any(
            record.levelname == "ERROR" and "shitu keys add NAME --scope admin" in record.getMessage()
            for record in caplog.records
        )
        for headers in ({}, key.headers):
            answer = server.client.get("/index", headers=headers)
            assert answer.status_code == 401
            assert "shitu keys add NAME --scope admin" in answer.json()["detail"]
        assert server.client.get("/readyz").status_code == 200
        path.write_text(key.line, encoding="utf-8")
        wait_for(lambda: status(server, key) == 200)  # without being told
        path.unlink()
        server.app.state.keys.reload_soon()
        wait_for(lambda: status(server, key) == 401)


def test_keys_are_added_and_revoked_without_a_restart(
    serve: Any, issue: Issue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, first, second = tmp_path / "keys.txt", issue("first", "search"), issue("second", "search")
    beside = issue("beside", "search")
    path.write_text(first.line, encoding="utf-8")
    caplog.set_level(logging.INFO, "shitu.keys")
    with serve(tmp_path / "data", api_keys_file=path, api_keys=beside.line) as server:
        assert [status(server, key) for key in (first, second, beside)] == [200, 401, 200]
        path.write_text(f"{first.line}\n{second.line}\n", encoding="utf-8")
        server.app.state.keys.reload_soon()
        wait_for(lambda: status(server, second) == 200)
        path.write_text(second.line + " rate=1000", encoding="utf-8")
        server.app.state.keys.reload_soon()
        wait_for(lambda: status(server, first) == 401)
        assert [status(server, key) for key in (first, second, beside)] == [401, 200, 200]
    assert "API keys read again; added: second; changed: none; removed: none" in caplog.text
    assert "API keys read again; added: none; changed: second; removed: first" in caplog.text


def test_a_file_with_mistakes_keeps_the_former_keys(
    serve: Any, issue: Issue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, first, second = tmp_path / "keys.txt", issue("first", "search"), issue("second", "search")
    path.write_text(first.line, encoding="utf-8")
    with serve(tmp_path / "data", api_keys_file=path) as server:
        for mistake in (f"{second.line}\nrubbish", f"{second.line}\nfirst {second.line.partition('  ')[2]}"):
            caplog.clear()
            path.write_text(mistake, encoding="utf-8")
            server.app.state.keys.reload_soon()
            wait_for(lambda: f"{path}:2: " in caplog.text)
            assert "the former ones stay valid" in caplog.text
            assert [status(server, key) for key in (first, second)] == [200, 401]
        path.unlink()
        path.mkdir()
        server.app.state.keys.reload_soon()
        wait_for(lambda: f"{path}: is not a regular file" in caplog.text)
        assert [status(server, key) for key in (first, second)] == [200, 401]
        path.rmdir()
        path.write_text(second.line, encoding="utf-8")
        server.app.state.keys.reload_soon()
        wait_for(lambda: status(server, second) == 200)
        assert server.client.get("/readyz").status_code == 200


def test_a_service_does_not_start_with_mistakes(serve: Any, failed_start: Any, tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("a search\nb\n", encoding="utf-8")
    with pytest.raises(failed_start) as caught, serve(tmp_path / "data", api_keys_file=path, api_keys="c;d"):
        pass
    error = caught.value.__cause__
    assert isinstance(error, KeyFileError)
    places = [problem.partition(": ")[0] for problem in error.problems]
    assert places == [f"{path}:1", f"{path}:2", "SHITU_API_KEYS:1", "SHITU_API_KEYS:2"]
    assert not (tmp_path / "data").exists()


def test_no_key_is_valid_before_they_were_read(issue: Issue) -> None:
    key = issue("a", "admin")
    keys = ValidKeys(KeySources(lines=key.line))
    assert keys.required
    assert keys.find(key.secret) is None
    keys.load("127.0.0.1")
    found = keys.find(key.secret)
    assert found is not None
    assert found.name == "a"


def test_no_hash_is_shown_by_what_holds_keys(issue: Issue, tmp_path: Path) -> None:
    key = issue("a", "admin")
    (tmp_path / "keys.txt").write_text(key.line, encoding="utf-8")
    sources = KeySources(tmp_path / "keys.txt", key.line)
    assert key.line[-20:] not in repr((sources, sources.read_file(), list(read_keys(tmp_path / "keys.txt"))))


def test_nothing_to_reload_is_no_harm(server: Any) -> None:
    server.app.state.keys.reload_soon()
    assert server.client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("mode", "says"),
    [(0o600, None), (0o640, None), (0o644, "read by everybody"), (0o660, "can be changed"), (0o602, "can be changed")],
)
def test_a_file_that_others_can_use_is_warned_of(
    issue: Issue, tmp_path: Path, mode: int, says: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(issue("a", "admin").line, encoding="utf-8")
    path.chmod(mode)
    ValidKeys(KeySources(path)).load("127.0.0.1")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [says in warning for warning in warnings] == ([] if says is None else [True])


# Changing the file


def add(path: Path, name: str) -> None:
    add_key(path, new_key(name, ["search"], digest_of(make_key()), {}))


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    add(path, "a")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["keys.txt"]


def test_everything_else_in_a_file_stays(tmp_path: Path, issue: Issue) -> None:
    path = tmp_path / "keys.txt"
    comment = b"# caf\xe9 \xe2\x80\xa8 b  # and\r\n\n"
    line = issue("kept", "search").line.encode() + b"   # by the door"
    path.write_bytes(comment + line)
    path.chmod(0o646)
    add(path, "b")
    assert path.read_bytes().startswith(comment + line + b"\nb  search  sha256:")
    assert path.stat().st_mode & 0o777 == 0o640
    assert remove_key(path, "b")
    assert path.read_bytes() == comment + line + b"\n"
    assert not remove_key(path, "b")
    assert [key.name for key in read_keys(path)] == ["kept"]


def test_the_file_behind_a_link_is_changed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    path = tmp_path / "keys.txt"
    path.symlink_to(tmp_path / "real" / "keys.txt")
    add(path, "a")
    assert path.is_symlink()
    assert [key.name for key in read_keys(tmp_path / "real" / "keys.txt")] == ["a"]


def test_a_name_that_is_there_is_refused_and_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    add(path, "a")
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="the name a is there already"):
        add(path, "a")
    assert path.read_bytes() == before
