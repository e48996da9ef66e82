"""Change the configuration of a running test: in the data base, in memory and in the file, or not at all."""

from __future__ import annotations

import threading

import sqlalchemy as sa

from mushra.config.edit import Revised, comparison
from mushra.server.files import Stimuli
from mushra.server.service import Service, check_panel, new_key, versions
from mushra.store import records
from qincodec.core.errors import UserError

_ONE_AT_A_TIME = threading.Lock()


class Begun(UserError):
    """A change of the comparison in a test that has sessions."""

    def __init__(self) -> None:
        super().__init__(
            "a session has begun: what listeners compare, and by which rules, cannot change any more, because"
            " ratings before and after could not be analysed together. Erase the sessions that were only"
            " trials, or make another test from a copy of the folder with another testId"
        )


def save(here: Service, revised: Revised) -> None:
    """Serve a revised test and write its file, or neither.

    Raises:
        Begun: the comparison would change although a session has begun.
        UserError: another ``testId``, stimuli that cannot be used, a file that cannot be written.
        StoreUnavailable: the data base cannot be written.
    """
    config, stimuli, digest = here.config, here.stimuli, here.config_sha256
    assert config is not None and stimuli is not None
    test = config.test_id
    if revised.config.test_id != test:
        raise UserError(f"the file has another testId than '{test}', which is served; start the server again")
    if here.submissions and revised.config.section.identification != "anonymous":
        raise UserError(
            "webMUSHRA's own page cannot identify listeners; with it, the test takes anonymous listeners only"
        )
    check_panel(revised.config, here.panel_secret)
    new = Stimuli(revised.config, here.store.meta("secret", new_key), here.cache / "anchors")
    same = comparison(revised.config) == comparison(config) and new.hashes() == stimuli.hashes()
    content = versions(new)

    def change(connection: sa.Connection) -> None:
        # No session begins between the count and the change: both happen while the test's row is locked.
        if records.count_sessions(connection, test) and not same:
            raise Begun
        records.ensure_test(connection, test, revised.config.testname)
        here.change(revised.config, new, records.ensure_config(connection, test, revised.text, content))

    with _ONE_AT_A_TIME:
        if config.path.read_bytes() != revised.old or here.config_sha256 != digest:
            raise UserError("the test was saved elsewhere meanwhile; compare your entries, and save again")
        try:
            here.store.write(change)
            revised.write()
        except BaseException:
            here.change(config, stimuli, digest)
            raise
