"""What queries are of, from class counts that were made by hand."""

from pathlib import Path

import pandas as pd
import pytest
from journals import write

from jaxdal import metrics, page, queries, report, verdicts
from jaxdal.comparison import read

CURVES = {0: [0.5, 0.6, 0.7, 0.8], 1: [0.5, 0.6, 0.7, 0.8]}
MIXED = {  # queries of 10: (5, 3, 2), (4, 3, 3), (10, 0, 0) and (6, 0, 4), (4, 3, 3), (0, 1, 9)
    0: [[4, 3, 3], [9, 6, 5], [13, 9, 8], [23, 9, 8]],
    1: [[4, 3, 3], [10, 3, 7], [14, 6, 10], [14, 7, 19]],
}
EVEN = {seed: [[4, 3, 3], [9, 5, 6], [14, 7, 9], [19, 9, 12]] for seed in (0, 1)}  # (5, 2, 3) always


def test_a_query_is_the_difference_of_two_rounds() -> None:
    before, after = ({"class_counts": counts} for counts in ([4, 3, 3], [10, 3, 7]))
    assert metrics.bought(before, after) == (2, pytest.approx(0.6))
    for line, later in ((before, {}), ({}, after), (before, {"class_counts": None}), (before, before), ({}, {})):
        assert metrics.bought(line, later) == (None, None)


def test_table_of_queries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of runs that did not finish; not of methods whose journals do not tell."""
    write(tmp_path / "r", CURVES, counts=EVEN)
    write(tmp_path / "b", CURVES, counts=MIXED, strategy="badge")
    write(tmp_path / "m", {0: CURVES[0][:3], 1: [0.5, 0.6, None]}, counts=MIXED, strategy="margin")
    write(tmp_path / "e", CURVES, strategy="entropy")
    (one,) = read([tmp_path]).experiments
    table = queries.query_table(one)
    assert table.columns == [
        "method", "seeds", "queries", "classes, first query", "classes, all queries",
        "% of largest class, first query", "% of largest class, all queries",
    ]  # fmt: skip
    assert {row[0]: row[1:] for row in table.rows} == {
        "random": ["2", "6", "3", "3", "50.0", "50.0"],
        "badge": ["2", "6", "2.5 (2 to 3)", "2.3 (1 to 3)", "55.0 (50.0 to 60.0)", "63.3 (40.0 to 100.0)"],
        "margin": ["2", "3", "2.5 (2 to 3)", "2.7 (2 to 3)", "55.0 (50.0 to 60.0)", "50.0 (40.0 to 60.0)"],
    }  # margin: two queries of seed 0, and the first of seed 1, before the round in which it diverged
    assert report.main([str(tmp_path)]) == 0
    assert "2.3 (1 to 3)" in capsys.readouterr().out
    text = (tmp_path / "report.html").read_text()
    assert text.count("<h3>Queries</h3>") == 1
    assert "63.3 (40.0 to 100.0)" in text
    rounds = pd.read_csv(tmp_path / "report_rounds.csv").query("method == 'badge' and seed == 1")
    assert rounds["query_largest"].fillna(-1).to_list() == [0.6, 0.4, 0.9, -1]
    assert rounds["query_classes"].fillna(-1).to_list() == [2, 3, 2, -1]


def test_journals_that_do_not_tell_have_no_such_table(tmp_path: Path) -> None:
    write(tmp_path / "r", CURVES)
    found = read([tmp_path])
    assert not queries.query_table(found.experiments[0]).rows
    assert "Queries" not in page.render(found, [verdicts.judge(found.experiments[0])], "command")


@pytest.mark.parametrize(("folder", "method", "column", "told"), [
    ("digits_cpu/digits", "bald", "% of largest class, first query", "38.6 (23.9 to 53.5)"),
    ("digits_cpu/digits", "random", "% of largest class, first query", "15.8 (14.1 to 18.3)"),
    ("gtsrb_subset_cpu", "core_gcn(subset='first')", "classes, all queries", "9.7 (8 to 11)"),
    ("gtsrb_subset_cpu", "uncertain_gcn", "classes, all queries", "34.5 (27 to 41)"),
    ("gtsrb_subset_cpu", "uncertain_gcn(subset='first')", "classes, all queries", "8.3 (7 to 10)"),
    ("gtsrb_subset_cpu", "random", "classes, all queries", "43"),
])  # fmt: skip
def test_numbers_of_results_md(folder: str, method: str, column: str, told: str) -> None:
    (one,) = read([Path(__file__).parent.parent / "experiments/results" / folder]).experiments
    table = queries.query_table(one)
    row = next(row for row in table.rows if row[0] == method)
    assert row[table.columns.index(column)] == told
