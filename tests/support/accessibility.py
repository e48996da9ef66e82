"""What axe-core finds on a page in a browser, and which controls its accessibility tree does not name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

_AXE = Path(__file__).parent.parent / "node" / "node_modules" / "axe-core" / "axe.min.js"
_RUN = """
async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.flatMap(({ id, nodes }) => nodes.map((node) => [id, node.html, node.failureSummary]));
}
"""


def check(page: Any) -> None:
    """No violation in a light window and in a dark one; every control has a name."""
    if not _AXE.exists():
        pytest.skip("needs tests/node/node_modules (`make setup-dev`): axe-core looks at the pages")
    if not page.evaluate("'axe' in window"):
        page.evaluate(_AXE.read_text(encoding="utf-8"))
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        found = page.evaluate(_RUN)
        assert not found, f"{page.url}, {scheme}: {found}"
    assert not (found := unnamed(page)), f"{page.url}: {found}"


def unnamed(page: Any) -> list[str]:
    """Roles of what can have the focus and has no name for a screen reader."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    found = []
    for node in nodes:
        properties = {one["name"]: one["value"].get("value") for one in node.get("properties", [])}
        if properties.get("focusable") and not node.get("name", {}).get("value", "").strip():
            found.append(node["role"]["value"])
    return found
