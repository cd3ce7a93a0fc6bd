"""What does an API key cost a request?

Three services run side by side on equal galleries: without keys, with one key, and with 1,000 keys of which the last is
sent. ``POST /search`` by code goes to each in turns over a keep-alive connection. The time of the check alone is
measured in this process: hashing the key and comparing it with every stored digest.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from common import hashing, options, serving, tables

from index_store import Item, open_gallery
from service.demo.server import ServiceProcess
from service.security.key_lines import Source, new_key, parse, write_line
from service.security.keys import digest_of, make_key

_ROUND = 10  # short turns: the load of a shared machine changes
_LOOK_UPS = 1000


def main() -> int:
    """Run the benchmark."""
    arguments = options.parser(__doc__)
    options.add_hasher(arguments)
    arguments.add_argument("--items", type=int, default=10_000, help="codes in each gallery (default 10,000)")
    arguments.add_argument("--searches", type=int, default=2000, help="searches of each service (default 2,000)")
    chosen = arguments.parse_args()
    hasher = hashing.load(chosen.hasher)
    bits, fingerprint = hasher.bits, hasher.fingerprint
    del hasher
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 256, (chosen.items, bits // 8), dtype=np.uint8)
    queries = rng.integers(0, 256, (chosen.searches, bits // 8), dtype=np.uint8)
    secrets = [make_key() for _ in range(1000)]
    common = {
        **serving.hasher_setting(chosen.hasher),
        "SHITU_DETECTOR_DIR": "",
        "SHITU_CPU_THREADS": "1",
        "SHITU_LOG_LEVEL": "warning",
    }
    with tempfile.TemporaryDirectory(prefix="shitu-bench-") as folder, ExitStack() as running:
        searches = {}
        for count in (0, 1, 1000):
            base = Path(folder) / str(count)
            with open_gallery(base, bits, fingerprint=fingerprint) as store:
                store.add([Item(None, f"label {number}", code.tobytes()) for number, code in enumerate(codes)])
            settings = dict(common)
            if count:
                path = base.with_suffix(".keys")
                path.write_text(_lines(secrets[:count]))
                path.chmod(0o600)
                settings["SHITU_API_KEYS_FILE"] = str(path)
            process = running.enter_context(ServiceProcess(base, base.with_suffix(".log"), settings))
            process.wait_until_ready()
            searches[count] = serving.KeepAliveSearch(process.port, secrets[count - 1] if count else None)
            running.callback(searches[count].close)
        times: dict[int, list[float]] = {count: [] for count in searches}
        for first in range(0, len(queries), _ROUND):
            for count, ask in searches.items():
                for query in queries[first : first + _ROUND]:
                    before = time.perf_counter()
                    ask({"code": query.tobytes().hex(), "hamming_radius": bits, "top_k": 10})
                    times[count].append((time.perf_counter() - before) * 1000)
    p50 = {count: float(np.median(each)) for count, each in times.items()}
    rows = [
        [
            f"{count:,} key(s)" if count else "no keys",
            f"{p50[count]:.3f} / {np.quantile(times[count], 0.99):.3f} ms",
            f"{p50[count] / p50[0]:.3f}",
            f"{_look_up_us(secrets[:count]):.1f} us" if count else "-",
        ]
        for count in times
    ]
    tables.show(
        f"POST /search by code among {chosen.items:,} codes of {bits} bit, {chosen.searches:,} searches each",
        ["service", "p50 / p99", "ratio of the p50", "looking the key up"],
        rows,
        ["Each service runs search and inference on one thread; the client is a keep-alive connection of http.client."],
        markdown=chosen.markdown,
    )
    return 0


def _lines(secrets: list[str]) -> str:
    keys = [new_key(f"key{number}", ["search"], digest_of(secret), {}) for number, secret in enumerate(secrets)]
    return "".join(f"{write_line(key)}\n" for key in keys)


def _look_up_us(secrets: list[str]) -> float:
    """Microseconds in which the last of the keys is found among all; the median of many look-ups."""
    ring = parse([Source("keys", _lines(secrets))])
    times = []
    for _ in range(_LOOK_UPS):
        before = time.perf_counter()
        ring.find(secrets[-1])
        times.append((time.perf_counter() - before) * 1e6)
    return float(np.median(times))


if __name__ == "__main__":
    sys.exit(main())
