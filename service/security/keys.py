"""What an API key is, and how the one that a request came with is looked up."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .access import Scope
from .limits import LimitOverrides

KEY_PREFIX = "shitu_"  # lets people and secret scanners tell what a leaked text is
_RANDOM_BYTES = 32
_KEY = re.compile(rf"{KEY_PREFIX}[A-Za-z0-9_-]{{43}}")


def make_key() -> str:
    """Make a new key: ``shitu_`` and 32 random bytes, base64url without padding."""
    return KEY_PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def is_key(text: str) -> bool:
    """Whether a text has the form of our keys. No other text is ever hashed, so nobody can enter a weak one."""
    return _KEY.fullmatch(text) is not None


def digest_of(key: str) -> bytes:
    """Hash a key: the 32 bytes that are stored instead of it.

    A plain SHA-256 is the right hash here. A slow, salted one protects what people choose, by making each guess
    expensive; 256 random bits cannot be guessed at any price, and every request has to pay for the hash.
    """
    return hashlib.sha256(key.encode("ascii")).digest()


@dataclass(frozen=True)
class ApiKey:
    """A key as it is stored.

    Attributes:
        name: what people call it; unique.
        scopes: what it was given; ``admin`` includes the others.
        digest: of the key; never shown, not even in a traceback.
        limits: where they differ from those of all keys.
    """

    name: str
    scopes: frozenset[Scope]
    digest: bytes = field(repr=False)
    limits: LimitOverrides = field(default_factory=LimitOverrides)

    def may(self, scope: Scope | None) -> bool:
        """Whether the key opens what needs ``scope``; None: every key does."""
        return scope is None or scope in self.scopes or "admin" in self.scopes


class KeyRing:
    """Some keys; immutable. Names and digests are unique."""

    def __init__(self, keys: Sequence[ApiKey] = ()) -> None:
        """Hold the keys."""
        self._keys = tuple(keys)

    def __len__(self) -> int:
        """How many keys there are."""
        return len(self._keys)

    def __iter__(self) -> Iterator[ApiKey]:
        """Give the keys in the order written."""
        return iter(self._keys)

    def find(self, key: str) -> ApiKey | None:
        """Give the stored key of a key that :func:`is_key`.

        It is compared with every digest, each in constant time, whether or not one has matched: how long this takes
        tells nothing of which keys there are.
        """
        digest = digest_of(key)
        found = None
        for stored in self._keys:
            if hmac.compare_digest(stored.digest, digest):
                found = stored
        return found
