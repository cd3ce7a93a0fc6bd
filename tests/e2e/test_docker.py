"""The images and the compose file on a real engine: built, brought up, killed, stopped, upgraded, watched.

The tests of this module are one story and run in its order: each goes on with the project that the one before left.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from .engine import BUILD_FLAGS, ROOT, Log, Project, build, free_port, run

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

BASE = "python:3.11-slim-bookworm"
PROFILES = ("--profile", "monitoring", "--profile", "gpu")


def inside(image: str, script: str) -> str:
    return run("docker", "run", "--rm", "--entrypoint", "sh", image, "-c", script).stdout


def test_the_image_has_models_and_no_build_tools(image: str) -> None:
    assert inside(image, "id -u").strip() == "10001"
    assert inside(image, "for tool in gcc cc make; do command -v $tool; done; ls /opt/shitu/bin | grep pip; true") == ""
    assert inside(image, "find / -xdev -type f -perm /6000 2>/dev/null; true") == ""
    assert inside(
        image, "find /opt /data /keys /models /usr -xdev -writable -not -type l -prune 2>/dev/null"
    ).split() == [
        "/data",
        "/keys",
        "/models",
    ]
    listed = inside(image, "shitu models list")
    assert "hasher" in listed
    assert "detector" in listed


def test_the_compose_file_is_valid_for_every_compose(composes: Mapping[str, str], log: Log) -> None:
    for compose, version in composes.items():
        assert "shitu" in Project(compose, {})("config", "--services").stdout.split()
        everything = Project(compose, {})(*PROFILES, "config", "--services").stdout.split()
        assert sorted(everything) == ["grafana", "prometheus", "shitu", "shitu-gpu"]
        rendered = Project(compose, {})(*PROFILES, "config").stdout
        assert re.search(r"capabilities:\s+- gpu", rendered)
        log(f"{compose} {version}: parses, with and without profiles")


def test_the_gpu_image_asks_where_paddle_comes_from() -> None:
    """Of the GPU image only this can be built without NVIDIA's base image and Paddle's index."""
    refused = build("docker/Dockerfile.gpu", "shitu-hash:e2e-gpu", CUDA_IMAGE=BASE)
    assert refused.returncode != 0
    assert "PADDLE_INDEX" in refused.stdout + refused.stderr


def test_a_bare_up_is_ready_and_closed(project: Project, log: Log) -> None:
    project("up", "--detach")
    assert project.services == ["shitu"]
    log(f"up; ready {project.wait_until_ready():.1f} s after the container's start")
    with project.client as client:
        answer = client.get("/gallery")
        assert answer.status_code == 401
        assert "shitu keys add" in answer.json()["detail"]
        assert client.get("/metrics").status_code == 200
    assert project.inspect("{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}") == "true [ALL]"
    # Docker holds published ports open before it asks the firewall: only the address counts.
    assert project.inspect('{{(index (index .NetworkSettings.Ports "8000/tcp") 0).HostIp}}') == "127.0.0.1"


def test_the_container_becomes_healthy(project: Project, log: Log) -> None:
    deadline = time.monotonic() + 60
    while project.inspect("{{.State.Health.Status}}") != "healthy":
        assert time.monotonic() < deadline, project.inspect("{{json .State.Health}}")
        time.sleep(0.5)
    log("healthy")


def test_only_the_volumes_can_be_written(project: Project) -> None:
    tried = project(
        "exec", "-T", "shitu", "sh", "-c", "touch /opt/shitu/x; touch /etc/x; touch /x; touch /data/.probe /tmp/x"
    )
    assert tried.stderr.count("Read-only file system") == 3
    project("exec", "-T", "shitu", "rm", "/data/.probe")


def test_keys_open_it(project: Project, photos: Mapping[str, bytes], log: Log) -> None:
    project.key = project.make_key("operator", "admin")
    reader = project.make_key("reader", "search")
    with project.client as client:
        for name, photo in photos.items():
            answer = client.post("/gallery", files={"image": photo}, data={"label": name})
            assert answer.status_code == 201, answer.text
        found = client.post("/search", files={"image": photos["coffee"]}).json()
        assert found["objects"][0]["matches"][0]["label"] == "coffee"
        refused = client.post(
            "/gallery",
            files={"image": photos["coffee"]},
            data={"label": "no"},
            headers={"Authorization": f"Bearer {reader}"},
        )
        assert refused.status_code == 403
    log(f"{len(photos)} pictures enrolled and found with a key; a key without the scope is refused")


def test_doctor_finds_nothing_wrong_inside(project: Project, log: Log) -> None:
    examined = json.loads(project("exec", "-T", "shitu", "shitu", "doctor", "--json").stdout)
    failed = [check for check in examined["checks"] if check["status"] == "fail"]
    assert failed == []
    log(f"doctor: {len(examined['checks'])} checks, none fails")


def test_nothing_acknowledged_is_lost_to_sigkill(project: Project, log: Log) -> None:
    """Killed amid a stream of enrolments: each that was answered 201 is there afterwards."""
    acknowledged: list[str] = []
    enough = threading.Event()

    def enrol() -> None:
        with project.client as client:
            try:
                for number in range(100_000):
                    code = number.to_bytes(4, "big").rjust(64, b"\7").hex()
                    answer = client.post("/gallery", json={"code": code, "label": "stream", "id": f"s{number:06}"})
                    assert answer.status_code == 201, answer.text
                    acknowledged.append(f"s{number:06}")
                    if len(acknowledged) == 300:
                        enough.set()
            except httpx.TransportError:
                enough.set()

    stream = threading.Thread(target=enrol)
    stream.start()
    assert enough.wait(120)
    project("kill", "-s", "SIGKILL", "shitu")
    stream.join(60)
    assert project.inspect("{{.State.ExitCode}}") == "137"
    project("up", "--detach")
    seconds = project.wait_until_ready()
    with project.client as client:
        missing = [item for item in acknowledged if client.get(f"/gallery/{item}").status_code != 200]
        assert missing == []
        assert client.post("/search", json={"item_id": acknowledged[-1]}).json()["objects"][0]["matches"]
    log(f"killed while enrolling: all {len(acknowledged)} acknowledged items are there; ready again in {seconds:.1f} s")


def test_stop_finishes_and_exits_with_success(project: Project, photos: Mapping[str, bytes], log: Log) -> None:
    container = project.container
    start = time.monotonic()
    project("stop", "shitu")
    status = run("docker", "inspect", "--format", "{{.State.ExitCode}}", container).stdout.strip()
    assert status == "0"
    lines = project("logs", "--no-color", "shitu").stdout
    assert "shutting_down" in lines or "stopped" in lines
    log(f"stopped in {time.monotonic() - start:.1f} s with exit code 0")
    project("up", "--detach")
    project.wait_until_ready()
    with project.client as client:
        found = client.post("/search", files={"image": photos["chelsea"]}).json()
        assert found["objects"][0]["matches"][0]["label"] == "chelsea"


def test_every_line_of_the_log_is_json(project: Project) -> None:
    container = project.container
    done = run("docker", "logs", container)
    lines = (done.stdout + done.stderr).splitlines()
    assert len(lines) > 20
    assert all({"time", "level", "message"} <= json.loads(line).keys() for line in lines)


def test_an_upgrade_keeps_everything(project: Project, tmp_path: Path, photos: Mapping[str, bytes], log: Log) -> None:
    source = tmp_path / "next"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "output", "data"))
    project_file = source / "pyproject.toml"
    text = project_file.read_text("utf-8")
    project_file.write_text(re.sub(r'^version = ".*"$', 'version = "99.0.0"', text, flags=re.M), "utf-8")
    tag = f"{project.environment['SERVICE_IMAGE']}-next"
    start = time.monotonic()
    done = build("docker/Dockerfile", tag, source)
    assert done.returncode == 0, done.stdout + done.stderr
    log(f"the next version's image is built in {time.monotonic() - start:.0f} s")
    with project.client as client:
        before = client.get("/index").json()
    project.environment["SERVICE_IMAGE"] = tag
    project("up", "--detach")
    seconds = project.wait_until_ready()
    with project.client as client:
        assert client.get("/health").json()["version"] == "99.0.0"
        after = client.get("/index").json()
        assert (after["items"], after["model_fingerprint"]) == (before["items"], before["model_fingerprint"])
        found = client.post("/search", files={"image": photos["rocket"]}).json()
        assert found["objects"][0]["matches"][0]["label"] == "rocket"
    log(f"upgraded: {after['items']} items and the keys are there; ready in {seconds:.1f} s")


def test_a_backup_comes_back(project: Project, tmp_path: Path, log: Log) -> None:
    backup = tmp_path / "gallery.zip"
    with project.client as client:
        items = client.get("/index").json()["items"]
        backup.write_bytes(client.get("/backup").raise_for_status().content)
        client.post("/gallery/delete", json={"label": "stream"}).raise_for_status()
        assert client.get("/index").json()["items"] < items
    backup.chmod(0o644)  # the service's user reads it
    restore = ("gallery", "restore", "/gallery.zip", "--data-dir", "/data/restored")
    project("run", "-T", "--rm", "--no-deps", "--volume", f"{backup}:/gallery.zip:ro", "shitu", *restore)
    project("stop", "shitu")
    (swap,) = re.findall(r"^  '(cd /data && .*)'$", (ROOT / "docs/deployment.md").read_text("utf-8"), re.MULTILINE)
    project("run", "-T", "--rm", "--no-deps", "--entrypoint", "sh", "shitu", "-c", swap)
    project("up", "--detach")
    project.wait_until_ready()
    with project.client as client:
        assert client.get("/index").json()["items"] == items
    log(f"{items} items backed up, removed and restored")


def test_prometheus_scrapes_and_knows_every_query(project: Project, photos: Mapping[str, bytes], log: Log) -> None:
    """Prometheus from Debian, under the name and with the files, flags and limits of the compose file."""
    tag = f"{project.environment['SERVICE_IMAGE']}-prometheus"
    recipe = (
        f"FROM {BASE}\n"
        "RUN apt-get update && apt-get install --yes --no-install-recommends prometheus\n"
        "RUN mkdir -p /prometheus && chown 65534:65534 /prometheus\n"
        'USER 65534:65534\nENTRYPOINT ["prometheus"]\n'
    )
    run("docker", "build", *BUILD_FLAGS, "--tag", tag, "-", input=recipe)
    tests = "/tests/alerts_test.yml"
    mounts = ["-v", f"{ROOT}/docker/prometheus:/etc/prometheus:ro", "-v", f"{ROOT}/tests/e2e:/tests:ro"]
    for arguments in (["check", "config", "/etc/prometheus/prometheus.yml"], ["test", "rules", tests]):
        run("docker", "run", "--rm", *mounts, "--entrypoint", "promtool", tag, *arguments)
    port = free_port()
    given = {"PROMETHEUS_IMAGE": tag, "PROMETHEUS_ADDRESS": f"127.0.0.1:{port}"}
    project("--profile", "monitoring", "up", "--detach", "prometheus", **given)
    with project.client as client, httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=30) as prometheus:
        scraped = _until_scraped(client, prometheus, photos)
        assert scraped["health"] == "up", scraped
        log(f"Prometheus scrapes {scraped['scrapeUrl']}")
        queries = dashboard_queries()
        empty = [query for query in queries if not _result(prometheus, query)]
        # Without failures, refusals or label searches these have nothing to show; all others have.
        allowed = ("status!~", "rejected", "refused")
        assert [query for query in empty if not any(word in query for word in allowed)] == []
        rules = prometheus.get("/rules").json()["data"]["groups"][0]["rules"]
        assert len(rules) >= 9
        assert {rule["health"] for rule in rules} == {"ok"}
        assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []
    log(f"{len(queries)} queries of the dashboard answered, {len(rules)} alert rules evaluated")


def dashboard_queries() -> list[str]:
    """The dashboard's queries as Grafana sends them for all instances."""
    dashboard = json.loads((ROOT / "docker/grafana/dashboards/shitu.json").read_text("utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return [query.replace("$instance", ".*").replace("$__rate_interval", "1m") for query in queries]


def _result(prometheus: httpx.Client, query: str) -> list[object]:
    answer = prometheus.get("/query", params={"query": query})
    assert answer.status_code == 200, f"{query}: {answer.text}"
    result: list[object] = answer.json()["data"]["result"]
    return result


def _until_scraped(client: httpx.Client, prometheus: httpx.Client, photos: Mapping[str, bytes]) -> dict[str, str]:
    """Search on until Prometheus has scraped often enough for rates, and its rules have been evaluated."""
    targets: list[dict[str, str]] = []
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        client.post("/search", files={"image": photos["coffee"]})
        client.get("/gallery", headers={"Authorization": "Bearer wrong"})
        try:
            targets = prometheus.get("/targets").json()["data"]["activeTargets"]
            counted = _result(prometheus, 'count_over_time(up{job="shitu"}[10m])')
            rules = prometheus.get("/rules").json()["data"]["groups"][0]["rules"]
        except httpx.TransportError:
            time.sleep(0.5)
            continue
        evaluated = all(rule["health"] == "ok" for rule in rules)
        if evaluated and counted and float(counted[0]["value"][1]) >= 4:  # type: ignore[index]
            scraped: dict[str, str] = targets[0]
            return scraped
        time.sleep(0.5)
    raise AssertionError(f"Prometheus has not scraped four times within three minutes: {targets}")
