"""``evaluate weights``: list the pretrained files, and download them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from baselines.weights_files import WeightsFile

weights_app = typer.Typer(add_completion=False)


@weights_app.callback(invoke_without_command=True)
def show(context: typer.Context) -> None:
    """List every pretrained file: what needs it, its source, licence, hash, and whether it is here.

    Files that are here are verified. `evaluate weights fetch NAME` downloads one.
    """
    if context.invoked_subcommand is not None:
        return
    from baselines import weights, weights_files

    _load_plug_ins()
    print(f"Cache: {weights_files.folder()} (set QINCODEC_CACHE for another place)")
    for file in weights.FILES.values():
        print(f"\n{file.name}, for {file.used_by}")
        print(f"  file     {file.filename}")
        print(f"  from     {file.url}")
        print(f"  licence  {file.licence}; {file.attribution}")
        print(f"  digest   {file.published or 'not published: the first copy is trusted and recorded'}")
        print(f"  here     {_state(file)}")


def _load_plug_ins() -> None:
    """Load the plug-ins: a plug-in adds its weights files when its module is loaded."""
    from contextlib import suppress

    from baselines.registry import CODECS
    from evaluation.embeddings import EMBEDDINGS
    from qincodec.core.errors import UserError

    for registry in (CODECS, EMBEDDINGS):
        for name in registry.names():
            if not registry.is_own(name):
                with suppress(UserError):
                    registry.load(name)


def _state(file: WeightsFile) -> str:
    from baselines import weights
    from qincodec.core.errors import UserError

    try:
        path = weights.find(file.name)
    except UserError as error:
        return f"no: {error}"
    if path is None:
        place = weights.cached_path(file.name)
        part = place.with_name(f"{file.filename}.part")
        size = f", {file.size / 1e6:.1f} MB" if file.size else ""
        begun = f", {part.stat().st_size / 1e6:.1f} MB of a broken download exist" if part.is_file() else ""
        return f"no{size}{begun}: evaluate weights fetch {file.name}, or put it at {place}"
    checked = "verified" if file.published else "as first seen"
    return f"yes, {path.stat().st_size / 1e6:.1f} MB, {checked}, sha256 {weights.sha256(path)}"


@weights_app.command()
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME", help="Files that `evaluate weights` lists, or a codec for all files it needs."
        ),
    ],
) -> None:
    """Download files into the cache and verify them; a broken download continues where it stopped.

    Prints where each file is.
    """
    from baselines import weights

    _load_plug_ins()
    wanted: dict[str, None] = {}
    for name in names:
        group = [] if name in weights.FILES else weights.files_of(name)
        for file in group or [weights.entry(name)]:
            wanted[file.name] = None
    for name in wanted:
        print(f"{name}\t{weights.obtain(name)}", flush=True)
