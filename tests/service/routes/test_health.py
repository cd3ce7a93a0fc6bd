"""Probes, the summary, metrics and request ids over HTTP."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

REQUESTS = "shitu_http_requests_total"


def test_a_running_service_is_alive_and_ready_although_empty(server: Any) -> None:
    assert server.client.get("/livez").json() == {"status": "alive"}
    ready = server.client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["status"] == "ready"
    assert set(ready.json()["checks"].values()) == {"ok"}


def test_readiness_runs_the_models(serve: Any, tmp_path: Path, detector_dir: Path) -> None:
    with serve(tmp_path, detector_dir=detector_dir) as server:
        runtime = server.app.state.runtime
        seen: list[str] = []
        vision = runtime.inference
        original = vision.run

        async def noting(job: Any, **options: Any) -> Any:
            result = await original(job, **options)
            seen.append(f"{job.__qualname__}: {result}")
            return result

        vision.run = noting
        assert server.client.get("/readyz").status_code == 200
        assert seen == ["Canary.run: True"]


def test_inference_that_has_ended_is_not_ready(serve: Any, tmp_path: Path, photo_files: dict[str, bytes]) -> None:
    with serve(tmp_path) as server:
        server.app.state.runtime.inference.close(5)
        answer = server.client.get("/readyz")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "inference_failed"
        assert answer.json()["checks"]["storage"] == "ok"
        assert server.client.get("/livez").status_code == 200
        refused = server.client.post("/search", files={"image": photo_files["coffee"]})
        assert (refused.status_code, refused.json()["code"]) == (503, "shutting_down")


def test_a_store_that_has_ended_is_not_ready(serve: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serve(tmp_path) as server:
        assert server.metric("shitu_ready") == 1
        server.app.state.runtime.store.close()
        answer = server.client.get("/readyz")
        assert server.metric("shitu_ready") == 0
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
        assert server.client.get("/gallery").status_code == 503
        time.sleep(1)  # asked anew after a second, and not logged again
        assert server.client.get("/readyz").status_code == 503
    logged = [record.getMessage() for record in caplog.records if record.name == "shitu.readiness"]
    assert len(logged) == 1
    assert logged[0].startswith("the check storage fails: storage_unavailable: ")


def test_a_background_task_that_dies_is_not_ready(serve: Any, tmp_path: Path) -> None:
    # A folder in the place of a kept picture: the sweep at the start cannot remove it.
    stray = tmp_path / "images" / "00" / ("00" * 32)
    stray.mkdir(parents=True)
    with serve(tmp_path) as server:
        deadline = time.monotonic() + 10
        while (answer := server.client.get("/readyz")).status_code == 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert (answer.status_code, answer.json()["code"]) == (503, "background_failed")
        assert "picture sweep" in answer.json()["detail"]
        assert server.client.get("/health").json()["status"] == "not_ready"
        assert server.client.get("/gallery").status_code == 200


def test_the_summary_tells_what_runs(server: Any) -> None:
    summary = server.client.get("/health").json()
    assert summary["status"] == "ready"
    assert summary["hasher"].startswith("hasher ")
    assert summary["detector"] is None
    assert summary["index"] == server.client.get("/index").json()
    assert summary["limits"]["max_upload_bytes"] == server.settings.max_upload_bytes
    assert 0 <= summary["hamming_radius"] <= server.bits


def test_metrics_can_be_parsed_and_count(server: Any, photo_files: dict[str, bytes]) -> None:
    def sample(name: str, **labels: str) -> float:
        families = text_string_to_metric_families(server.client.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())

    before = {status: sample(REQUESTS, route="/search", status=status) for status in ("200", "415")}
    stages = {
        stage: sample("shitu_stage_duration_seconds_count", stage=stage) for stage in ("decode", "hash", "search")
    }
    persisted = sample("shitu_stage_duration_seconds_count", stage="persist")
    near = sample("shitu_search_top1_distance_ratio_bucket", le="0.01")

    item = server.enrol(photo_files["coffee"], "coffee")
    server.search(photo_files["coffee"])
    server.search_json(item_id=item["id"])
    server.client.post("/search", files={"image": b"text"})
    server.client.get(f"/gallery/{item['id']}")
    server.client.get("/no/such/path")

    assert sample(REQUESTS, route="/search", status="200") == before["200"] + 2
    assert sample(REQUESTS, route="/search", status="415") == before["415"] + 1
    assert sample(REQUESTS, route="/gallery/{id}", method="GET", status="200") == 1
    assert sample(REQUESTS, route="unmatched", status="404") == 1
    assert sample("shitu_http_request_duration_seconds_count", route="/search", status="200") == before["200"] + 2
    assert sample("shitu_stage_duration_seconds_count", stage="decode") == stages["decode"] + 2
    assert sample("shitu_stage_duration_seconds_count", stage="hash") == stages["hash"] + 2
    assert sample("shitu_stage_duration_seconds_count", stage="search") == stages["search"] + 2
    assert sample("shitu_stage_duration_seconds_count", stage="persist") == persisted + 1
    assert sample("shitu_search_top1_distance_ratio_bucket", le="0.01") == near + 2
    assert sample("shitu_gallery_items") == server.count()
    assert sample("shitu_index_bytes") == server.client.get("/index").json()["bytes"] > 0
    assert sample("shitu_index_recent_items") == 0
    assert sample("shitu_index_build_progress_ratio") == 1
    assert sample("shitu_build_info", bits=str(server.bits)) == 1


def test_routes_that_nobody_knows_share_one_label(server: Any) -> None:
    for number in range(20):
        server.client.get(f"/made/up/{number}")
        server.client.request(f"METHOD{number}", "/search")
    text = server.client.get("/metrics").text
    assert "/made/up" not in text
    assert "METHOD1" not in text


def test_two_services_in_one_process_count_apart(server: Any, serve: Any, tmp_path: Path) -> None:
    with serve(tmp_path) as other:
        other.client.get("/gallery")
        assert other.metric(f'{REQUESTS}{{method="GET",route="/gallery",status="200"}}') == 1
        assert server.metric(f'{REQUESTS}{{method="GET",route="/gallery",status="200"}}') == 0


@pytest.mark.parametrize("path", ["/livez", "/nope", "/gallery/nobody"])
def test_a_request_id_is_made_or_taken_over(server: Any, path: str) -> None:
    made = [server.client.get(path).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in made)
    assert server.client.get(path, headers={"X-Request-ID": "my-id_1.2"}).headers["x-request-id"] == "my-id_1.2"


@pytest.mark.parametrize("request_id", ["", "a b", "x" * 129, 'quote"', "<script>"])
def test_a_request_id_that_could_do_harm_is_replaced(server: Any, request_id: str) -> None:
    answer: httpx.Response = server.client.get("/nope", headers={"X-Request-ID": request_id})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_what_nobody_foresaw_is_a_500_without_its_inside(
    serve: Any, tmp_path: Path, photo_files: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    with serve(tmp_path) as server:

        def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError("secret detail")

        server.app.state.runtime.recognizer.recognize = broken
        answer = server.client.post("/search", files={"image": photo_files["coffee"]}, headers={"X-Request-ID": "it"})
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert (problem["code"], problem["request_id"]) == ("internal_error", "it")
        assert "secret" not in answer.text
        assert "ZeroDivision" not in answer.text
        logged = [
            record for record in caplog.records if record.name == "shitu.errors" and "/search" in record.getMessage()
        ]
        assert logged
        assert logged[0].exc_info is not None
        assert server.client.get("/readyz").status_code == 200
        assert server.metric(f'{REQUESTS}{{method="POST",route="/search",status="500"}}') == 1
