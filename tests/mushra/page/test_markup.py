"""Markup of experimenters in a real browser: it shows what was written, and nothing of it runs or loads."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hostile_markup import ADDRESSES, HOSTILE

from mushra.config.load import load_config
from mushra.server.sanitize import sanitize

PUT = "html => { document.body.innerHTML = html; return document.body.innerHTML }"
#: All that a browser makes of markup that is allowed, but for links.
ALLOWED = [
    "<p>a<p>b</p></p>",
    "<p>one<br/>two<br />three<br>four<hr/>five",
    "<b><i>x</b>y</i>",
    "<b>open",
    "</p>x</b></ul>",
    "<ul><li>a<li>b<ul><li>c</ul></ul>",
    "<h1>Title</h1><p>Text, with: <em>signs</em> &amp; &lt;more&gt; &eacute; &#8222; a &nbsp; b",
    "<p><div>x</div></p><h2><p>y</h2>",
    "<table><tr><td colspan=2>a<td>b<tr><th scope=row>c</table>",
    "<table>lost<tr><td>x</table>",
    "<td>x</td><li>y</li><dt>z",
    "<p title='\"&<>' lang=de dir=rtl>x</p>",
    "<center><strong>x</strong></center><pre>\n a\n</pre>",
    "5 > 3 & 2 < 4",
]


def test_it_shows_what_a_browser_makes_of_it(
    open_page: Callable[..., Any], shared: Callable[[str], Any]
) -> None:
    page = open_page()
    pages = load_config(shared("mushra/AES2023_webmushra_config.yaml")).flat()
    for given in [*ALLOWED, *(one.content for one in pages if one.content)]:
        assert page.evaluate(PUT, sanitize(given)) == page.evaluate(PUT, given), given


def test_links_open_a_tab_of_their_own(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.evaluate(PUT, sanitize("<a href='https://example.org/?a=1&b=2'>x</a><a href=mailto:a@b.org>y</a>"))
    found = page.evaluate("[...document.links].map(({ href, target, rel }) => [href, target, rel])")
    beside = ["_blank", "noopener noreferrer"]
    assert found == [["https://example.org/?a=1&b=2", *beside], ["mailto:a@b.org", *beside]]


def test_nothing_runs_loads_or_leads_elsewhere(open_page: Callable[..., Any]) -> None:
    page = open_page(expected=("",))  # the control's own errors
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    # Without the sanitiser things do run here.
    page.evaluate(PUT, "<img src=data:, onerror='window.hit = 1'>")
    page.wait_for_function("window.hit === 1")
    page.evaluate("delete window.hit")
    asked.clear()
    for given in [*HOSTILE, *(f'<a href="{address}">x</a>' for address in ADDRESSES)]:
        shown = sanitize(given)
        # A second reading gives the same: nothing hides in how a browser corrects markup.
        assert page.evaluate(PUT, page.evaluate(PUT, shown)) == page.evaluate(PUT, shown), given
        links = page.evaluate("[...document.querySelectorAll('[href]')].map((one) => one.href)")
        assert all(re.match("https?:|mailto:", link) for link in links), given
        assert page.evaluate("document.body.querySelector('script, style, img, svg, iframe, form') === null")
    page.evaluate("() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)))")
    assert page.evaluate("window.hit") is None
    assert asked == []
