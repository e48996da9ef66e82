"""The markup that an experimenter may use in a test's texts: an allow-list, everything else shown as text.

Elements that are not on the list lose their tags and keep their text; script, style and their like lose it,
too. Attributes are dropped unless listed. Addresses must be http, https or mailto. The result is well-formed:
what was opened is closed.
"""

from __future__ import annotations

from html import escape
from html.parser import HTMLParser
from urllib.parse import urlsplit

_TEXT = (
    "a abbr b bdi blockquote br center cite code del em i ins kbd mark p pre q s small span strong sub sup u"
)
_BLOCKS = "dd dl dt div figcaption figure h1 h2 h3 h4 h5 h6 hr li ol ul"
_TABLES = "caption table tbody td tfoot th thead tr"
ELEMENTS = frozenset(f"{_TEXT} {_BLOCKS} {_TABLES}".split())
#: These have no end tag.
_EMPTY = frozenset({"br", "hr"})
#: Their text is no text to read.
_DROPPED = frozenset({"script", "style", "iframe", "object", "noscript", "template", "svg", "math", "title"})
_ATTRIBUTES = {
    "a": frozenset({"href"}),
    "td": frozenset({"colspan", "rowspan"}),
    "th": frozenset({"colspan", "rowspan", "scope"}),
    "ol": frozenset({"start"}),
}
_EVERYWHERE = frozenset({"title", "lang", "dir"})
_SCHEMES = frozenset({"http", "https", "mailto"})


def sanitize(markup: str) -> str:
    """``markup`` with what is on the list of this module, safe to put into a page."""
    parser = _Sanitizer()
    parser.feed(markup)
    parser.close()
    return parser.result()


class _Sanitizer(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._out: list[str] = []
        self._open: list[str] = []
        self._dropped: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _DROPPED:
            self._dropped.append(tag)
        if self._dropped or tag not in ELEMENTS:
            return
        kept = "".join(
            f' {name}="{escape(value or "")}"' for name, value in attrs if _allowed(tag, name, value or "")
        )
        # A link leads away from a running test: into a tab of its own, and without our address.
        extra = ' target="_blank" rel="noopener noreferrer"' if tag == "a" else ""
        self._out.append(f"<{tag}{kept}{extra}>")
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _DROPPED:
            self.handle_starttag(tag, attrs)
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _DROPPED:
            if tag in self._dropped:
                del self._dropped[self._dropped.index(tag) :]
            return
        if self._dropped or tag not in self._open:
            return
        while True:
            innermost = self._open.pop()
            self._out.append(f"</{innermost}>")
            if innermost == tag:
                return

    def handle_data(self, data: str) -> None:
        if not self._dropped:
            self._out.append(escape(data, quote=False))

    def result(self) -> str:
        return "".join(self._out) + "".join(f"</{tag}>" for tag in reversed(self._open))


def _allowed(tag: str, name: str, value: str) -> bool:
    if name not in _EVERYWHERE and name not in _ATTRIBUTES.get(tag, ()):
        return False
    if name != "href":
        return True
    try:
        scheme = urlsplit("".join(value.split())).scheme
    except ValueError:
        return False
    return scheme in _SCHEMES
