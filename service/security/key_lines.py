"""How keys are written down: a line each, without the key itself.

::

    # the till in the entrance
    camera1  search,gallery  sha256:<64 hexadecimal digits>  rate=10 burst=20 concurrent=4

Name, scopes and hash, then limits where they differ from those of all keys; ``rate=none`` and ``concurrent=none``
lift one. What follows a ``#`` that begins a word is a comment.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields

from ..errors import KeyFileError
from .access import SCOPES, Scope
from .keys import KEY_PREFIX, ApiKey, KeyRing
from .limits import LimitOverrides

MAX_RATE = 1e6
MAX_REQUESTS = 10**6

_BYTE_ORDER_MARK = "\ufeff"  # some editors begin a file with it
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HASH = re.compile(r"sha256:([0-9a-fA-F]{64})")
_LIMITS = tuple(field.name for field in fields(LimitOverrides))


@dataclass(frozen=True)
class Source:
    """Where lines come from: what to call it, and its text."""

    name: str
    text: str = field(repr=False)  # of hashes, or of a key in the wrong place

    @classmethod
    def variable(cls, name: str, value: str) -> Source:
        """Take the value of a variable, which may part its lines by ``;``, too."""
        return cls(name, value.replace(";", "\n"))


class _Mistake(ValueError):
    """What is wrong with one line. It never repeats what stands there: that may be a key in the wrong place."""


def parse(sources: Sequence[Source]) -> KeyRing:
    """Read the keys of all sources together.

    Raises:
        KeyFileError: lines that are wrong, or names or hashes that come twice; all of them at once.
    """
    keys: list[ApiKey] = []
    problems: list[str] = []
    seen: dict[str | bytes, str] = {}
    for source in sources:
        for number, words in _lines(source.text):
            place = f"{source.name}:{number}"
            try:
                key = _key(words)
                _refuse_second(seen, key.name, place, f"the name {key.name}")
                _refuse_second(seen, key.digest, place, "the hash")
            except _Mistake as mistake:
                problems.append(f"{place}: {mistake}")
            else:
                keys.append(key)
    if problems:
        raise KeyFileError(problems)
    return KeyRing(keys)


def name_in(line: str) -> str | None:
    """Give the name with which a line of a file begins; None: it is blank or a comment."""
    words = _words(line)
    return words[0] if words else None


def new_key(name: str, scopes: Sequence[str], digest: bytes, limits: Mapping[str, str]) -> ApiKey:
    """Make a key of the words that its line is to have; each of ``scopes`` may hold several. Raises KeyFileError."""
    try:
        own = _limits([f"{each}={text}" for each, text in limits.items()])
        given = dict.fromkeys(scope for words in scopes for scope in words.split(","))
        return ApiKey(_name(name), _scopes(given), digest, own)
    except _Mistake as mistake:
        raise KeyFileError([str(mistake)]) from None


def write_line(key: ApiKey) -> str:
    """Write a key's line, without a line end."""
    given = {name: getattr(key.limits, name) for name in _LIMITS}
    limits = [f"{name}={_written(value)}" for name, value in given.items() if value is not None]
    scopes = ",".join(scope for scope in SCOPES if scope in key.scopes)
    return "  ".join([key.name, scopes, f"sha256:{key.digest.hex()}", *([" ".join(limits)] if limits else [])])


def _written(limit: float) -> str:
    return "none" if math.isinf(limit) else f"{limit:f}".rstrip("0").rstrip(".")


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Give the words of each line that has any, with its number."""
    for number, line in enumerate(text.split("\n"), 1):
        words = _words(line)
        if words:
            yield number, words


def _words(line: str) -> list[str]:
    words = line.removeprefix(_BYTE_ORDER_MARK).split()
    comment = next((at for at, word in enumerate(words) if word.startswith("#")), len(words))
    return words[:comment]


def _refuse_second(seen: dict[str | bytes, str], value: str | bytes, place: str, what: str) -> None:
    first = seen.setdefault(value, place)
    if first != place:
        raise _Mistake(f"{what} is there already, in {first}")


def _key(words: Sequence[str]) -> ApiKey:
    if len(words) < 3:
        raise _Mistake("needs a name, scopes and sha256:<hash>, parted by blanks")
    name, scopes, written, *limits = words
    hashed = _HASH.fullmatch(written)
    if hashed is None:
        raise _Mistake("the third word must be sha256: and 64 hexadecimal digits")
    return ApiKey(_name(name), _scopes(scopes.split(",")), bytes.fromhex(hashed[1]), _limits(limits))


def _name(name: str) -> str:
    if name.startswith(KEY_PREFIX):
        raise _Mistake(f"a name must not begin with {KEY_PREFIX}, as keys do: is it one? Only its hash belongs here")
    if _NAME.fullmatch(name) is None:
        raise _Mistake("a name has 1 to 64 characters out of A-Z a-z 0-9 . _ -")
    return name


def _scopes(given: Collection[str]) -> frozenset[Scope]:
    scopes = frozenset(scope for scope in SCOPES if scope in given)
    if not scopes or len(scopes) < len(given):
        raise _Mistake(f"the scopes are {', '.join(SCOPES)}: one or more of them, each once, parted by commas")
    return scopes


def _limits(words: Iterable[str]) -> LimitOverrides:
    values: dict[str, float] = {}
    for word in words:
        name, _, text = word.partition("=")
        if name not in _LIMITS or name in values:
            raise _Mistake(f"the limits are {', '.join(f'{each}=' for each in _LIMITS)}, each at most once")
        values[name] = _limit(name, text)
    if "burst" in values and math.isinf(values.get("rate", 1.0)):
        raise _Mistake("burst needs a rate")
    return LimitOverrides(**values)


def _limit(name: str, text: str) -> float:
    if text == "none" and name != "burst":
        return math.inf
    if name == "rate":
        if re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,6})?", text) and 0 < float(text) <= MAX_RATE:
            return float(text)
        raise _Mistake(f"rate must be requests a second, such as 10 or 0.5, at most {MAX_RATE:,.0f}, or none")
    if re.fullmatch(r"[0-9]{1,7}", text) and 1 <= int(text) <= MAX_REQUESTS:
        return int(text)
    raise _Mistake(f"{name} must be a whole number from 1 to {MAX_REQUESTS:,}" + (", or none" * (name != "burst")))
