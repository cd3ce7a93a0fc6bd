"""A gallery behind a running server: the commands over its REST interface."""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from .access import CommandError, Enrolment, Json, OnDuplicate, Outcome, Query, ServerRefusal, ServerUnreachable
from .build import Progress

_PAGE = 1000
_DELETE_AT_ONCE = 1000
_BATCH_BYTES = 16 * 2**20
_BATCH_ITEMS = 64
_RETRIES = 8
_LONGEST_WAIT_S = 30.0
_POLL_S = 0.25
_KEY_VARIABLE = "SHITU_API_KEY"
_BEARER_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1


class RemoteGallery:
    """The gallery of the server at ``url``.

    A server that is too busy (429) is asked again after the time it names; everything else is final.
    """

    def __init__(self, url: str, timeout_s: float = 300.0, *, api_key: str | None = None) -> None:
        """Prepare for talking to ``http://host:port``; nothing is sent yet.

        The key goes with every request to this address and to no other: redirects are not followed.

        Raises:
            ServerUnreachable: ``url`` is no address.
            CommandError: ``api_key`` cannot be a key.
        """
        self._url = url if "://" in url else f"http://{url}"
        headers = {} if api_key is None else {"Authorization": f"Bearer {_checked(api_key)}"}
        timeout = httpx.Timeout(timeout_s, connect=5.0)
        try:
            self._client = httpx.Client(base_url=self._url, timeout=timeout, headers=headers, follow_redirects=False)
        except (httpx.InvalidURL, ValueError) as error:
            raise ServerUnreachable(f"{url!r} is not the address of a server: {error}") from error

    @property
    def host(self) -> str:
        """Name or address of the server."""
        return self._client.base_url.host

    @property
    def is_plain_http(self) -> bool:
        """Whether what is sent can be read on the way."""
        return self._client.base_url.scheme == "http"

    def prepare(self) -> None:
        """Make sure that the server is there; its first answer tells whether it can enrol."""
        self.info()

    def search(self, query: Query) -> Json:
        """Answer as ``POST /search`` does."""
        fields = {
            "code": query.code,
            "item_id": query.item_id,
            "hamming_radius": query.hamming_radius,
            "top_k": query.top_k,
            "label": query.label,
            "nprobe": query.nprobe,
            "ef_search": query.ef_search,
            "detect": query.detect if query.picture is not None else None,
            "whole_image": query.whole_image if query.picture is not None else None,
        }
        return self._post_picture("/search", query.picture, fields)

    def add(self, enrolment: Enrolment, on_duplicate: OnDuplicate = "add", *, detect: bool = False) -> Json:
        """Enrol one picture through ``POST /gallery``."""
        fields = _item_fields(enrolment) | {"on_duplicate": on_duplicate, "detect": detect}
        return self._post_picture("/gallery", enrolment.picture, fields)

    def enrol(self, enrolments: Sequence[Enrolment], present: frozenset[str]) -> list[Outcome]:
        """Enrol through ``PUT /gallery/{id}`` what is present, and the rest through ``POST /gallery/batch``."""
        outcomes: dict[int, Outcome] = {}
        new: list[int] = []
        for number, enrolment in enumerate(enrolments):
            if enrolment.id in present:
                outcomes[number] = self._replace(enrolment)
            else:
                new.append(number)
        for numbers in _batches(enrolments, new):
            answers = self._add_batch([enrolments[number] for number in numbers])
            outcomes.update(zip(numbers, answers, strict=True))
        return [outcomes[number] for number in range(len(enrolments))]

    def items(self, label: str | None = None) -> Iterator[Json]:
        """Walk over the items by the cursor of ``GET /gallery``."""
        cursor: str | None = None
        while True:
            parameters = {"limit": _PAGE, "cursor": cursor, "label": label}
            page = self._request("GET", "/gallery", params=_given(parameters))
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def remove(self, ids: Sequence[str]) -> int:
        """Remove items through ``POST /gallery/delete``."""
        removed = 0
        for start in range(0, len(ids), _DELETE_AT_ONCE):
            chunk = list(ids[start : start + _DELETE_AT_ONCE])
            removed += self._request("POST", "/gallery/delete", json={"ids": chunk})["removed"]
        return removed

    def remove_label(self, label: str) -> int:
        """Remove a label through ``POST /gallery/delete``."""
        return int(self._request("POST", "/gallery/delete", json={"label": label})["removed"])

    def info(self) -> Json:
        """Describe the index through ``GET /index``."""
        return self._request("GET", "/index")

    def rebuild(self, method: str | None, progress: Callable[[float], None]) -> Json:
        """Start ``POST /index/rebuild`` and ask ``GET /index`` until it is done; it goes on without us too."""
        index = self._request("POST", "/index/rebuild", json=_given({"method": method}))
        while index["rebuild_progress"] is not None:
            progress(index["rebuild_progress"])
            time.sleep(_POLL_S)
            index = self.info()
        if index["rebuild_error"] is not None:
            raise CommandError(f"the rebuild failed, the old index serves: {index['rebuild_error']}")
        return index

    def item(self, item_id: str) -> Json:
        """Read an item through ``GET /gallery/{id}``."""
        return self._request("GET", f"/gallery/{item_id}")

    def add_codes(self, items: Sequence[Json], on_duplicate: OnDuplicate) -> list[Json]:
        """Enrol items with ready-made codes through ``POST /gallery/batch``; give its results."""
        results: list[Json] = self._request(
            "POST", "/gallery/batch", json={"items": list(items), "on_duplicate": on_duplicate}
        )["results"]
        return results

    def backup(self, target: Path | None, progress: Progress) -> Json:
        """Fetch ``GET /backup`` and check what came, before it takes its place in a file."""
        from index_store import check_backup
        from index_store.folders import whole_file

        if target is None:
            return {"bytes": self._download("/backup", sys.stdout.buffer, progress)}
        with whole_file(target) as file:
            self._download("/backup", file, progress)
            file.flush()
            return asdict(check_backup(file.name))

    def _download(self, path: str, target: BinaryIO, progress: Progress) -> int:
        """Write an answer's body to a stream as it comes; return its length."""
        size = 0
        with self._faults(), self._client.stream("GET", path) as response:
            if not response.is_success:
                response.read()
                _json(response)
            for piece in response.iter_bytes():
                target.write(piece)
                size += len(piece)
                progress(size, None)
        return size

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _add_batch(self, enrolments: Sequence[Enrolment]) -> list[Outcome]:
        items = [
            _item_fields(enrolment) | {"image_base64": base64.b64encode(enrolment.picture).decode("ascii")}
            for enrolment in enrolments
        ]
        try:
            results = self._request("POST", "/gallery/batch", json={"items": items})["results"]
        except ServerRefusal as error:
            # A limit of the server on the whole batch says nothing about the single pictures.
            if error.status in (413, 422) and len(enrolments) > 1:
                half = len(enrolments) // 2
                return self._add_batch(enrolments[:half]) + self._add_batch(enrolments[half:])
            if error.status in (400, 409, 413, 415, 422) and len(enrolments) == 1:
                return [Outcome(problem=str(error))]
            raise
        return [_outcome(result) for result in results]

    def _replace(self, enrolment: Enrolment) -> Outcome:
        fields = _item_fields(enrolment)
        identity = fields.pop("id")
        try:
            item = self._post_picture(f"/gallery/{identity}", enrolment.picture, fields, method="PUT")
        except ServerRefusal as error:
            if error.status in (400, 404, 413, 415, 422):
                return Outcome(problem=str(error))
            raise
        return Outcome(item, change="replaced")

    def _post_picture(self, path: str, picture: bytes | None, fields: Json, method: str = "POST") -> Json:
        fields = _given(fields)
        if picture is None:
            return self._request(method, path, json=fields)
        form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
        return self._request(method, path, data=form, files={"image": ("picture", picture)})

    def _request(self, method: str, path: str, **arguments: Any) -> Json:
        response = self._send(method, path, arguments)
        for _ in range(_RETRIES):
            if response.status_code != 429:
                break
            time.sleep(_wait_s(response))
            response = self._send(method, path, arguments)
        return _json(response)

    def _send(self, method: str, path: str, arguments: dict[str, Any]) -> httpx.Response:
        with self._faults():
            return self._client.request(method, path, **arguments)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ServerUnreachable(f"no server answers at {self._url}: start one with `shitu serve`") from error
        except httpx.UnsupportedProtocol as error:
            raise ServerUnreachable(f"{self._url!r} is not the address of a server: {error}") from error
        except httpx.HTTPError as error:
            raise ServerUnreachable(f"the connection to {self._url} broke: {error or type(error).__name__}") from error


def _checked(api_key: str) -> str:
    # What stands there is not repeated: it may be all but a line end of the real key.
    if _BEARER_TOKEN.fullmatch(api_key) is None:
        raise CommandError(
            f"what --api-key or {_KEY_VARIABLE} gives is no API key: one word of letters, digits, _ and -"
        )
    return api_key


def _json(response: httpx.Response) -> Json:
    try:
        body = response.json() if response.content else {}
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    if isinstance(body, dict) and "title" in body:
        detail = body.get("detail") or body["title"]
        if response.status_code in (401, 403):
            detail = f"{detail}; the key is given with --api-key or {_KEY_VARIABLE}"
        raise ServerRefusal(str(detail), response.status_code, str(body.get("code", "")))
    raise ServerRefusal(
        f"{response.request.url} answered {response.status_code}, not as this service does: is it one?",
        response.status_code,
    )


def _outcome(result: Json) -> Outcome:
    if result.get("item") is not None:
        return Outcome(result["item"])
    problem = result.get("problem") or {}
    return Outcome(problem=str(problem.get("detail") or problem.get("title") or f"status {result.get('status')}"))


def _wait_s(response: httpx.Response) -> float:
    try:
        return min(max(float(response.headers.get("Retry-After", "1")), 0.1), _LONGEST_WAIT_S)
    except ValueError:
        return 1.0


def _item_fields(enrolment: Enrolment) -> Json:
    return _given({"id": enrolment.id, "label": enrolment.label, "metadata": enrolment.metadata or None})


def _given(fields: Json) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def _batches(enrolments: Sequence[Enrolment], numbers: Sequence[int]) -> Iterator[list[int]]:
    """Part the numbered enrolments into batches that a server takes in one body."""
    batch: list[int] = []
    size = 0
    for number in numbers:
        length = len(enrolments[number].picture)
        if batch and (size + length > _BATCH_BYTES or len(batch) == _BATCH_ITEMS):
            yield batch
            batch, size = [], 0
        batch.append(number)
        size += length
    if batch:
        yield batch
