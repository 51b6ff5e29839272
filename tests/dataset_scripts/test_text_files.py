"""Every table and every JSON file is read by one reader, whatever wrote it."""

import codecs
import json
import os

import pytest

from deepfake_detectors.dataset_scripts._files import parse_json, parse_json_lines, read_csv, read_json, read_text
from deepfake_detectors.evaluation.predictions import read_frame_scores, read_json_lines
from deepfake_detectors.files import read_json_object
from support.case_files import CASES, needs_cases

TABLE = 'file,label\nfoto-ä.jpg,real\n"a,b.jpg",fake\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_csv_in_every_unicode_encoding(encoding, tmp_path):
    file = tmp_path / "t.csv"
    file.write_bytes(TABLE.encode(encoding))
    columns, rows = read_csv(file)
    assert columns == ["file", "label"]
    assert [row for _, row in rows] == [{"file": "foto-ä.jpg", "label": "real"}, {"file": "a,b.jpg", "label": "fake"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_json_in_every_unicode_encoding(encoding, tmp_path):
    file = tmp_path / "t.json"
    value = {"name": "ä", "a": [1, None]}
    file.write_bytes(json.dumps(value, ensure_ascii=False).encode(encoding))
    assert read_json(file, "") == read_json_object(file) == value
    assert [found for _, found in read_json_lines(file, "rows")] == [value]


def test_cp1252_names_the_file_and_the_encoding(tmp_path):
    file = tmp_path / "t.csv"
    file.write_bytes(TABLE.encode("cp1252"))
    for read in (read_text, read_csv, read_json_object, lambda path: list(read_json_lines(path, "rows"))):
        with pytest.raises(ValueError, match=r"t\.csv.*cp1252"):
            read(file)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        codecs.BOM_UTF16_LE + b"a",
        b"\x00" * 99,
        b"[" * 2_000_000,
        b"1" * 5000,
        b'{"a":1,"a":2}',
    ],
)
def test_broken_json_is_one_error_that_names_the_file(content, tmp_path):
    file = tmp_path / "t.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"t\.json"):
        read_json_object(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1\n", "line 2 has 1 fields"),
        ("a,b\n1,2,3\n", "line 2 has 3 fields"),
        ("a,a\n1,2\n", "'a' twice"),
        ('a,b\n"1,2\n', "line 2"),
        ("a,b\n" + "x" * 200_000 + ",2\n", "field"),
    ],
)
def test_ragged_tables_are_refused_by_line(content, message, tmp_path):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ValueError, match=rf"t\.csv.*{message}"):
        read_csv(tmp_path / "t.csv")


def test_json_lines_name_the_line():
    assert list(parse_json_lines('{"a": 1}\n\n[2]\n', "rows")) == [("rows, line 1", {"a": 1}), ("rows, line 3", [2])]
    with pytest.raises(ValueError, match=r"rows, line 2.*'a'|rows, line 2.*twice"):
        list(parse_json_lines('1\n{"a": 1, "a": 2}', "rows"))
    assert parse_json('"\u2028"', "text") == "\u2028"


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="regular file"):
        read_text(tmp_path / "pipe")


@needs_cases
def test_the_tables_that_went_wrong():
    assert read_frame_scores(CASES / "tables" / "f_bom.csv")
    assert list(read_json_lines(CASES / "tables" / "p_bom.jsonl", "predictions"))
    with pytest.raises(ValueError, match=r"f_1252\.csv.*cp1252"):
        read_frame_scores(CASES / "tables" / "f_1252.csv")
