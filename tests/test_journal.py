"""The journal: what is written is read back, what a kill tears is dropped, and nothing else is ever touched."""

import copy
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lines import CONFIG, HERE, POOL, dead, group, line, refused, restart, written

from jaxdal import journal
from jaxdal.errors import InputError
from jaxdal.journal import Journal


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    with Journal.start(tmp_path / "new" / "folder", CONFIG, HERE) as book:
        assert book.groups == []
        book.append([line(2, 0), line(3, 0), line(1, 0)])  # any order: it is put right
        book.append(group(1))
        assert book.groups == [group(0), group(1)]
        header, groups = journal.read(tmp_path / "new" / "folder")  # while it is in use
    assert header == {"format": 1, "config": CONFIG, "environment": HERE}
    assert groups == [group(0), group(1)]
    assert restart(tmp_path, (tmp_path / "new" / "folder" / "journal.jsonl").read_bytes()) == groups


def test_bytes_are_compact_ordered_json_lines(tmp_path: Path) -> None:
    shuffled = [dict(reversed(list(one.items()))) for one in group(0)]
    with Journal.start(tmp_path, CONFIG, HERE) as book:
        book.append(shuffled)
    lines = (tmp_path / "journal.jsonl").read_text("utf-8").splitlines()
    assert lines[1].startswith('{"seed":3,"round":0,"labelled":4,"accuracy":0.5,"accuracy_best":null,')
    assert [list(json.loads(text)) for text in lines[1:]] == [
        [key for key in journal.KEYS if key not in ("diverged", "selected_at_once", "lanes", "devices")]
        for _ in range(3)
    ]


def test_arrays_become_numbers_and_nan_is_refused(tmp_path: Path) -> None:
    arrays = {"picks": np.asarray(line(3, 0)["picks"], np.int32), "labelled": np.int64(4), "accuracy": np.float64(0.5)}
    with Journal.start(tmp_path, {**CONFIG, "seeds": (3,), "pool": np.int32(POOL)}, HERE) as book:
        before = book.path.read_bytes()
        with pytest.raises(ValueError, match="JSON compliant"):
            book.append([line(3, 0, accuracy=float("nan"))])
        with pytest.raises(TypeError, match="not a value for the journal"):
            book.append([line(3, 0, note=object())])
        assert book.path.read_bytes() == before
        book.append([line(3, 0, **arrays)])
        assert book.groups == [[line(3, 0)]]


@pytest.mark.parametrize(
    "config", [{"seeds": [1]}, {"pool": 4}, {"pool": 4, "seeds": [1, 1]}, {"pool": 4, "seeds": []}]
)
def test_start_needs_pool_and_seeds(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="config needs"):
        Journal.start(tmp_path, config, HERE)
    assert list(tmp_path.iterdir()) == []


def test_a_group_is_one_write_and_one_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    write, sync = os.write, os.fsync
    with Journal.start(tmp_path, CONFIG, HERE) as book:
        monkeypatch.setattr(os, "write", lambda fd, data: calls.append("write") or write(fd, data))
        monkeypatch.setattr(os, "fsync", lambda fd: calls.append("sync") or sync(fd))
        book.append(group(0))
    assert calls == ["write", "sync"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:50]))
    written(tmp_path)
    assert journal.read(tmp_path)[1] == [group(0), group(1), group(2)]


def test_a_full_disk_leaves_no_half_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with Journal.start(tmp_path, CONFIG, HERE) as book:
        book.append(group(0))
        before = book.path.read_bytes()
        left = [100]

        def full(fd: int, data: memoryview) -> int:
            if not left[0]:
                raise OSError(28, "No space left on device")
            return write(fd, bytes(data)[: left.pop()]) + (left.append(0) or 0)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(OSError, match="No space"):
                book.append(group(1))
        assert book.path.read_bytes() == before
        book.append(group(1))
    assert journal.read(tmp_path)[1] == [group(0), group(1)]


@pytest.mark.parametrize("fill", [b"", b"\0" * 9, b"\xc3", b"\xff{\0"])
def test_a_write_torn_at_any_byte_drops_its_group(tmp_path: Path, fill: bytes) -> None:
    two, three = written(tmp_path / "a", 2), written(tmp_path / "b", 3)
    path = tmp_path / "journal.jsonl"
    assert three.startswith(two)
    for cut in range(len(two), len(three), 7 if fill else 1):
        path.write_bytes(three[:cut] + fill)
        assert journal.read(tmp_path)[1] == [group(0), group(1)]
        assert path.read_bytes() == three[:cut] + fill  # a reader changes nothing
        assert restart(tmp_path, three[:cut] + fill) == [group(0), group(1)]
        assert path.read_bytes() == two
    with Journal.start(tmp_path, CONFIG, HERE) as book:
        book.append(group(2))
    assert path.read_bytes() == three


def test_a_header_torn_at_any_byte_is_written_anew(tmp_path: Path) -> None:
    header = written(tmp_path, 0)
    for cut in range(len(header)):
        for fill in (b"", b"\0\0\0"):
            assert restart(tmp_path, header[:cut] + fill) == []
            assert (tmp_path / "journal.jsonl").read_bytes() == header
    (tmp_path / "journal.jsonl").write_bytes(header[:-1])
    with pytest.raises(InputError, match="no complete first line"):
        journal.read(tmp_path)


def test_pages_lost_in_the_last_write_are_a_torn_tail(tmp_path: Path) -> None:
    two, three = written(tmp_path / "a", 2), written(tmp_path / "b", 3)
    for start in range(len(two), len(three) - 60, 7):
        holed = three[:start] + b"\0" * 60 + three[start + 60 :]
        assert restart(tmp_path, holed) == [group(0), group(1)]
        assert (tmp_path / "journal.jsonl").read_bytes() == two


def test_damage_before_the_last_line_is_refused(tmp_path: Path) -> None:
    lines = written(tmp_path).splitlines(keepends=True)
    for number in range(2, len(lines)):
        for bad in (b"garbage\n", b"\n", b"[1]\n", b"\xff\xfe\n", lines[number - 1][:-20] + b"\n"):
            data = b"".join([*lines[: number - 1], bad, *lines[number:]])
            refused(tmp_path, data, f"line {number} is damaged")
    for number in range(2, len(lines) - 3):  # NULs explain nothing where later rounds follow
        refused(tmp_path, b"".join([*lines[: number - 1], b"\0" * 70 + b"\n", *lines[number:]]), f"line {number} ")
    assert restart(tmp_path, b"".join([*lines[:-1], b"garbage\n"])) == [group(0), group(1)]


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    header, *rest = written(tmp_path).splitlines(keepends=True)
    refused(tmp_path, b"dear diary\n", "does not begin with the first line of a journal")
    refused(tmp_path, b"dear diary", "does not begin with the first line of a journal")
    refused(tmp_path, b'{"seed": 1}\n', "does not begin with the first line of a journal")
    refused(tmp_path, header.replace(b'"format":1', b'"format":2') + b"".join(rest), "format 2", "knows only 1")
    refused(tmp_path, header.replace(b'"pool":40', b'"pool":"x"'), "line 1 is damaged", "'pool'")


def test_another_configuration_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    before = written(tmp_path) + b'{"half'
    (tmp_path / "journal.jsonl").write_bytes(before)
    other = {**CONFIG, "strategy": "entropy", "n_start": 5, "preset": "paper"}
    del other["dataset"]
    with pytest.raises(InputError) as error:
        Journal.start(tmp_path, other, HERE)
    assert str(error.value).endswith(
        "belongs to another configuration; these keys differ: "
        'dataset ("digits" there, nothing now), strategy ("margin" there, "entropy" now), n_start (4 there, 5 now), '
        'preset (nothing there, "paper" now). Try another --workdir; or give those of there.'
    )
    assert (tmp_path / "journal.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"picks": [POOL]}, ["picks outside the pool of 40: [40]"]),
        ({"picks": [-1]}, ["picks outside the pool"]),
        ({"picks": [True]}, ["no valid 'picks'"]),
        ({"picks": [1.0]}, ["no valid 'picks'"]),
        ({"picks": None}, ["no valid 'picks'"]),
        ({"picks": line(1, 1)["picks"] + line(1, 1)["picks"][:1]}, ["picks that repeat"]),
        ({"picks": line(1, 0)["picks"]}, ["picks that were already known"]),
        ({"picks": line(1, 0)["initial"][:1]}, ["picks that were already known"]),
        ({"seed": 9}, ["seed 9", "not one of the configuration's"]),
        ({"seed": 3}, ["repeats seed 3 in round 1"]),
        ({"seed": "1"}, ["no valid 'seed'"]),
        ({"round": 2}, ["round 2 where round 1 belongs"]),
        ({"round": 0}, ["round 0 where round 1 belongs"]),
        ({"labelled": 8}, ["8 labels where 7 had been bought"]),
        ({"accuracy": 1.5}, ["not between 0 and 1"]),
        ({"accuracy": None}, ["not between 0 and 1"]),
        ({"accuracy_best": "high"}, ["not between 0 and 1"]),
        ({"seconds": 3}, ["no valid 'seconds'"]),
        ({"seconds": {"train": None}}, ["no valid 'seconds'"]),
        ({"diverged": True}, ["no valid 'diverged'"]),
        ({"diverged": {"step": None}}, ["no valid 'diverged'"]),
    ],
)
def test_lines_that_cannot_be_are_refused(tmp_path: Path, change: dict[str, Any], words: list[str]) -> None:
    lines = written(tmp_path).splitlines(keepends=True)
    broken = [*lines[:5], json.dumps({**line(1, 1), **change}).encode() + b"\n", *lines[6:]]
    refused(tmp_path, b"".join(broken), "line 6", *words)
    with Journal.start(tmp_path / "new", CONFIG, HERE) as book:  # and append never writes what no start would accept
        book.append(group(0))
        before = book.path.read_bytes()
        with pytest.raises(InputError, match=re.escape(words[0])):
            book.append([line(3, 1), {**line(1, 1), **change}, line(2, 1)])
        assert book.path.read_bytes() == before
        book.append(group(1))


def test_first_round_needs_its_initial_set(tmp_path: Path) -> None:
    header = written(tmp_path, 0)
    broken = line(3, 0)
    del broken["initial"]
    refused(tmp_path, header + json.dumps(broken).encode() + b"\n", "line 2 has no valid 'initial'")
    broken["initial"] = [0, 0, 1, 2]
    refused(tmp_path, header + json.dumps(broken).encode() + b"\n", "line 2 has initial that repeat")


def test_lines_that_appear_twice_or_are_missing_are_refused(tmp_path: Path) -> None:
    lines = written(tmp_path).splitlines(keepends=True)
    for number in range(2, len(lines) + 1):
        doubled = [*lines[:number], lines[number - 1], *lines[number:]]
        refused(tmp_path, b"".join(doubled), f"line {number + 1} ")
    refused(tmp_path, b"".join(lines[:4] + lines[1:]), "line 5 is of round 0 where round 1 belongs")
    refused(tmp_path, b"".join(lines[:4] + lines[5:]), "line 7 is of round 2 where round 1 belongs")
    with Journal.start(tmp_path / "new", CONFIG, HERE) as book:
        with pytest.raises(InputError, match=r"round 0 lacks a line of seeds \[1, 2\]"):
            book.append([line(3, 0)])
        with pytest.raises(InputError, match="repeats seed 3"):
            book.append([*group(0), line(3, 0)])


def test_diverged_seeds_end_alone(tmp_path: Path) -> None:
    with Journal.start(tmp_path, CONFIG, HERE) as book:
        book.append(group(0))
        book.append([line(3, 1), dead(1, 1), line(2, 1)])
        assert book.live == [3, 2]
        with pytest.raises(InputError, match="seed 1, which diverged"):
            book.append(group(2))
        book.append(group(2, (3, 2)))
        one_left = book.path.read_bytes()
        book.append([dead(3, 3), dead(2, 3)])
        assert book.live == []
        with pytest.raises(InputError, match="lacks a line"):
            book.append([])
    data = (tmp_path / "journal.jsonl").read_bytes()
    _, groups = journal.read(tmp_path)
    assert [[one["seed"] for one in lines] for lines in groups] == [[3, 1, 2], [3, 1, 2], [3, 2], [3, 2]]
    assert journal.diverged(groups) == {1: (1, 37), 3: (3, 37), 2: (3, 37)}
    assert restart(tmp_path, data) == groups
    refused(tmp_path, data + json.dumps(line(2, 4)).encode() + b"\n", "continues seed 2, which diverged")
    for cut in range(len(one_left), len(data)):
        assert restart(tmp_path, data[:cut]) == groups[:3]


def test_known_picks_replays_a_seed(tmp_path: Path) -> None:
    groups = [group(0), [line(3, 1), dead(1, 1), line(2, 1)]]
    initial, picks = journal.known_picks(groups, 3)
    assert initial.dtype == picks[0].dtype == np.int32
    assert initial.tolist() == line(3, 0)["initial"]
    assert [one.tolist() for one in picks] == [line(3, 0)["picks"], line(3, 1)["picks"]]
    assert len(journal.known_picks(groups, 1)[1]) == 1
    initial, picks = journal.known_picks([], 3)
    assert initial.shape == (0,)
    assert picks == []


def test_callers_lines_are_not_changed_or_shared(tmp_path: Path) -> None:
    mine = group(0)
    kept = copy.deepcopy(mine)
    with Journal.start(tmp_path, CONFIG, HERE) as book:
        book.append(mine)
        mine[0]["picks"].clear()
        assert book.groups == [kept]
