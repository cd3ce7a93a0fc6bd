"""The container's health check: is the service ready? Prints why not, for ``docker inspect`` to show."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request

_TIMEOUT_S = 18.0


def main() -> int:
    """Ask ``/readyz``; with ``SHITU_API_KEY`` as the key where probes need one (``SHITU_OPEN_PROBES=false``)."""
    url = f"http://127.0.0.1:{os.environ.get('SHITU_PORT') or 8000}/readyz"
    key = os.environ.get("SHITU_API_KEY")
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            print(answer.read().decode())
            return 0
    except urllib.error.HTTPError as error:
        print(f"{error.code}: {error.read().decode(errors='replace')}")
    except OSError as error:
        print(f"{url}: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
