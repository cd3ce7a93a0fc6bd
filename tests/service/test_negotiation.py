"""The media type that a client likes best."""

from __future__ import annotations

import pytest

from service.negotiation import preferred

JSON, PNG, JPEG = "application/json", "image/png", "image/jpeg"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("application/*", JSON),
        ("image/png", PNG),
        ("IMAGE/PNG", PNG),
        ("image/png;q=0.5", PNG),
        ("image/jpeg", JPEG),
        ("image/*", PNG),
        ("image/jpeg, image/*;q=0.5", JPEG),
        ("image/png, image/jpeg", PNG),
        ("image/png, */*", PNG),
        ("image/png, */*;q=0.1", PNG),
        ("application/json, image/png", JSON),
        ("image/png, application/json", JSON),
        ("application/json;q=0.9, image/png", PNG),
        ("application/json, image/png;q=0.9", JSON),
        ("image/png;q=0, */*", JSON),
        ("application/json;q=0, */*", PNG),
        ("text/html,application/xhtml+xml,image/avif,image/webp,*/*;q=0.8", JSON),
        ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", PNG),
        ("text/html", None),
        ("image/webp", None),
        ("image/png;q=0", None),
        ("image/png;q=nan", None),
        ("image/png;q=-1", None),
        ("image/png;q=2", None),
        ("image/png;q=much", None),
        ("nonsense", None),
        (", ,", JSON),
        (";;;=,image/png", PNG),
    ],
)
def test_the_best_liked_type_is_chosen(accept: str, chosen: str | None) -> None:
    assert preferred(accept, (JSON, PNG, JPEG)) == chosen
