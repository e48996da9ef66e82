"""What is sent and stored of a session's pages, as it was when pages were plain dicts: the same bytes."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any, cast

from mushra.config.load import load_config
from mushra.server.files import Stimuli
from mushra.server.session_pages import session_pages
from mushra.store.pages import pages_from_json, pages_to_json

HERE = Path(__file__).parent
EVERY_TYPE = HERE / "session_pages" / "every_type.yaml"


class Places:
    """Addresses that say what they are of, in place of `Stimuli`."""

    def url(self, page: str, place: str) -> str:
        return f"stimuli/{page}/{place.replace(':', '/')}"

    def replaced(self, page: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self.replaced(page, inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.replaced(page, inner) for inner in value]
        return self.url(page, value) if str(value).endswith(".wav") else value


def test_pages_of_every_type_are_stored_and_sent_as_before() -> None:
    """`every_type.json` was written by the version that knew no records for pages."""
    stored = EVERY_TYPE.with_suffix(".json").read_text(encoding="utf-8").rstrip("\n")
    pages = session_pages(load_config(EVERY_TYPE), cast(Stimuli, Places()), 1, 1)
    assert pages_to_json(pages) == stored
    again = list(pages_from_json(stored).values())
    assert pages_to_json(again) == stored
    sent = [json.dumps(page.public.to_json()) for page in again]
    assert sent == [json.dumps(page["public"]) for page in json.loads(stored)]


def test_stored_sessions_keep_their_pages() -> None:
    database = HERE.parent / "stored" / "results.sqlite"
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro&immutable=1", uri=True)
    plans = [plan for (plan,) in connection.execute("SELECT plan FROM sessions WHERE plan IS NOT NULL")]
    connection.close()
    assert plans
    for plan in plans:
        assert pages_to_json(list(pages_from_json(plan).values())) == plan
