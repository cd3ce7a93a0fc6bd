"""Downloads that go on where they broke off, and that several processes can ask for at once."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from .errors import ContentMismatch, DownloadError
from .folders import beside, locked, sync

Progress = Callable[[int, int | None], None]
"""Is told the bytes that are there and, where the server says, how many there will be."""

_ATTEMPTS = 3  # in a row that bring less than _CHUNK_BYTES
_PAUSE_S = 0.5  # before the second attempt; twice that before the third
_CHUNK_BYTES = 1 << 20
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)


def download(
    url: str,
    target: Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    max_bytes: int | None = None,
    verify: Callable[[Path], object] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Fetch a file unless it is there already.

    The bytes go to ``<target>.part``, which a later call continues if the server still has the same file (its ETag
    or time of change is kept in ``<target>.part.json``; RFC 9110, Sections 13.1.5 and 14.2). Only a whole, checked
    file is renamed to ``target``. Of several processes one downloads, and the others wait for it (``<target>.lock``).
    Redirects are followed, but none that leaves the encryption of https. Proxies are those of the usual variables
    (``HTTPS_PROXY`` and so on).

    Args:
        url: http or https.
        target: file to make; its folder is made too.
        md5: what the content must have, in hexadecimal; by default what the server says in ``Content-MD5``, if it does.
        sha256: what the content must have, in lower-case hexadecimal.
        max_bytes: a longer file is refused, at once if the server says its length.
        verify: is called with the whole file before it is kept; what it raises discards the file.
        progress: is told how far it is.

    Returns:
        ``target``.

    Raises:
        DownloadError: there is no network, the server refuses, the transfer keeps breaking off (what came is kept for
            the next call), or a web page comes in place of the file.
        ContentMismatch: the checksum differs.
        OSError: the disk cannot take it.
    """
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(beside(target, ".lock"), f"downloading {target.name}"):
            if not target.exists():  # another process may have made it in the meantime
                part = _Part.open(url, beside(target, ".part"), max_bytes)
                _fetch(part, target, {"md5": md5, "sha256": sha256}, verify, progress)
    return target


def shown(url: str) -> str:
    """Give an address without what may be secret in it: user and password, and the query of a signed address."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _fetch(
    part: _Part,
    target: Path,
    checksums: dict[str, str | None],
    verify: Callable[[Path], object] | None,
    progress: Progress | None,
) -> None:
    hooks = {"request": [_guard(part)]}
    with httpx.Client(follow_redirects=True, timeout=_TIMEOUT, event_hooks=hooks) as client:
        _transfer_all(client, part, progress)
    try:
        for algorithm, expected in (checksums | {"md5": checksums["md5"] or part.md5}).items():
            if expected is not None:
                _check_digest(part, algorithm, expected)
        if verify is not None:
            verify(part.path)
    except Exception:
        part.discard()
        raise
    sync(part.path)
    part.path.replace(target)
    sync(target.parent)
    part.discard()


def _guard(part: _Part) -> Callable[[httpx.Request], None]:
    """Look at every request before it is sent, those after a redirect, too."""
    encrypted = part.url.lower().startswith("https:")

    def refuse_downgrade(request: httpx.Request) -> None:
        if encrypted and request.url.scheme != "https":
            raise DownloadError(f"{part.name} redirects to {shown(str(request.url))}, which is not encrypted: refused")

    return refuse_downgrade


def _transfer_all(client: httpx.Client, part: _Part, progress: Progress | None) -> None:
    """Ask again as long as it brings something, and a few times more."""
    attempt, most = 0, part.size
    while (error := _try_transfer(client, part, progress)) is not None:
        attempt = 1 if part.size >= most + _CHUNK_BYTES else attempt + 1
        most = max(most, part.size)
        if attempt == _ATTEMPTS:
            if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
                raise DownloadError(f"cannot connect to {part.name} ({error})") from error
            raise DownloadError(
                f"{part.name} broke off {_ATTEMPTS} times, with {part.size:,} bytes here ({error}); "
                "another try may go on from there"
            ) from error
        time.sleep(_PAUSE_S * attempt)


def _try_transfer(client: httpx.Client, part: _Part, progress: Progress | None) -> httpx.HTTPError | None:
    """Ask once, and give what went wrong if another attempt may mend it."""
    try:
        _transfer(client, part, progress)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise DownloadError(f"{part.name} is no address of http or https ({error})") from error
    except httpx.HTTPError as error:
        return error
    return None


@dataclass
class _Part:
    """A file on its way.

    Attributes:
        url: where it comes from.
        path: what is there of it.
        max_bytes: of the whole file, or None.
        validator: the server's strong ETag or time of change of the file that this is a part of, or None.
        md5: checksum of the whole file, in hexadecimal, if the server gave it.
    """

    url: str
    path: Path
    max_bytes: int | None = None
    validator: str | None = None
    md5: str | None = None

    @classmethod
    def open(cls, url: str, path: Path, max_bytes: int | None) -> _Part:
        """Go on with what an earlier call left, if it is of the same address."""
        part = cls(url, path, max_bytes)
        try:
            kept = json.loads(part._record.read_text("utf-8"))
            if kept["address"] == part._address:
                part.validator, part.md5 = kept["validator"], kept["md5"]
        except (OSError, ValueError, KeyError, TypeError):
            part.validator = part.md5 = None
        return part

    @property
    def name(self) -> str:
        """The address, for people."""
        return shown(self.url)

    @property
    def _record(self) -> Path:
        return beside(self.path, ".json")

    @property
    def _address(self) -> str:
        """The address as the record keeps it: it may hold a password, or be signed."""
        return hashlib.sha256(self.url.encode()).hexdigest()

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def start(self, validator: str | None, md5: str | None) -> None:
        """Begin anew with a file that the server calls so."""
        self.path.write_bytes(b"")
        self.validator, self.md5 = validator, md5
        self._record.write_text(json.dumps({"address": self._address, "validator": validator, "md5": md5}), "utf-8")

    def limit(self, size: int | None) -> None:
        """Refuse a file of so many bytes if that is too long."""
        if size is not None and self.max_bytes is not None and size > self.max_bytes:
            self.discard()
            raise DownloadError(f"{self.name} is longer than the {self.max_bytes:,} bytes that are allowed")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)


def _transfer(client: httpx.Client, part: _Part, progress: Progress | None) -> None:
    """Ask once for what is missing and append it.

    Raises:
        httpx.HTTPError: it broke off before the end.
        DownloadError: the server refuses.
    """
    # Compressed on the way, neither the length nor the range would be those of the file.
    headers = {"Accept-Encoding": "identity"}
    if part.size and part.validator:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.validator}
    with client.stream("GET", part.url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            if _number(response.headers.get("Content-Range", "").rpartition("/")[2]) == part.size:
                return  # nothing was missing: an earlier call ended between the last byte and the rename
            part.discard()
            raise httpx.RemoteProtocolError("the server has another file now")
        if response.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            raise DownloadError(f"{part.name} answers {response.status_code} {response.reason_phrase}")
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise DownloadError(
                f"{part.name} answers with a web page in place of the file: is it a page to sign in to the network?"
            )
        if response.status_code == httpx.codes.OK:
            part.start(_validator(response), _content_md5(response))
            total = _number(response.headers.get("Content-Length"))
        else:
            total = _total_of_range(response, part)
        part.limit(total)
        with part.path.open("ab") as stream:
            received = stream.tell()
            for chunk in response.iter_raw():
                stream.write(chunk)
                received += len(chunk)
                part.limit(received)
                if progress is not None:
                    progress(received, total)
    if total is not None and received != total:
        if received > total:
            part.discard()
        raise httpx.RemoteProtocolError(f"{received:,} bytes came of {total:,}")


def _total_of_range(response: httpx.Response, part: _Part) -> int | None:
    """Read ``Content-Range: bytes FIRST-LAST/TOTAL``, which must go on where the part ends."""
    header = "ETag" if str(part.validator).startswith('"') else "Last-Modified"
    if response.headers.get(header, part.validator) != part.validator:  # not every server knows If-Range
        part.discard()
        raise httpx.RemoteProtocolError("the server has another file now")
    unit, _, span = response.headers.get("Content-Range", "").partition(" ")
    span, _, total = span.partition("/")
    if unit != "bytes" or _number(span.partition("-")[0]) != part.size:
        part.discard()
        raise httpx.RemoteProtocolError(f"another range came than the one from byte {part.size:,}")
    return _number(total)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.strip().isdecimal() else None


def _validator(response: httpx.Response) -> str | None:
    """Give what ``If-Range`` may compare: a strong ETag, else the time of change."""
    etag: str | None = response.headers.get("ETag")
    changed: str | None = response.headers.get("Last-Modified")
    return etag if etag is not None and not etag.startswith("W/") else changed


def _content_md5(response: httpx.Response) -> str | None:
    """Give the header ``Content-MD5`` (RFC 1864) of an answer with the whole file in hexadecimal."""
    try:
        digest = base64.b64decode(response.headers.get("Content-MD5", ""), validate=True)
    except ValueError:
        return None
    return digest.hex() if len(digest) == hashlib.md5(usedforsecurity=False).digest_size else None


def _check_digest(part: _Part, algorithm: str, expected: str) -> None:
    digest = hashlib.new(algorithm, usedforsecurity=algorithm != "md5")  # MD5 tells damage, not forgery
    with part.path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != expected:
        title = "MD5" if algorithm == "md5" else "SHA-256"
        raise ContentMismatch(
            f"{part.name} came with the {title} checksum {digest.hexdigest()}, and {expected} is right"
        )
