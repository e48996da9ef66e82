"""Offline quantizers of latents: one interface, looked up by name."""

from qincodec.core.plugins import Registry

#: Entry point group ``qincodec.quantizers`` adds quantizers of other packages.
QUANTIZERS = Registry(
    "quantizer",
    "qincodec.quantizers",
    "qincodec.quantizers.base:Quantizer",
    {
        "rvq": "qincodec.quantizers.rvq:RVQ",
        "irvq": "qincodec.quantizers.irvq:IRVQ",
        "qinco2": "qincodec.quantizers.qinco2:QINCO2",
        "faiss_rq": "qincodec.quantizers.faiss_additive:FaissRQ",
        "faiss_lsq": "qincodec.quantizers.faiss_additive:FaissLSQ",
        "fsq": "qincodec.quantizers.fsq:FSQ",
    },
    named_by="kind",
)
