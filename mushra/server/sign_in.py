"""Sign-in to the admin pages: with a password, or with a link that works once; then with a cookie.

The password is stored as its scrypt hash, links and cookies as SHA-256 of their 256 random bits.

Attempts at the password are limited for each address, and separately for each browser that has signed in
before, which a signed cookie identifies. An attacker behind the administrator's address can only use up the
address's limit. Links are not limited, because they cannot be guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import time

import sqlalchemy as sa
from werkzeug.security import check_password_hash, generate_password_hash

from mushra.server.service import new_key
from mushra.store import schema
from mushra.store.records import sha256
from mushra.store.store import Store
from qincodec.core.errors import UserError

LINK_LASTS_S = 24 * 3600.0
SESSION_LASTS_S = 12 * 3600.0
DEVICE_LASTS_S = 365 * 24 * 3600.0
MIN_PASSWORD = 10
_META = "admin_password"


def set_password(store: Store, password: str) -> None:
    """Set the password and sign out all browsers. Raises `UserError` if it is too short."""
    if len(password) < MIN_PASSWORD:
        raise UserError(f"the admin password has {len(password)} characters; give at least {MIN_PASSWORD}")
    if is_password(store, password):
        return
    store.set_meta(_META, generate_password_hash(password, method="scrypt"))
    store.write(lambda connection: connection.execute(sa.delete(schema.admin_tokens)))


def has_password(store: Store) -> bool:
    return store.get_meta(_META) is not None


def is_password(store: Store, password: str) -> bool:
    """Whether ``password`` is right; false if none is set."""
    hashed = store.get_meta(_META)
    return hashed is not None and check_password_hash(hashed, password)


def new_link(store: Store) -> str:
    """A token that signs in once, within a day."""
    return _new_token(store, "link", LINK_LASTS_S)


def new_session(store: Store) -> str:
    """A token for the cookie of someone who has signed in."""
    return _new_token(store, "session", SESSION_LASTS_S)


def use_link(store: Store, token: str) -> bool:
    """Whether the token signs in; it is used up then."""
    table = schema.admin_tokens
    where = (table.c.token_sha256 == sha256(token)) & (table.c.kind == "link")
    where &= table.c.expires_at > time.time()
    with store.read() as connection:  # wrong tokens must not cause a write
        if connection.execute(sa.select(table.c.kind).where(where)).first() is None:
            return False
    return store.write(lambda connection: bool(connection.execute(sa.delete(table).where(where)).rowcount))


def is_signed_in(store: Store, token: str) -> bool:
    table = schema.admin_tokens
    where = (table.c.token_sha256 == sha256(token)) & (table.c.kind == "session")
    with store.read() as connection:
        expires = connection.execute(sa.select(table.c.expires_at).where(where)).scalar()
    return expires is not None and expires > time.time()


def sign_out(store: Store, token: str) -> None:
    table = schema.admin_tokens
    store.write(
        lambda connection: connection.execute(sa.delete(table).where(table.c.token_sha256 == sha256(token)))
    )


def new_device(store: Store) -> str:
    """Cookie that identifies a browser at its next sign-in. It does not sign in."""
    name = new_key()
    return f"{name}.{_signed(store, name)}"


def known_device(store: Store, cookie: str) -> str | None:
    """Name of the browser with a cookie of `new_device`; None if the cookie is forged."""
    name, _, signature = cookie.partition(".")
    right = hmac.compare_digest(signature.encode(), _signed(store, name).encode())
    return name if right else None


def _signed(store: Store, name: str) -> str:
    secret = store.get_meta("secret") or ""
    return hmac.new(secret.encode(), f"device:{name}".encode(), hashlib.sha256).hexdigest()


def _new_token(store: Store, kind: str, lasts_s: float) -> str:
    token = new_key()
    table = schema.admin_tokens

    def change(connection: sa.Connection) -> None:
        connection.execute(sa.delete(table).where(table.c.expires_at < time.time()))
        values = {"token_sha256": sha256(token), "kind": kind, "expires_at": time.time() + lasts_s}
        connection.execute(table.insert().values(values))

    store.write(change)
    return token
