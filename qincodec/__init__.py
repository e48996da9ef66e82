"""The reference codec of the QINCODEC paper, and the parts that all four packages share: audio and errors."""

__version__: str


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # On use: every program imports this package first, and finding the version takes longer than the import.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("qincodec")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"
