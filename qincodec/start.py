"""How the three programs begin. It imports little: until `start` is called, Ctrl-C shows a traceback."""

from __future__ import annotations

import importlib
import os
import signal


def start(module: str) -> None:
    """Import ``module`` and call its ``main``. Ctrl-C meanwhile ends the program in silence, with 130."""
    interrupted = False

    def note(number: int, frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # in the background it is ignored
    if heard:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # nothing is open yet that could be lost
    main = importlib.import_module(module).main
    if heard:
        signal.signal(signal.SIGINT, note)
    try:
        main()
    except BaseException as error:
        # Libraries make other errors of an interruption while they are imported.
        if interrupted and not (isinstance(error, SystemExit) and not error.code):
            raise SystemExit(130) from None
        raise
