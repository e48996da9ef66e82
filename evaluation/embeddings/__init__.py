"""Embeddings by name."""

from __future__ import annotations

from qincodec.core.plugins import Registry

EMBEDDINGS = Registry(
    "embedding",
    "qincodec.embeddings",
    "evaluation.embeddings.base:Embedding",
    {
        "logmel": "evaluation.embeddings.logmel:LogMel",
        "openl3": "evaluation.embeddings.openl3:OpenL3",
        "openl3-6144": "evaluation.embeddings.openl3:OpenL3Wide",
        "openl3-music": "evaluation.embeddings.openl3:OpenL3Music",
        "openl3-music-6144": "evaluation.embeddings.openl3:OpenL3MusicWide",
        "openl3-mel128": "evaluation.embeddings.openl3:OpenL3Mel128",
        "openl3-linear": "evaluation.embeddings.openl3:OpenL3Linear",
        "clap": "evaluation.embeddings.clap:Clap",
    },
)
