"""``shitu doctor``: on an installation that is well, with everything wrong at once, and with libraries missing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from index_store import open_gallery
from service.doctor import configuration
from service.doctor.findings import Check, Finding, examine
from service.settings import Settings

from .conftest import Answer, Shitu


def findings(answer: Answer) -> dict[str, dict[str, Any]]:
    report = answer.json
    assert report["ok"] == (answer.code == 0)
    return {finding["check"]: finding for finding in report["checks"]}


def test_a_sound_installation_has_nothing_to_do(shitu: Shitu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHITU_PORT", "0")
    monkeypatch.setenv("SHITU_MIN_FREE_BYTES", "0")
    answer = shitu("doctor", "--data-dir", tmp_path / "new", "--json")
    found = findings(answer)
    assert answer.code == 0, [finding for finding in found.values() if finding["status"] == "fail"]
    assert {"python", "paddlepaddle", "faiss-cpu", "cpu", "settings", "api keys", "cores", "memory"} <= found.keys()
    assert {"port", "data folder", "file system", "catalog", "feature model", "detector", "inference"} <= found.keys()
    assert found["paddlepaddle"]["detail"] == "3.2.2"
    assert "bits" in found["feature model"]["detail"]
    assert " ms for a small picture" in found["inference"]["detail"]
    assert found["catalog"]["detail"].startswith("none yet")
    assert not (tmp_path / "new").exists()  # nothing is changed


def test_everything_that_is_wrong_is_told_at_once(
    shitu: Shitu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_gallery(tmp_path / "data", 64, fingerprint="x"), socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("SHITU_PORT", str(taken.getsockname()[1]))
        monkeypatch.setenv("SHITU_MIN_FREE_BYTES", str(2**62))
        monkeypatch.setenv("SHITU_HASHER_DIR", str(tmp_path / "no model"))
        monkeypatch.setenv("SHITU_CPU_THREADS", "1")
        answer = shitu("doctor", "--data-dir", tmp_path / "data", "--json")
    assert answer.code == 1
    found = findings(answer)
    assert {name for name, finding in found.items() if finding["status"] == "fail"} == {
        *("port", "free disk", "feature model")
    }
    assert found["owner of the folder"]["detail"].startswith(f"process {os.getpid()} uses it")
    assert "0 items of 64 bits, model x, Flat" in found["catalog"]["detail"]
    assert "another process listens" in found["port"]["detail"]
    assert str(tmp_path / "no model") in found["feature model"]["detail"]
    assert all(finding["remedy"] for finding in found.values() if finding["status"] in ("warn", "fail"))


def test_it_tells_how_things_stand_with_api_keys(shitu: Shitu, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    settings = Settings(api_keys_file=file)

    def found() -> list[Finding]:
        return [finding for finding in examine(configuration.checks(settings)) if finding.check == "api keys"]

    (closed,) = found()
    assert closed.status == "warn"
    assert "every request is refused" in closed.detail
    assert "shitu keys add" in closed.remedy
    shitu("keys", "add", "me", "--scope", "admin", "--file", file)
    assert found() == [Finding("api keys", "ok", f"1 in {file}")]
    file.chmod(0o666)
    (exposed,) = found()
    assert (exposed.status, exposed.remedy) == ("warn", f"chmod 600 {file}")
    file.write_text("me admin\nyou search sha256:0\n")
    assert [(each.status, str(file) in each.detail) for each in found()] == [("fail", True)] * 2


def test_every_mistake_in_the_settings_is_told(shitu: Shitu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHITU_TOPK", "3")
    monkeypatch.setenv("SHITU_PORT", "many")
    answer = shitu("doctor")
    assert answer.code == 1
    assert "did you mean SHITU_TOP_K?" in answer.out
    assert "SHITU_PORT" in answer.out
    assert "Python" not in answer.err


def doctor_with(modules: dict[str, str], tmp_path: Path) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Run it where these modules are other than they should be."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for name, source in modules.items():
        (broken / f"{name}.py").write_text(source)
    path = os.pathsep.join([str(broken), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "doctor", "--json", "--data-dir", tmp_path / "data"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"PYTHONPATH": path, "SHITU_PORT": "0"},
    )
    report = json.loads(done.stdout)
    return done.returncode, {finding["check"]: finding for finding in report["checks"]}, done.stderr


def test_a_library_that_cannot_be_imported_is_a_line(tmp_path: Path) -> None:
    code, found, said = doctor_with({"faiss": "raise ImportError('libgomp.so.1 is missing')"}, tmp_path)
    assert code == 1
    assert found["faiss-cpu"]["status"] == "fail"
    assert "libgomp.so.1" in found["faiss-cpu"]["detail"]
    assert found["settings"]["status"] == "skip"
    assert found["numpy"]["status"] == "ok"
    assert "Traceback" not in said


def test_a_library_that_crashes_is_a_line(tmp_path: Path) -> None:
    code, found, said = doctor_with({"paddle": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"}, tmp_path)
    assert code == 1
    assert found["models"]["status"] == "fail"
    assert "crashed" in found["models"]["detail"]
    assert found["catalog"]["status"] == "ok"
    assert "Traceback" not in said


def test_a_check_that_fails_hides_no_other() -> None:
    def broken() -> list[Finding]:
        raise RuntimeError("of the check")

    checks = [Check("one", broken), Check("two", lambda: [Finding("two", "ok", "well")])]
    first, second = examine(checks)
    assert (first.check, first.status) == ("one", "fail")
    assert "RuntimeError: of the check" in first.detail
    assert second == Finding("two", "ok", "well")
