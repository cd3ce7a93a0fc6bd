"""Keys as the command line makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from service.security.key_lines import new_key, write_line
from service.security.keys import digest_of, make_key


@dataclass(frozen=True)
class Issued:
    """A key, and the line that is stored of it."""

    secret: str
    line: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}


Issue = Callable[..., Issued]


@pytest.fixture(scope="session")
def issue() -> Issue:
    """Make a key: ``issue("camera1", "search", "gallery", rate="10")``."""

    def issue(name: str, *scopes: str, **limits: str) -> Issued:
        secret = make_key()
        return Issued(secret, write_line(new_key(name, scopes, digest_of(secret), limits)))

    return issue
