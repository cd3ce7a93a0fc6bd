"""Multipart forms to the members that validation expects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .bodies import Form
from .errors import FieldProblem, InvalidFields, PictureTooLarge


def single_fields(form: Form) -> dict[str, Any]:
    """Give the one value of each field.

    Raises:
        InvalidFields: a field came more than once.
        PictureTooLarge: a picture is too large.
    """
    given: dict[str, Sequence[Any]] = {**form.fields, **form.files}
    repeated = [name for name, values in given.items() if len(values) > 1]
    if repeated:
        raise InvalidFields([FieldProblem(name[:100], "was given more than once") for name in repeated])
    for values in given.values():
        if isinstance(values[0], PictureTooLarge):
            raise values[0]
    return {name: values[0] for name, values in given.items()}


def repeated_fields(form: Form, repeated: frozenset[str]) -> dict[str, Any]:
    """Give all values of the fields that may repeat, and the one value of every other.

    Raises:
        InvalidFields: another field came more than once.
    """
    others = {name: values for name, values in form.fields.items() if name not in repeated}
    many = {name: values for name, values in {**form.fields, **form.files}.items() if name in repeated}
    return single_fields(Form(others)) | many
