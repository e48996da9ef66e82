"""The command ``mushra``."""

from __future__ import annotations

import sys

from qincodec import __version__
from qincodec.errors import EXIT_OK, EXIT_USER_ERROR

TEXT = f"""mushra {__version__}

Listening tests are not part of this version: it evaluates codecs (see `evaluate --help`), and
`evaluate --save-audio` writes the decoded files a listening test is made from.
"""


def main() -> None:
    """Say what this version can do; asking for help is no error, asking for a test is."""
    if sys.argv[1:] in ([], ["--help"], ["--version"]):
        print(TEXT, end="")
        raise SystemExit(EXIT_OK)
    print(f"mushra: '{sys.argv[1]}' is not part of this version; see `mushra --help`", file=sys.stderr)
    raise SystemExit(EXIT_USER_ERROR)
