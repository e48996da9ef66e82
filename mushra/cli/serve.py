"""``mushra serve``, ``sign-in``, ``invite``, ``backup``, ``forget``, ``export``, ``import`` and ``demo``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mushra.cli.options import (
    Blocks,
    CompletionCode,
    Database,
    HeadphoneCheck,
    Identification,
    Key,
    Languages,
    MinHeard,
    OncePerPerson,
    Panel,
    Quota,
    Redirect,
    section_values,
)
from mushra.config.locate import database_of
from qincodec.core.errors import UserError, count

if TYPE_CHECKING:
    from mushra.analysis.sources import Source
    from mushra.config.pages import TestConfig
    from mushra.server.service import Service
    from mushra.store.store import Store

DEFAULT_PORT = 8000
#: Larger bodies are refused before the application sees them.
MAX_BODY_BYTES = 10 * 1024 * 1024

_TEST = typer.Argument(metavar="TEST", help="Folder of `mushra create`, or a webMUSHRA YAML file.")
TestOrFile = Annotated[
    str,
    typer.Argument(
        metavar="TEST|FILE|URL",
        help="Folder or YAML file of a test, or its data base (file, postgresql://...).",
    ),
]


def register(app: typer.Typer) -> None:
    """Add this module's commands to ``mushra``."""
    app.command("serve")(serve)
    app.command("sign-in")(sign_in)
    app.command("invite")(invite)
    app.command("backup")(backup)
    app.command("forget")(forget)
    app.command("export")(export)
    app.command("import")(import_)
    app.command("demo")(demo)


def serve(
    test: Annotated[Path | None, _TEST] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 means all addresses of this machine.")
    ] = ("127.0.0.1"),
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port to listen at; 0 takes a free one.")
    ] = DEFAULT_PORT,
    database: Database = None,
    webmushra: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Checkout of webMUSHRA whose own pages are served, with our storage."
        ),
    ] = None,
    submissions: Annotated[
        bool,
        typer.Option(
            "--submissions",
            help="Also accept whole sessions from webMUSHRA's page elsewhere, at service/write.php."
            " --webmushra includes this.",
        ),
    ] = False,
    public_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address at which listeners reach the server, used in all links. Default: host and port.",
        ),
    ] = None,
    prefix: Annotated[
        str,
        typer.Option(metavar="/PATH", help="Path below which everything is served; it is part of all links."),
    ] = "",
    trusted_proxies: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, max=5, help="Number of reverse proxies whose X-Forwarded headers are trusted."
        ),
    ] = 0,
    admin_password: Annotated[
        str | None,
        typer.Option(
            envvar="MUSHRA_ADMIN_PASSWORD",
            help="New admin password; only its hash is stored. The variable is safer than the option.",
            show_envvar=True,
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option(metavar="N", min=1, max=64, help="Requests handled at the same time.")
    ] = 24,
    qr: Annotated[bool, typer.Option(help="Print the listeners' link as a QR code.")] = True,
    closed: Annotated[
        bool,
        typer.Option("--closed", help="Let nobody new begin until the test is opened on the admin pages."),
    ] = False,
    panel_secret: Annotated[
        str | None,
        typer.Option(
            envvar="MUSHRA_PANEL_SECRET",
            help="Secret with which a panel signs its links. The variable is safer than the option.",
            show_envvar=True,
        ),
    ] = None,
    identification: Identification = None,
    completion_code: CompletionCode = None,
    redirect: Redirect = None,
    languages: Languages = None,
    headphone_check: HeadphoneCheck = False,
    once_per_person: OncePerPerson = False,
    blocks: Blocks = None,
    quota: Quota = None,
    min_heard: MinHeard = None,
    panel: Panel = None,
) -> None:
    """Serve a listening test; print the listeners' link and an admin link that works once.

    Options that `mushra create` also has are written into the test's YAML.
    """
    import logging
    import signal

    from mushra.server import address, create_app
    from mushra.server.connections import make_server
    from mushra.server.sign_in import new_link, set_password
    from mushra.store.records import set_closed

    changes = section_values(
        identification,
        completion_code,
        redirect,
        languages,
        headphone_check,
        once_per_person,
        blocks,
        quota,
        min_heard,
        panel,
    )
    if test is None and (changes or closed):
        raise UserError("options for listeners are kept in a test's YAML, and none is given; give TEST, too")
    if test is None and webmushra is None:
        raise UserError("no test given; give the folder of `mushra create`, a YAML file, or --webmushra PATH")
    config = _checked(test) if test is not None else None
    if config is None and database is None:
        assert webmushra is not None
        folder = webmushra / "results"  # webMUSHRA's own results are here; the folder is never served
        if webmushra.is_dir():
            folder.mkdir(exist_ok=True)
        database = str(folder / "results.sqlite")
    if database is None:
        assert test is not None
        database = str(database_of(test))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # "Task queue depth" does not help an experimenter.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    prefix = address.clean_prefix(prefix)
    public_url = address.clean_url(public_url) if public_url is not None else None
    app = create_app(
        config,
        database,
        webmushra_folder=webmushra,
        submissions=submissions,
        prefix=prefix,
        trusted_proxies=trusted_proxies,
        panel_secret=panel_secret,
    )
    here: Service = app.extensions["mushra"]
    store = here.store
    try:
        if changes:
            _write_options(here, changes)
        if closed and (served := here.test) is not None:
            store.write(lambda connection: set_closed(connection, served, True))
        if admin_password is not None:
            set_password(store, admin_password)
        try:
            server = make_server(
                app,
                host,
                port,
                threads=threads,
                max_body_bytes=MAX_BODY_BYTES,
                behind_proxy=trusted_proxies > 0,
            )
        except OSError as error:
            raise UserError(
                f"cannot listen at {host}:{port}: {error.strerror or error}; choose another --port or --host"
            ) from error
        port = int(getattr(server, "effective_port", None) or server.effective_listen[0][1])
        base = here.public_address = address.public_address(public_url, host, port, prefix)
        address.keep_address(store, here.test, base, prefix)
        query = f"?config={config.path.name}" if webmushra is not None and config is not None else ""
        print(f"Listeners: {base}{query}")
        print(f"Admin:     {base}admin/sign-in#{new_link(store)}   (works once)")
        print(f"Results:   {store.name}")
        warning = address.loopback_warning(base)
        if warning is not None:
            print(f"warning: {warning}", file=sys.stderr)
        elif qr:
            _print_qr(base + query)
        print("Ctrl-C stops the server; confirmed ratings are on the disk.", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a KeyboardInterrupt
        try:
            server.run()
        finally:
            server.close()
    finally:
        store.close()


def _write_options(here: Service, changes: dict[tuple[str, ...], object]) -> None:
    """Write options into the section ``qincodec`` of the YAML. Raises `UserError`."""
    from mushra.config.edit import revise
    from mushra.server.changing import save

    assert here.config is not None
    path = here.config.path
    located: dict[tuple[str | int, ...], object] = {
        ("qincodec", *place): value for place, value in changes.items()
    }
    save(here, revise(path, here.config.root, path.read_bytes(), located))


def _checked(test: Path) -> TestConfig:
    """The test; prints its warnings and raises if it has errors."""
    from mushra.check import check_config
    from mushra.config.load import ConfigError, load_config

    findings = check_config(test)
    for finding in findings:
        if finding.severity == "warning":
            print(finding, file=sys.stderr)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise ConfigError(errors)
    return load_config(test)


def _print_qr(link: str) -> None:
    import segno

    if sys.stdout.isatty():
        segno.make(link, error="m").terminal(compact=True)


def _open(given: str, database: str | None) -> tuple[Store, Source]:
    """The data base of a test, or the given data base.

    Raises:
        UserError: it does not exist or cannot be opened.
    """
    from mushra.analysis.sources import find_database
    from mushra.store.store import Store

    source = find_database(given, database)
    return Store(source.path, create=False), source


def sign_in(test: Annotated[Path, _TEST], database: Database = None) -> None:
    """Print a new admin link of a served test; it works once, within a day."""
    from mushra.config.load import load_config
    from mushra.server.sign_in import new_link
    from mushra.store.store import Store

    test_id = load_config(test).test_id
    with Store(database or database_of(test), create=False) as store:
        print(f"{_address(store, test_id, None)}admin/sign-in#{new_link(store)}")
        print(f"the link works where '{store.name}' is served, not at a copy's server", file=sys.stderr)


def _address(store: Store, test_id: str, public_url: str | None) -> str:
    """Address of a test: the given one, or what `mushra serve` printed last; warns if it may be wrong."""
    from mushra.server import address

    kept = address.kept_address(store, test_id)
    prefix = kept.prefix if kept is not None else ""
    base = address.public_address(public_url, "127.0.0.1", DEFAULT_PORT, prefix)
    if public_url is None and kept is not None:
        base = kept.address
    elif public_url is None:
        print("warning: the test was not served yet; links are those of `mushra serve`", file=sys.stderr)
    warning = address.loopback_warning(base)
    if warning is not None:
        print(f"warning: {warning}", file=sys.stderr)
    return base


def invite(
    test: Annotated[Path, _TEST],
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Person to invite. Repeatable.")],
    database: Database = None,
    public_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address of the server for listeners, as for `mushra serve`; its --prefix is added."
            " Default: the address that it printed last.",
        ),
    ] = None,
) -> None:
    """Make a personal link for each name; it works once and resumes its session until that is finished.

    Each line has a name, a tab and a link. The test needs `identification: invitation`.
    """
    from mushra.config.load import load_config
    from mushra.server import address
    from mushra.store import records
    from mushra.store.store import Store

    config = load_config(test)
    if config.section.identification != "invitation":
        raise UserError(
            f"'{config.path}' takes listeners as '{config.section.identification}'; to use invitations, serve"
            ' it with `--identification invitation`, or set it on the admin page "Test"'
        )
    if public_url is not None:
        address.clean_url(public_url)
    with Store(database or database_of(test)) as store:
        base = _address(store, config.test_id, public_url)
        try:
            tokens = store.write(lambda connection: records.invite(connection, config.test_id, names))
        except records.Refused as error:
            raise UserError(str(error)) from error
        for name, token in tokens.items():
            print(f"{name}\t{base}?t={token}")


def backup(
    test: TestOrFile,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder; it must not exist yet.")],
    database: Database = None,
) -> None:
    """Copy a test with its results, even while it is served; OUT can be served and analyzed like TEST."""
    from mushra.server.backup import make_backup

    store, source = _open(test, database)
    with store:
        missing = make_backup(store, source.test, source.key, out)
    for path in missing:
        print(
            f"warning: '{path}' is not in the backup: it is missing, or a link leads out of the test to it",
            file=sys.stderr,
        )
    print(out)


def forget(
    test: TestOrFile,
    listener: Annotated[
        str,
        typer.Argument(metavar="LISTENER", help="Listener's name in reports, on admin pages or in a panel."),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Erase. Default: only say what would be erased.")] = (
        False
    ),
    database: Database = None,
) -> None:
    """Erase everything about a listener for good: sessions, ratings, answers, names."""
    from mushra.analysis.screening import find_listener
    from mushra.store import records, schema
    from mushra.store.failures import store_errors

    store, _ = _open(test, database)
    with store:
        with store_errors(store.name), store.read() as connection:
            known = schema.listeners(connection)
            people = schema.people(connection)
        if not known:
            raise UserError(f"nobody has begun a test of '{store.name}' yet; there is nothing to erase")
        named = {known[session] for session, person in people.items() if person == listener}
        who = min(named) if len(named) == 1 else find_listener(listener, set(known.values()))
        sessions = [session for session, one in known.items() if one == who]
        what = f"{count(len(sessions), 'session')} of {who}"
        if not yes:
            raise UserError(f"{what} would be erased for good; --yes erases them; copies and exports stay")
        store.write(lambda connection: records.erase(connection, *sessions))
        left = store.forget_erased()
    print(f"{what} erased; erase them in copies and exports, too")
    if left is not None:
        print(
            f"warning: '{left}' still has them, because another program reads the data base; end it, then"
            " check that the file is gone or empty",
            file=sys.stderr,
        )


def export(
    test: TestOrFile,
    format: Annotated[
        Literal["webmushra", "tidy", "json"],
        typer.Option(
            metavar="webmushra|tidy|json",
            help="Format: webMUSHRA's CSV files; one row per MUSHRA rating; everything, with configuration"
            " and versions.",
        ),
    ] = "webmushra",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Output folder. Default: `results` in the test's folder; for an address, in this folder.",
        ),
    ] = None,
    database: Database = None,
    key: Key = None,
    no_key: Annotated[
        bool, typer.Option("--no-key", help="Keep the opaque names that listeners' browsers had.")
    ] = (False),
    everything: Annotated[
        bool, typer.Option("--all", help="Include unfinished and excluded sessions and training pages.")
    ] = False,
) -> None:
    """Write results to files and print their names."""
    from mushra.config.load import load_config
    from mushra.store.export import export as export_to

    if key is not None and no_key:
        raise UserError("--key and --no-key exclude each other; give one")
    store, source = _open(test, database)
    with store:
        key = None if no_key else key or source.key
        test_id = None if source.test is None else load_config(source.test).test_id
        home = Path(source.test or (source.path if isinstance(source.path, Path) else "."))
        folder = out or (home if home.is_dir() else home.parent) / "results"
        done = export_to(store, folder, format, key=key, test=test_id, everything=everything)
    for path in done.files:
        print(path)
    left_out = f"; {done.left_out} unfinished or excluded left out (--all)" if done.left_out else ""
    if done.not_given:
        print(
            f"{count(done.not_given, 'score')} that nobody gave (the slider was not moved) left out of"
            " webMUSHRA's CSV, which cannot mark them; --format tidy and --format json hold all",
            file=sys.stderr,
        )
    applied = f"; names from {key}" if key is not None else ""
    print(f"{count(done.sessions, 'session')}{left_out}{applied}", file=sys.stderr)


def import_(
    files: Annotated[
        list[Path], typer.Argument(metavar="CSV", help="CSV files of webMUSHRA, such as mushra.csv.")
    ],
    database: Annotated[
        str,
        typer.Option(metavar="FILE|URL", envvar="MUSHRA_DATABASE", help="Data base; it is made if needed."),
    ] = "results.sqlite",
) -> None:
    """Store the sessions of webMUSHRA's CSV files; sessions that are already stored stay as they are."""
    from mushra.store.export import import_csv
    from mushra.store.store import Store

    with Store(database) as store:
        for path in files:
            new, known = import_csv(store, path)
            print(f"{path}: {count(new, 'session')} stored, {known} were there already")


def demo(
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder for run and test; an earlier demo there is served again, with its results.",
        ),
    ] = Path("mushra-demo"),
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port to listen at; 0 takes a free one.")
    ] = DEFAULT_PORT,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
) -> None:
    """Make a small test from the demo clips (Opus and MP3 at 16 kbit/s) and serve it."""
    from mushra.create.demo import make_demo

    folder = make_demo(out)
    serve(folder, host, port)
