"""The listeners' address of a test: made here, stored with the test, printed everywhere."""

from __future__ import annotations

import ipaddress
import json
import socket
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from mushra.store.records import sha256
from mushra.store.store import Store
from qincodec.core.errors import UserError


@dataclass(frozen=True)
class Kept:
    """Listeners' address and prefix from the last `mushra serve` of a test."""

    address: str
    prefix: str


def public_address(public_url: str | None, host: str, port: int, prefix: str) -> str:
    """Address of the listening page; it ends in ``/``.

    Args:
        public_url: the server's URL for listeners outside; None: made of ``host`` and ``port``.
        host: address at which the server listens. If it means all addresses of this machine, the result has
            one that other machines can reach.
        prefix: path below which everything is served, "" or from `clean_prefix`.

    Raises:
        UserError: ``public_url`` is not the address of a page.
    """
    if public_url is None:
        host = _own_address() if host in ("0.0.0.0", "::", "*") else host
        base = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    else:
        base = clean_url(public_url).rstrip("/")
    return f"{base if prefix and urlsplit(base).path.endswith(prefix) else base + prefix}/"


def clean_url(public_url: str) -> str:
    """``public_url``, ending in ``/``. Raises `UserError` if it is not the address of a page."""
    url = public_url.strip()
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right or set(url) & set("?# \t\r\n\\"):
        raise UserError(
            f"--public-url '{public_url}' is not the address of a page; give one such as https://lab.example.org/test"
        )
    return url.rstrip("/") + "/"


def clean_prefix(prefix: str) -> str:
    """The value of --prefix as ``/PATH``, or "". Raises `UserError` if it cannot be a path."""
    parts = [part for part in prefix.split("/") if part]
    if any(part in (".", "..") or not part.isprintable() or set(part) & set("?#%\\ ") for part in parts):
        raise UserError(f"--prefix '{prefix}' is not a path; give one such as /lab/test1")
    return "".join(f"/{part}" for part in parts)


def keep_address(store: Store, test: str | None, address: str, prefix: str) -> None:
    """Store the address of a test (None: those of a checkout), for the invitations."""
    value = json.dumps(asdict(Kept(address, prefix)))
    if store.get_meta(_meta(test)) != value:
        store.set_meta(_meta(test), value)


def kept_address(store: Store, test: str | None) -> Kept | None:
    """Last address of a test; None if it was never served."""
    value = store.get_meta(_meta(test))
    return Kept(**json.loads(value)) if value is not None else None


def _meta(test: str | None) -> str:
    # A data base may hold several tests, and an id may be longer than a key.
    return f"address:{sha256(test or '')[:48]}"


def loopback_warning(address: str) -> str | None:
    """Warning about an address that each machine resolves to itself; None for other addresses."""
    host = urlsplit(address).hostname or ""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost" or host.endswith(".localhost")
    if not loopback:
        return None
    return (
        f"{address} can be opened on this machine only; for listeners elsewhere: `mushra serve` with"
        " --host 0.0.0.0, or with the --public-url of a proxy in front"
    )


def _own_address() -> str:
    """This machine's address in its network (nothing is sent)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
