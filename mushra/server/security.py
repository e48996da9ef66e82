"""Protection of the server: headers, rate limits, checks of a request's origin and body."""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import threading
import time
from collections import OrderedDict
from typing import Any
from urllib.parse import urlsplit

from flask import Request, Response

from mushra.store.pages import storable

#: Content of this server only: no inline script or style, no other host, no frame around the page.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
    "connect-src 'self'; font-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
#: webMUSHRA's own pages have inline scripts and styles; they are the experimenter's, from the same host.
WEBMUSHRA_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Invitations are part of the address, which other hosts must not get.
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}


def add_headers(response: Response) -> Response:
    """Add the headers of every response, unless the view has set them."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "mushra"
    return response


def is_cross_site(request: Request) -> bool:
    """Whether a request that changes something may come from another site's page.

    Browsers send Sec-Fetch-Site; older ones send Origin. A client that sends neither counts as foreign, too:
    scripts can send an Origin.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site != "same-origin"
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc != request.host


class BadBody(Exception):
    """The body is not valid JSON."""


def parse_json(data: bytes | str) -> Any:
    """Parse untrusted JSON: finite numbers, no characters that data bases refuse (NUL, half a pair).

    Such characters are replaced, not refused: half an emoji in a comment must not lose the page's result.
    """
    try:
        text = data.decode() if isinstance(data, bytes) else data
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite, parse_int=_finite_int)
        # Only an escape or the text itself can contain such a character.
        return _storable(value) if "\\u" in text or isinstance(data, str) else value
    except RecursionError:
        raise BadBody("the body is nested too deeply") from None
    except ValueError as error:
        raise BadBody(f"the body is not valid JSON: {str(error)[:200]}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _finite_int(text: str) -> int:
    _finite(text)  # a reader of the stored value may have floating point only
    return int(text)


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [_storable(inner) for inner in value]
    if isinstance(value, dict):
        return {storable(key): _storable(inner) for key, inner in value.items()}
    return value


class RateLimit:
    """Token buckets, one per key: ``burst`` at once, ``per_second`` in the long run. Thread-safe.

    The latest `MAX_KEYS` keys (addresses) are kept in memory only, hashed with a salt of this process.
    """

    MAX_KEYS = 20_000

    def __init__(self, burst: float, per_second: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._salt = secrets.token_bytes(16)
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, key: str) -> float:
        """Take a token: 0 if there was one, otherwise the seconds until the next one."""
        hashed = hashlib.blake2b(key.encode(errors="replace"), key=self._salt, digest_size=16).digest()
        now = time.monotonic()
        with self._lock:
            tokens, then = self._buckets.pop(hashed, (self._burst, now))
            tokens = min(self._burst, tokens + (now - then) * self._per_second)
            allowed = tokens >= 1
            self._buckets[hashed] = (tokens - allowed, now)
            while len(self._buckets) > self.MAX_KEYS:
                self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self._per_second
