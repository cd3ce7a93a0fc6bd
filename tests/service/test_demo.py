"""``python -m service.demo`` as its user runs it: the real service, the bundled model, real signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from rich.console import Console

from service.demo.report import findings_table, sum_up
from service.demo.server import ServiceFailed, ServiceProcess
from service.demo.tour import Finding


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


class Demo:
    """A running demonstration whose temporary folder lies in a folder of the test."""

    def __init__(self, scratch: Path, log: Path, *arguments: str, **settings: str) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service.demo", *arguments],
                env={**os.environ, "TMPDIR": str(scratch), "SHITU_CPU_THREADS": "1", **settings},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self) -> str:
        return self._log.read_text()

    def wait_for(self, pattern: str, timeout_s: float = 120) -> re.Match[str]:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if found := re.search(pattern, self.text):
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise AssertionError(f"{pattern!r} did not appear (exit code {self.process.poll()}):\n{self.text}")

    def service_pids(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children]


@pytest.fixture
def demos() -> Iterator[list[Demo]]:
    running: list[Demo] = []
    yield running
    for demo in running:
        if demo.process.poll() is None:
            demo.process.terminate()
            demo.process.wait(30)


def test_it_enrols_searches_tells_and_leaves_nothing_behind(scratch: Path, tmp_path: Path, demos: list[Demo]) -> None:
    demo = Demo(scratch, tmp_path / "log", "--exit", "--picture", str(tmp_path / "found.jpg"))
    demos.append(demo)
    assert demo.process.wait(180) == 0, demo.text
    text = " ".join(demo.text.split())
    enrolled = re.search(r"Enrolled (\d+) pictures of (\d+) products", text)
    assert enrolled is not None
    assert int(enrolled[2]) >= 24
    right = re.search(r"(\d+) of (\d+) searches found the right product", text)
    assert right is not None
    assert int(right[1]) >= 0.8 * int(right[2])
    assert "Hamming distance" in text
    assert "\x1b" not in demo.text  # no terminal, no colour
    assert list(scratch.iterdir()) == []
    with Image.open(tmp_path / "found.jpg") as picture:
        assert picture.size[0] > 1000


def test_it_stays_up_until_interrupted(scratch: Path, tmp_path: Path, demos: list[Demo]) -> None:
    demo = Demo(scratch, tmp_path / "log", COLUMNS="60")
    demos.append(demo)
    url = demo.wait_for(r"The service stays up at (http://127\.0\.0\.1:\d+)")[1]
    demo.wait_for("Ctrl-C stops it")
    example = re.search(rf"curl -F image=@(\S+) -F top_k=3 {url}/search", demo.text)
    assert example is not None, "the example must be on one line, to be copied"
    (service,) = demo.service_pids()
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        assert client.get("/docs").status_code == 200
        picture = Path(example[1]).read_bytes()
        answer = client.post("/search", files={"image": picture}, data={"top_k": "3"}).raise_for_status().json()
    assert answer["index_items"] >= 24
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(60) == 0, demo.text
    assert not Path(f"/proc/{service}").exists()
    assert list(scratch.iterdir()) == []


def test_a_terminated_demo_takes_its_service_along(scratch: Path, tmp_path: Path, demos: list[Demo]) -> None:
    demo = Demo(scratch, tmp_path / "log")
    demos.append(demo)
    demo.wait_for("Starting the service")
    (service,) = demo.service_pids()
    demo.process.terminate()
    assert demo.process.wait(60) == 130
    assert "Interrupted" in demo.text
    assert not Path(f"/proc/{service}").exists()
    assert list(scratch.iterdir()) == []


def test_a_model_that_is_not_there_is_named(scratch: Path, tmp_path: Path, demos: list[Demo]) -> None:
    demo = Demo(scratch, tmp_path / "log", "--exit", SHITU_HASHER_DIR="/no/such/model")
    demos.append(demo)
    assert demo.process.wait(120) == 1
    assert "The demo failed" in demo.text
    assert "/no/such/model" in demo.text
    assert "Traceback" not in demo.text
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
def test_a_service_that_dies_ends_the_demo_as_failed(scratch: Path, tmp_path: Path, demos: list[Demo]) -> None:
    demo = Demo(scratch, tmp_path / "log")
    demos.append(demo)
    demo.wait_for("Ctrl-C stops it")
    (service,) = demo.service_pids()
    os.kill(service, signal.SIGKILL)
    assert demo.process.wait(30) == 1
    assert "ended by itself with exit code -9" in demo.text
    assert list(scratch.iterdir()) == []


def test_settings_of_the_caller_do_not_reach_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHITU_DATA_DIR", str(tmp_path / "precious"))
    monkeypatch.setenv("SHITU_TOP_K", "0")  # would not even start
    with ServiceProcess(tmp_path / "data", tmp_path / "log", {"SHITU_CPU_THREADS": "1"}) as service:
        service.wait_until_ready()
        assert httpx.get(f"{service.url}/index", trust_env=False).json()["items"] == 0
        assert service.stop() == 0
    assert (tmp_path / "data").is_dir()
    assert not (tmp_path / "precious").exists()


def test_a_service_that_cannot_start_says_why(tmp_path: Path) -> None:
    blocked = tmp_path / "data"
    blocked.write_text("a file, not a folder")
    with (
        ServiceProcess(blocked, tmp_path / "log") as service,
        pytest.raises(ServiceFailed, match="ended with exit code 1") as e,
    ):
        service.wait_until_ready()
    assert str(blocked) in str(e.value)


def _told(findings: list[Finding]) -> tuple[bool, str]:
    console = Console(record=True, width=100, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(findings_table("A test", findings))
        enough = sum_up(console, findings)
        return enough, console.export_text()


def test_the_report_shows_every_mistake_and_judges_the_whole() -> None:
    right = [Finding(f"pack {n}", f"pack {n}", n, 5.0) for n in range(30)]
    wrong = [Finding("[red]cola[/]", "soap", 99, 5.0), Finding("tea", None, None, 5.0)]
    enough, text = _told(right + wrong)
    assert enough
    assert "30 of 32 right" in text
    assert "[red]cola[/]" in text  # a label is no markup
    assert "nothing" in text
    assert "18 more right ones are not shown" in text
    enough, text = _told(right[:2] + wrong)
    assert not enough
    assert "Fewer than 70%" in text
