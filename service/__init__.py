"""The REST service: HTTP, settings and the command line over ``models.inference`` and ``index_store``."""
