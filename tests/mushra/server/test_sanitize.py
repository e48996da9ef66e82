"""Markup of experimenters: what is left of it, as Python's own parser of HTML sees it.

`tests/mushra/page/test_markup.py` asks a browser.
"""

from __future__ import annotations

import html.parser
import random
import re
from collections.abc import Callable

import pytest
from hostile_markup import ADDRESSES, HOSTILE

from mushra.config.load import load_config
from mushra.server.sanitize import sanitize

_ELEMENTS = """
    a abbr b bdi blockquote br caption center cite code dd del div dl dt em figcaption figure h1 h2 h3 h4 h5
    h6 hr i ins kbd li mark ol p pre q s small span strong sub sup table tbody td tfoot th thead tr u ul
"""
ELEMENTS = set(_ELEMENTS.split())
ATTRIBUTES = {"title", "lang", "dir", "href", "target", "rel", "colspan", "rowspan", "scope", "start"}


class Seen(html.parser.HTMLParser):
    """Elements with attributes, and text; fails where tags are not nested."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(markup)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("br", "hr"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("<p>Hello <b>you</b></p>", "<p>Hello <b>you</b></p>"),
        ("a < b & c", "a &lt; b &amp; c"),
        ("<script>alert(1)</script>x", "x"),
        ("<scr<script>ipt>alert(1)</script>", "ipt&gt;alert(1)"),
        ("<img src=x onerror=alert(1)>", ""),
        ("<p onclick='x()' style='a' title='t'>y</p>", '<p title="t">y</p>'),
        ("<svg><script>x</script><text>y</text></svg>z", "z"),
        ("<svg><script>x</script><p>y</p></svg>z", "<p>y</p>z"),  # p is no svg and ends it
        ("<iframe src='//evil'></iframe>z", "z"),
        ("<b>open", "<b>open</b>"),
        ("<b><i>x</b>y</i>", "<b><i>x</i></b><i>y</i>"),
        ("<p>a<p>b</p></p>", "<p>a</p><p>b</p><p></p>"),
        ("<ul><li>a<li>b</ul>", "<ul><li>a</li><li>b</li></ul>"),
        ("</b>x", "x"),
        ("<!-- c --><!doctype x><?php y ?>z", "z"),
        ("&lt;script&gt;", "&lt;script&gt;"),
        ("<br/>", "<br>"),
        ("<unknown>text</unknown>", "text"),
        ("<td>text", "text"),
        (
            '<table><tr><th scope="row" colspan=2 width=9>x',
            '<table><tbody><tr><th scope="row" colspan="2">x</th></tr></tbody></table>',
        ),
        ("<ol start=3 type=a><li>x</ol>", '<ol start="3"><li>x</li></ol>'),
        ("&auml; &#228; \u00e4", "\u00e4 \u00e4 \u00e4"),
    ],
)
def test_markup_is_reduced_to_what_is_allowed(given: str, shown: str) -> None:
    assert sanitize(given) == shown


@pytest.mark.parametrize("given", HOSTILE)
def test_nothing_but_what_is_allowed_is_left(given: str) -> None:
    for tag, attributes in Seen(sanitize(given)).tags:
        assert tag in ELEMENTS
        assert attributes.keys() <= ATTRIBUTES


@pytest.mark.parametrize("address", [*ADDRESSES, "http:\\evil"])
def test_links_lead_to_the_web_or_nowhere(address: str) -> None:
    seen = Seen(sanitize(f'<a href="{address}">x</a>'))
    ((tag, attributes),) = seen.tags
    assert (tag, seen.text) == ("a", "x")
    assert re.match("http:", attributes.get("href") or "http:")


def test_text_in_attributes_stays_text() -> None:
    given = "<p title='&quot;&gt; &lt;b> &amp;amp;'>x</p>"
    assert Seen(sanitize(given)).tags == [("p", {"title": '"> <b> &amp;'})]


def test_ordinary_links_stay() -> None:
    given = '<a href="https://example.org/?a=1&b=2">x</a><a href="mailto:a@b.org">y</a><a href=http://c>z</a>'
    beside = {"target": "_blank", "rel": "noopener noreferrer"}
    assert Seen(sanitize(given)).tags == [
        ("a", {"href": "https://example.org/?a=1&b=2", **beside}),
        ("a", {"href": "mailto:a@b.org", **beside}),
        ("a", {"href": "http://c", **beside}),
    ]


def test_a_real_test_s_text_stays(shared: Callable[[str], object]) -> None:
    contents = [page.content for page in load_config(shared("mushra/AES2023_webmushra_config.yaml")).flat()]  # type: ignore[arg-type]
    given = [content for content in contents if content]
    assert any("<p>" in content for content in given)
    for content in given:
        assert Seen(sanitize(content)).text == re.sub("<[^>]*>", "", content)


def test_sanitizing_again_changes_nothing_and_any_input_ends_safe() -> None:
    rng = random.Random(5)
    parts = ["<", ">", "</", "p", "script", "style", "b", " onload=x", "'", '"', "/", "&", ";", "#60", "lt"]
    parts += ["<!--", "-->", "a href=", "javascript:", "x", " ", "<svg", "<![CDATA[", "]]>", "\0", "<math"]
    for _ in range(3000):
        given = "".join(rng.choice(parts) for _ in range(rng.randrange(25)))
        shown = sanitize(given)
        assert sanitize(shown) == shown, given
        assert {tag for tag, _ in Seen(shown).tags} <= ELEMENTS, given
