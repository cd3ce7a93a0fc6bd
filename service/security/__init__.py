"""Who may use the service and how much: API keys, scopes, limits, and the headers that browsers obey.

``access`` declares what each route needs, ``keys`` is what a key is, ``key_lines`` and ``key_file`` are how keys are
written down, ``valid_keys`` which of them are valid now, ``limits`` what a caller may use, ``gate`` asks all of these
before a request's body is read. ``headers`` and ``cors`` speak to browsers.
"""
