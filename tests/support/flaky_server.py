"""A web server on this machine that answers as badly as a test asks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Site:
    """What is served, and how.

    Attributes:
        content: the file.
        tag: its ETag; None for none.
        breaks: bytes after which a response breaks off; consumed from the front, None for a whole one.
        claims: Content-Length to claim instead of the truth.
        status: to answer with instead of serving.
        location: where the answer sends to instead.
        content_type: of the answer.
        framing: how an answer says where it ends: "length", "chunked", or "close" with its connection.
        length: text of Content-Length instead of a number.
        part: Content-Range of an answer to a request of the whole file, as status 206.
        ranges: whether ranges are understood.
        requests: headers of all requests so far.
    """

    content: bytes = b""
    tag: str | None = '"1"'
    breaks: list[int | None] = field(default_factory=list)
    claims: int | None = None
    status: int | None = None
    location: str | None = None
    content_type: str = "application/octet-stream"
    ranges: bool = True
    framing: str = "length"
    length: str | None = None
    part: str | None = None
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        site.requests.append({name.lower(): value for name, value in self.headers.items()})
        if site.location is not None:
            self.send_response(302)
            self.send_header("Location", site.location)
            self.end_headers()
            return
        if site.status is not None:
            self.send_error(site.status)
            return
        start, whole = 0, len(site.content)
        asked = self.headers.get("Range")
        if asked and site.ranges and self.headers.get("If-Range") == site.tag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= whole:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{whole}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{site.claims or whole}")
        elif site.part is not None:
            self.send_response(206)
            self.send_header("Content-Range", site.part)
        else:
            self.send_response(200)
        self.send_header("Content-Type", site.content_type)
        if site.framing == "length":
            self.send_header("Content-Length", site.length or str((site.claims or whole) - start))
        elif site.framing == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        if site.tag is not None:
            self.send_header("ETag", site.tag)
        self.end_headers()
        stop = site.breaks.pop(0) if site.breaks else None
        body = site.content[start : None if stop is None else start + stop]
        if site.framing == "chunked":
            body = b"%x\r\n%b\r\n" % (len(body), body) + (b"0\r\n\r\n" if stop is None else b"")
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients of these tests hang up as they like


@contextmanager
def serve(site: Site) -> Iterator[Site]:
    """Serve ``site``, whose ``url`` is set, until the block ends."""
    handler = type("Handler", (_Handler,), {"site": site})
    server = _Server(("127.0.0.1", 0), handler)
    site.url = f"http://127.0.0.1:{server.server_address[1]}/file"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
