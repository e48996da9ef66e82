"""A page of HTML as its text and its elements; refuses one whose elements do not close as they opened."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """Text, and the attributes of every element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.strings: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in ("meta", "link", "input", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.strings.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.strings).split())

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        wanted = {name.rstrip("_"): value for name, value in wanted.items()}
        return [a for t, a in self.elements if t == tag and wanted.items() <= a.items()]


def parsed(html: str) -> Page:
    page = Page(html)
    assert page.open == [], "elements left open"
    return page
