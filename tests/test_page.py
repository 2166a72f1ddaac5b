"""The page of a comparison, and its tables on a terminal."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from journals import BETTER, RANDOM, judged, write

from jaxdal import figures, page, report, verdicts
from jaxdal.comparison import read


class Links(HTMLParser):
    """What a page would load, and whether every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what it loads."""
        self.loaded += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost element."""
        assert self.open.pop() == tag


def test_command_writes_a_page_that_needs_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in" / "r", RANDOM, dataset="npz:<script>alert(1)</script>")
    write(tmp_path / "in" / "b", BETTER, dataset="npz:<script>alert(1)</script>", strategy="badge")
    write(tmp_path / "in" / "c", {0: RANDOM[0], 1: [None]}, strategy="coreset")
    assert report.main([str(tmp_path / "in" / "r"), str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "badge" in told
    assert "+3.08" in told
    assert "diverged" in told
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"report{end}" for end in (".html", "_methods.csv", "_rounds.csv", "_runs.csv", "_penalties.csv")}
    text = (tmp_path / "out" / "report.html").read_text()
    links = Links()
    links.feed(text)
    assert links.open == []
    assert links.loaded
    assert all(link.startswith("data:image/svg+xml;base64,") for link in links.loaded)
    assert "<script>alert" not in text
    assert not re.search(r"@import|url\(", text)
    assert text.index("What was run") < text.index("Not complete") < text.index("Verdicts")
    frame = pd.read_csv(tmp_path / "out" / "report_methods.csv", index_col=[0, 1])
    assert frame.xs("badge", level=1)["api"].iloc[0] == pytest.approx(3.075)
    rounds = pd.read_csv(tmp_path / "out" / "report_rounds.csv")
    assert len(rounds) == 4 * 6 + 4
    assert len(pd.read_csv(tmp_path / "out" / "report_runs.csv")) == 8


def test_penalties_on_the_page_are_means_of_what_could_be_tested(tmp_path: Path) -> None:
    for name, curves in (("random", RANDOM), ("badge", BETTER), ("margin", {0: RANDOM[0]})):
        write(tmp_path / name, curves, strategy=name)
    (verdict,) = judged(tmp_path)
    rows = re.findall(r"<tr><th scope=row>(.*?)</th>(.*?)</tr>", page._heat(verdict.penalties))
    found = {
        name: [cell or whole for whole, cell in re.findall(r"<td[^>]*>(?:<b>)?(([^<]*))", cells)]
        for name, cells in rows
    }
    assert list(found) == ["badge", "random", "margin", "is beaten (less is better)"]
    assert found["badge"] == ["·", "0.75", "–", "0.75"]
    assert found["margin"] == ["–", "–", "·", "–"]
    assert found["is beaten (less is better)"] == ["0.00", "0.75", "–", ""]


def test_page_of_runs_that_never_finished_a_round(tmp_path: Path) -> None:
    write(tmp_path / "r", {0: [None], 1: [None]})
    (verdict,) = judged(tmp_path)
    text = page.render(read([tmp_path]), [verdict], "x")
    assert "Not complete: 2 of 2 runs" in text


def test_page_is_the_same_for_the_same_input(tmp_path: Path) -> None:
    write(tmp_path / "r", {0: RANDOM[0]})
    pages: list[Any] = [page.render(read([tmp_path]), judged(tmp_path), "x") for _ in range(2)]
    assert pages[0] == pages[1]
    assert "Nothing is missing: all 1 runs are complete" in pages[0]


class Terminal(io.StringIO):
    """A file that takes itself for a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def plain(file: Terminal) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())


def words(text: str) -> set[str]:
    return set(re.findall(r"[^\s,.]+", text))


@pytest.mark.parametrize("columns", [60, 80, 250])
def test_narrow_terminals_get_whole_cells_of_all_columns(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    write(tmp_path / "r", RANDOM)
    write(tmp_path / "b", BETTER, strategy="badge")
    long = "ssl_diff2aug_direct + mixmatch(average=0.99, ramp_epochs=16)"
    (verdict,) = judged(tmp_path)
    for table in (verdicts.verdict_table(verdict), verdicts.cost_table(verdict)):
        rows = [[long if cell == "badge" else cell for cell in row] for row in table.rows]
        file = Terminal()
        report._print_cells(table._replace(rows=rows), file)
        text = plain(file)
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= columns
        told = " ".join(text.split())
        assert all(cell in told for row in table.rows for cell in row[1:])
        assert words(" ".join(table.columns)) <= words(text)
        blocks = sum(set(line.strip()) == {"─"} for line in text.splitlines())
        assert told.count("ssl_diff2aug_direct") == blocks, "a name stands before each part of its row"
        assert (blocks > 1) == (columns <= 80)


def test_columns_without_a_number_are_named_below(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "r", {0: RANDOM[0]})
    write(tmp_path / "b", {0: BETTER[0]}, strategy="badge")
    (verdict,) = judged(tmp_path)
    table = verdicts.verdict_table(verdict)
    report._print_cells(table)
    heading, *_, note, _ = capsys.readouterr().out.splitlines()[1:]
    assert note == "Without a number in any row: p (t), p (Wilcoxon), API best epoch, API balanced, balanced."
    assert " ".join(heading.split()) == "method n API verdict without round 0 final accuracy AUBC labels saved rank"
    assert "<th scope=col>p (t)</th>" in page.render(read([tmp_path]), [verdict], "x"), "the page has all columns"


def test_experiments_are_numbers_with_their_names_below(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for epochs in (5, 6):
        write(tmp_path / f"r{epochs}", RANDOM, epochs=epochs)
        write(tmp_path / f"b{epochs}", BETTER, strategy="badge", epochs=epochs)
    assert report.main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.partition("API on all experiments\n")[2].splitlines()
    assert lines[0].split() == ["method", "1", "2"]
    assert lines[2:4] == ["1: digits · lenet · paper · epochs=5", "2: digits · lenet · paper · epochs=6"]


def test_panels_give_an_outlier_a_scale_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "r", RANDOM)
    for number, name in enumerate(["badge", "margin", "entropy", "coreset"]):
        worse = {seed: [share - 0.4 for share in shares] for seed, shares in RANDOM.items()}
        write(tmp_path / name, BETTER if number else worse, strategy=name)
    (verdict,) = judged(tmp_path)
    pictures = figures.panels(verdict.experiment, verdict.table)
    assert {name for name, panel in pictures.items() if panel.own_scale} == {"badge"}
    assert all(panel.svg.startswith("<svg") for panel in pictures.values())
    assert list(pictures) == verdict.experiment.methods


def test_columns_of_the_csv_files_are_documented(tmp_path: Path) -> None:
    write(tmp_path / "r", RANDOM)
    write(tmp_path / "b", BETTER, strategy="badge")
    text = (Path(__file__).parent.parent / "docs" / "report.md").read_text().partition("## Columns of the CSV")[2]
    documented = set(re.findall(r"`(\w+)`", text))
    documented |= {f"{name}_sd" for name in documented} | {f"{name}_holm" for name in documented}
    for name, sheet in verdicts.spreadsheets(judged(tmp_path)).items():
        columns = {column.replace("_shared", "") for column in sheet.partition("\n")[0].split(",")}
        if name != "penalties":
            assert columns <= documented, name
