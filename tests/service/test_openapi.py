"""The OpenAPI document says what the service does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from service.errors import PROBLEMS

CALLS = {
    ("post", "/search"),
    ("post", "/gallery"),
    ("post", "/gallery/batch"),
    ("get", "/gallery"),
    ("get", "/gallery/{id}"),
    ("put", "/gallery/{id}"),
    ("delete", "/gallery/{id}"),
    ("post", "/gallery/delete"),
    ("get", "/backup"),
    ("get", "/index"),
    ("post", "/index/rebuild"),
    ("get", "/livez"),
    ("get", "/readyz"),
    ("get", "/health"),
    ("get", "/metrics"),
}


@pytest.fixture(scope="module")
def document(server: Any) -> dict[str, Any]:
    answer = server.client.get("/openapi.json")
    assert answer.status_code == 200
    loaded: dict[str, Any] = answer.json()
    return loaded


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_call_is_documented(document: dict[str, Any]) -> None:
    assert {(method, path) for method, path, _ in operations(document)} == CALLS
    assert all(operation["summary"] and operation["description"] for _, _, operation in operations(document))


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert found
    for reference in found:
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


@pytest.mark.parametrize("path", ["/search", "/gallery", "/gallery/batch"])
def test_bodies_are_documented_in_both_content_types(document: dict[str, Any], path: str) -> None:
    content = document["paths"][path]["post"]["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "application/json"}
    schemas = {
        kind: document["components"]["schemas"][each["schema"]["$ref"].rsplit("/", 1)[1]]
        for kind, each in content.items()
    }
    assert all(schema["additionalProperties"] is False for schema in schemas.values())
    picture = "images" if path.endswith("batch") else "image"
    assert picture in schemas["multipart/form-data"]["properties"]
    assert picture in schemas["multipart/form-data"]["required"]
    assert content["application/json"]["examples"]


def test_files_are_binary(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["SearchForm"]["properties"]["image"]["format"] == "binary"
    assert schemas["BatchForm"]["properties"]["images"]["items"]["format"] == "binary"


def test_every_error_is_a_problem_document_with_examples(document: dict[str, Any]) -> None:
    codes = {kind.code for kind in PROBLEMS.values()} | {"internal_error"}
    for _, path, operation in operations(document):
        errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        if path != "/metrics":
            assert "500" in errors
        for answer in errors.values():
            assert set(answer["content"]) == {"application/problem+json"}
            examples = answer["content"]["application/problem+json"]["examples"]
            assert examples
            assert set(examples) <= codes
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_examples_of_bodies_name_only_known_members(document: dict[str, Any]) -> None:
    for _, _, operation in operations(document):
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            if kind != "application/json":
                continue
            schema = document["components"]["schemas"][content["schema"]["$ref"].rsplit("/", 1)[1]]
            for example in content["examples"].values():
                assert set(example["value"]) <= set(schema["properties"])


def test_statuses_that_answers_have_are_documented(
    server: Any, document: dict[str, Any], photo_files: dict[str, bytes]
) -> None:
    item = server.enrol(photo_files["coffee"], "x", id="documented")
    code = item["code"]
    picture = {"image": photo_files["coffee"]}
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("post", "/search", {"files": picture}),
        ("post", "/search", {"files": {"image": b"text"}}),
        ("post", "/search", {"json": {"item_id": "nobody"}}),
        ("post", "/search", {"json": {"code": code, "model_fingerprint": "other"}}),
        ("post", "/gallery", {"files": picture, "data": {"label": "x"}}),
        ("post", "/gallery", {"json": {"code": code, "label": "x", "on_duplicate": "return"}}),
        ("post", "/gallery", {"json": {"code": code, "label": "x", "id": "documented"}}),
        ("post", "/gallery/batch", {"json": {"items": [{}]}}),
        ("get", "/gallery", {}),
        ("get", "/gallery/{id}", {}),
        ("put", "/gallery/{id}", {"json": {"code": code, "label": "y"}}),
        ("put", "/gallery/{id}", {"content": b"x"}),
        ("post", "/index/rebuild", {}),
        ("get", "/backup", {}),
        ("get", "/index", {}),
        ("get", "/readyz", {}),
        ("get", "/health", {}),
        ("get", "/metrics", {}),
        ("delete", "/gallery/{id}", {}),
        ("get", "/gallery/{id}", {}),
    ]
    for method, path, call in calls:
        answer = server.client.request(method, path.format(id="documented"), **call)
        described = document["paths"][path][method]["responses"]
        assert str(answer.status_code) in described, (method, path, answer.status_code)
        kind = answer.headers.get("content-type", "").split(";")[0]
        assert kind in described[str(answer.status_code)].get("content", {"": None})


def test_the_document_is_shown_to_people(server: Any) -> None:
    page = server.client.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "openapi.json" in page.text
