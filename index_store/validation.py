"""What the store accepts: ids, labels, metadata, sources, codes and search parameters."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import numpy as np

from index_store.base import Codes, InvalidItem, InvalidQuery, Method

METHODS: tuple[Method, ...] = get_args(Method)
MAX_LABEL_CHARACTERS = 512
MAX_METADATA_BYTES = 64 * 1024
MAX_SOURCE_CHARACTERS = 4096
_METADATA = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def check_id(item_id: object) -> str:
    """Return a usable id. Raises InvalidItem."""
    if not isinstance(item_id, str) or _ID.fullmatch(item_id) is None:
        raise InvalidItem("an id has 1 to 128 characters out of A-Z a-z 0-9 . _ : -")
    return item_id


def check_label(label: object) -> str:
    """Return a usable label. Raises InvalidItem."""
    if not isinstance(label, str) or not 1 <= len(label) <= MAX_LABEL_CHARACTERS:
        raise InvalidItem(f"a label is a text of 1 to {MAX_LABEL_CHARACTERS} characters")
    return _plain_text("label", label)


def check_source(source: object) -> str | None:
    """Return a usable source. Raises InvalidItem."""
    if source is None:
        return None
    if not isinstance(source, str) or not 1 <= len(source) <= MAX_SOURCE_CHARACTERS:
        raise InvalidItem(f"a source is a text of 1 to {MAX_SOURCE_CHARACTERS} characters")
    return _plain_text("source", source)


def _plain_text(what: str, text: str) -> str:
    if "\0" in text:
        raise InvalidItem(f"a {what} must not contain the NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidItem(f"a {what} must be valid Unicode, without lone surrogates") from error
    return text


def encode_metadata(metadata: object) -> str | None:
    """Return metadata as JSON text, None for an empty object. Raises InvalidItem.

    What JSON would not give back equal (keys that are not texts, tuples, NaN) is refused, not converted.
    """
    if not isinstance(metadata, dict):
        raise InvalidItem("metadata must be a JSON object")
    if not metadata:
        return None
    try:
        text = _METADATA.encode(metadata)
        size = len(text.encode())
        if json.loads(text) != metadata:
            raise InvalidItem("metadata must be a JSON object: texts as keys, lists rather than tuples")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidItem(f"metadata must be a JSON object: {error}") from error
    if size > MAX_METADATA_BYTES:
        raise InvalidItem(f"metadata takes {size} bytes as JSON; the limit is {MAX_METADATA_BYTES}")
    return text


def decode_metadata(text: str | None) -> dict[str, Any]:
    """Return the metadata that ``encode_metadata`` wrote."""
    if text is None:
        return {}
    metadata: dict[str, Any] = json.loads(text)
    return metadata


def check_code(code: object, bits: int) -> bytes:
    """Return a code of ``bits`` bits. Raises InvalidItem."""
    if not isinstance(code, bytes):
        raise InvalidItem("a code is given as bytes")
    if len(code) * 8 != bits:
        raise InvalidItem(f"the code has {len(code) * 8} bits; this gallery's codes have {bits}")
    return code


def check_bits(bits: object) -> int:
    """Return a length of codes. Raises InvalidQuery."""
    number = _integer(bits)
    if number is None or number <= 0 or number % 8:
        raise InvalidQuery(f"bits must be a positive multiple of 8, not {bits!r}")
    return number


def check_method(method: object) -> Method:
    """Return the index method that is meant, in any case. Raises InvalidQuery."""
    for known in METHODS:
        if isinstance(method, str) and method.casefold() == known.casefold():
            return known
    raise InvalidQuery(f"there is no index method {method!r}: use {', '.join(METHODS[:-1])} or {METHODS[-1]}")


def check_query_codes(codes: object, bits: int) -> Codes:
    """Return query codes, uint8 (n, bits / 8), C-contiguous. Raises InvalidQuery."""
    if not isinstance(codes, np.ndarray) or codes.dtype != np.uint8:
        raise InvalidQuery("query codes must be a numpy array of uint8")
    if codes.ndim != 2 or codes.shape[1] * 8 != bits:
        raise InvalidQuery(f"query codes must have the shape (n, {bits // 8}), not {codes.shape}")
    if not codes.flags.c_contiguous:
        raise InvalidQuery("query codes must be C-contiguous")
    return codes


def check_radius(hamming_radius: object, bits: int) -> int:
    """Return a radius of 0 to ``bits``. Raises InvalidQuery."""
    radius = _integer(hamming_radius)
    if radius is None or not 0 <= radius <= bits:
        raise InvalidQuery(f"hamming_radius must be an integer from 0 to {bits}, not {hamming_radius!r}")
    return radius


def check_positive(name: str, given: object) -> int:
    """Return a positive integer. Raises InvalidQuery."""
    number = _integer(given)
    if number is None or number < 1:
        raise InvalidQuery(f"{name} must be an integer of at least 1, not {given!r}")
    return number


def check_query_label(label: object) -> str | None:
    """Return the label to search or list by. Raises InvalidQuery."""
    if label is None:
        return None
    try:
        return check_label(label)
    except InvalidItem as error:
        raise InvalidQuery(str(error)) from error


def _integer(given: object) -> int | None:
    if isinstance(given, (int, np.integer)) and not isinstance(given, bool):
        return int(given)
    return None
