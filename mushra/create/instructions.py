"""Instructions to listeners, written in Markdown."""

from __future__ import annotations

from pathlib import Path

from mushra.config.values import MAX_TAGS
from qincodec.core.errors import UserError

#: Nobody reads more.
_MAX_BYTES = 100_000


def read_instructions(path: Path) -> str:
    """A Markdown file as HTML. Markup in it is kept; `mushra.server.sanitize` decides what is shown.

    Raises:
        UserError: the file cannot be read, is not UTF-8, is empty, or is too long.
    """
    from markdown_it import MarkdownIt

    try:
        text = path.read_bytes().decode("utf-8-sig") if path.stat().st_size <= _MAX_BYTES else None
    except OSError as error:
        raise UserError(
            f"cannot read instructions '{path}': {error.strerror or error}; give a Markdown file"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"instructions '{path}' are not UTF-8; save the file as UTF-8") from error
    if text is None:
        raise UserError(f"instructions '{path}' have more than {_MAX_BYTES} bytes; shorten them")
    html = MarkdownIt("commonmark").enable("table").render(text).strip()
    if not html:
        raise UserError(f"instructions '{path}' are empty; write some, or leave --instructions out")
    if html.count("<") > MAX_TAGS:
        raise UserError(f"instructions '{path}' make more than {MAX_TAGS} tags; shorten them")
    return html
