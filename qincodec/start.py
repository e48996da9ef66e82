"""Start of the three programs. It imports little: until `start` is called, Ctrl-C shows a traceback."""

from __future__ import annotations

import importlib
import os
import signal


def start(module: str) -> None:
    """Import ``module`` and call its ``main``. Meanwhile Ctrl-C ends the program silently, with 130."""
    interrupted = False

    def note(number: int, frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # in the background it is ignored
    if heard:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # no data can be lost yet
    main = importlib.import_module(module).main
    if heard:
        signal.signal(signal.SIGINT, note)
    try:
        main()
    except BaseException as error:
        # Libraries turn an interruption into other errors while they are imported.
        if interrupted and not (isinstance(error, SystemExit) and not error.code):
            raise SystemExit(130) from None
        raise
