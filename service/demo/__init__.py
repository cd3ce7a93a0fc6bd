"""The demonstration behind ``make demo``: a drawn sample gallery, enrolled in and searched by the real service."""
