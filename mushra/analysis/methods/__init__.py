"""Listening tests other than MUSHRA: BS.1116, AB, ABX and "which is the reference?", ACR and DCR.

::

    from mushra.analysis.methods.load import load
    from mushra.analysis.methods.pipeline import analyze

    judgements = load("my_test")             # data base, export, webMUSHRA's CSV, as for `mushra.load`
    analysis = analyze(judgements, seed=0)   # one result for each method in the data
    analysis.results["abx"].pairs

Modules: `judgements` (the table), `load`, `grades` (means of grades and their intervals), `shares`
(proportions over listeners), one for each method (`bs1116`, `opinion`, `preference`, `detection`), `pipeline`
(all in one), `tables` (content of a report), `report`, `figures`.
"""
