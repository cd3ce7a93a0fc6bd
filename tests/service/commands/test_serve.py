"""``shitu serve``: starting, what it says, stopping, and fatal errors in one line."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from .conftest import Draw, Server, Shitu

Start = Callable[..., Server]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_when_it_is_ready_and_ends_well_on_a_signal(start_server: Start, tmp_path: Path, number: int) -> None:
    server = start_server("--data-dir", tmp_path / "data", "--detector-dir", "")
    url = server.url()
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert server.stop(number) == 0
    log = "".join(server.log)
    assert "one worker" in log
    assert "no API keys are configured" in log
    assert "Traceback" not in log


def test_keys_without_effect_are_in_its_log(start_server: Start, tmp_path: Path) -> None:
    config = tmp_path / "ppshitu.yaml"
    config.write_text(
        f"Global:\n  ir_optim: True\n  det_inference_model_dir:\nIndexProcess:\n  index_dir: {tmp_path}/d\n"
    )
    server = start_server("--config", config)
    server.url()
    assert server.stop() == 0
    assert any(f"{config}:2: Global.ir_optim: has no effect" in line for line in server.log)
    assert not any("faiss.loader" in line for line in server.log)
    assert (tmp_path / "d").is_dir()


def test_what_was_stored_is_there_after_a_restart(
    start_server: Start, shitu: Shitu, draw: Draw, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    server = start_server("--data-dir", folder, "--detector-dir", "")
    url = server.url()
    shitu.ok("gallery", "add", draw(f"{tmp_path}/a.png", 1), "--label", "a", "--id", "a", "--server", url)
    assert server.stop() == 0
    assert [item["id"] for item in shitu.ok("gallery", "list", "-d", folder, "--json").json_lines] == ["a"]


def test_a_folder_that_a_server_owns_is_refused_with_a_hint(start_server: Start, shitu: Shitu, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    url = start_server("--data-dir", folder, "--detector-dir", "").url()
    answer = shitu("gallery", "list", "--data-dir", folder)
    assert answer.code == 1
    assert "--server" in answer.err
    shitu.ok("gallery", "list", "--server", url)
    second = start_server("--data-dir", folder, "--detector-dir", "")
    assert second.process.wait(60) == 1
    second.stop()
    assert "Traceback" not in "".join(second.log)
    assert any(line.startswith("shitu: ") and str(folder) in line for line in second.log)


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(start_server: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start_server("--port", port, "--data-dir", tmp_path / "data")
        assert server.process.wait(60) == 1
        server.stop()
    assert not (tmp_path / "data").exists()
    (line,) = [line for line in server.log if line.startswith("shitu: ")]
    assert f"cannot listen on 127.0.0.1 port {port}: another process listens there" in line
    assert "Traceback" not in "".join(server.log)


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "says"),
    [
        (["--hasher-dir", "nowhere"], {}, 1, "nowhere"),
        (["--detector-dir", "nowhere"], {}, 1, "nowhere"),
        ([], {"SHITU_EXPECTED_BITS": "8"}, 1, "expects 8"),
        ([], {"SHITU_HAMMING_RADIUS": "100000"}, 1, "larger than"),
        (["--host", "no.such.host.invalid"], {}, 1, "no.such.host.invalid"),
        ([], {"SHITU_TOPK": "3"}, 2, "SHITU_TOP_K"),
        (["--device", "tpu"], {}, 2, "tpu"),
    ],
)
def test_fatal_errors_are_one_line_without_a_traceback(
    start_server: Start, tmp_path: Path, arguments: list[str], environment: dict[str, str], code: int, says: str
) -> None:
    server = start_server("--data-dir", tmp_path / "data", *arguments, environment=environment)
    assert server.process.wait(60) == code
    server.stop()
    (line,) = [line for line in server.log if line.startswith("shitu: ")]
    assert says in line
    assert "Traceback" not in "".join(server.log)
