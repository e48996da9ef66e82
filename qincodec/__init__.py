"""The reference codec of the QINCODEC paper, and what all four packages share: audio and errors."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("qincodec")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
