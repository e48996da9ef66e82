"""The listening test's server in a thread, for browsers; and what it has stored."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from threading import Thread
from typing import Any

from listening_material import write_test
from werkzeug.serving import BaseWSGIServer, make_server

from mushra.config.load import load_config
from mushra.server import create_app
from mushra.server.service import Service
from mushra.store.store import Store


class Site:
    """A test that is served; ``stop`` and ``start`` are a server's restart."""

    def __init__(self, folder: Path, pages: list[dict[str, Any]], **general: Any) -> None:
        self._database = folder / "sessions.sqlite"
        self.folder = folder / "test"
        self._config = load_config(write_test(self.folder, pages, **general))
        self._server: BaseWSGIServer | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    def start(self) -> None:
        app = create_app(self._config, self._database)
        self._service: Service = app.extensions["mushra"]
        self._server = make_server("127.0.0.1", self._port, app, threaded=True)
        self._port = self._server.server_port
        Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def store(self) -> Store:
        return self._service.store

    def stop(self) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self._service.store.close()
        self._server = None

    def close(self) -> None:
        if self._server is not None:
            self.stop()

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Rows of the data base."""
        import sqlalchemy as sa

        with self._service.store.read() as connection:
            return [dict(row._mapping) for row in connection.execute(sa.text(query))]

    def results(self) -> dict[str, Any]:
        """Page -> result, of the only session."""
        rows = self.rows("SELECT * FROM pages ORDER BY page")
        return {row["page"]: json.loads(row["result"]) for row in rows}

    def exported(self, name: str) -> list[dict[str, str]]:
        """Rows of one of the CSV files that `mushra export` writes of the finished sessions."""
        from mushra.store.export import export

        folder = self.folder.parent / "export"
        export(self._service.store, folder, "webmushra")
        with (folder / name).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def conditions(self) -> dict[str, dict[str, str]]:
        """Page -> id of a signal -> its name in the results, of the only session."""
        (row,) = self.rows("SELECT * FROM sessions")
        plan = json.loads(row["plan"])
        return {page["public"]["id"]: page["conditions"] for page in plan}
