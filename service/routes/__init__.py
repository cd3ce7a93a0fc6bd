"""HTTP endpoints, one module a resource."""

from fastapi import APIRouter

from . import backup, batch, docs, gallery, health, index, search


def routers() -> list[APIRouter]:
    """Give the endpoints of all modules, in the order of the OpenAPI document."""
    return [search.router, gallery.router, batch.router, backup.router, index.router, health.router, docs.router]
