"""The paper's values equal those in its text, which is read here a second time."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation.paper import printed as content
from evaluation.paper.tables import Entry

Shared = Callable[[str], Path]


def read_tables(text: str) -> dict[float, list[tuple[str, list[float]]]]:
    """kbps -> (row of the text, its numbers) in the order of the text."""
    tables: dict[float, list[tuple[str, list[float]]]] = {}
    for begin, kbps in re.findall(r"(QUANTITATIVE EVALUATION OF THE PROPOSED MODEL AT (\d+) KBPS)", text):
        rows = []
        for line in text.split(begin)[1].splitlines():
            numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?(?=\t|$)", line)]
            if len(numbers) >= 5:
                rows.append((line, numbers[-5:]))
            if "QINCODEC\tQINCO2" in line:
                break
        tables[float(kbps)] = rows
    return tables


def test_all_values_are_those_of_the_text(shared: Shared) -> None:
    tables = read_tables(shared("paper/qincodec.txt").read_text(encoding="utf-8"))
    assert sorted(tables) == [8.0, 16.0]
    compared = 0
    for kbps, rows in tables.items():
        assert len(rows) == 6
        for wanted, (line, numbers) in zip(content.COMPARISON, rows, strict=True):
            if wanted.finetuned is None:
                assert line.split("\t")[0].lower() == wanted.key
            else:
                # The text's tick of the third row came out as "1".
                _, quantizer, mark, *_ = line.split("\t")
                assert quantizer.lower() == wanted.key.removesuffix(content.FINETUNED)
                assert (mark.strip() in "✓1") == wanted.finetuned
            for column, number in zip(content.COLUMNS, numbers, strict=True):
                assert content.printed(kbps, wanted.key, column.key) == number
                compared += 1
    assert compared == 60 and sum(map(len, content.VALUES.values())) == 60


def test_the_text_has_no_numbers_for_the_rest(shared: Shared) -> None:
    text = shared("paper/qincodec.txt").read_text(encoding="utf-8")
    after = text.split("TABLE III", 1)[1].split("Fig. 4.")[0]
    assert not re.search(r"\d\.\d", after)
    assert content.printed(16, content.RVQ, "si_sdr") is None
    assert content.printed(16, content.QINCO2, content.LATENT_ERROR) is None
    assert content.printed(24, content.QINCO2, "si_sdr") is None


def test_difference_is_here_minus_paper() -> None:
    assert Entry(7.0, paper=7.55).difference == pytest.approx(-0.55)
    assert Entry(None, paper=7.55).difference is None and Entry(7.0).difference is None
