"""The markup that an experimenter may use in a test's texts: an allow-list that nh3 applies.

Elements that are not on the list lose their tags and keep their text; script, style and similar ones lose the
text, too. Attributes are dropped unless listed. Addresses must be http, https or mailto. The result is nested
as a browser reads it: open elements are closed by the rules of HTML.
"""

from __future__ import annotations

import nh3

_TEXT = (
    "a abbr b bdi blockquote br center cite code del em i ins kbd mark p pre q s small span strong sub sup u"
)
_BLOCKS = "dd dl dt div figcaption figure h1 h2 h3 h4 h5 h6 hr li ol ul"
_TABLES = "caption table tbody td tfoot th thead tr"
#: Elements whose content is not text for a reader.
_DROPPED = "script style iframe object noscript template svg math title"

_CLEANER = nh3.Cleaner(
    tags={*_TEXT.split(), *_BLOCKS.split(), *_TABLES.split()},
    clean_content_tags={*_DROPPED.split()},
    attributes={
        "*": {"title", "lang", "dir"},
        "a": {"href"},
        "td": {"colspan", "rowspan"},
        "th": {"colspan", "rowspan", "scope"},
        "ol": {"start"},
    },
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
    # A link leaves a running test: it opens in a new tab and does not send the test's address.
    set_tag_attribute_values={"a": {"target": "_blank"}},
    link_rel="noopener noreferrer",
)


def sanitize(markup: str) -> str:
    """``markup`` reduced to the allow-list of this module, safe to put into a page."""
    return _CLEANER.clean(markup)
