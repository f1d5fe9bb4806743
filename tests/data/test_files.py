from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graft.data.files import Form, format_of, read, stream, table_of
from graft.data.origin import files_of
from graft.errors import ConfigError, DataError

ROWS = [
    {"text": 'A "fine", quiet film', "label": "good"},
    {"text": "d\u00e9j\u00e0 \u5f71", "label": "bad"},
    {"text": "ends here", "label": "good"},
]


def _csv(rows: list[dict[str, str]]) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, ["text", "label"])
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


def _tsv(rows: list[dict[str, str]]) -> bytes:
    return "\n".join("\t".join(cells) for cells in [("text", "label"), *(row.values() for row in rows)]).encode()


def _jsonl(rows: list[dict[str, str]]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def _parquet(rows: list[dict[str, str]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


WRITERS: dict[str, Callable[[list[dict[str, str]]], bytes]] = {
    "csv": _csv,
    "tsv": _tsv,
    "json": lambda rows: json.dumps(rows).encode(),
    "jsonl": _jsonl,
    "ndjson": _jsonl,
    "parquet": _parquet,
}


def whole(path: str | Path, *, chunk: int = 100, **form: Any) -> pa.Table:
    return pa.concat_tables(read(Path(path).absolute(), Form(**form), chunk=chunk), promote_options="permissive")


def write(name: str, content: str | bytes) -> Path:
    path = Path(name)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: str | Path, **form: Any) -> str:
    with pytest.raises(DataError) as caught:
        whole(path, **form)
    return str(caught.value)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("suffix", list(WRITERS))
def test_every_format_gives_the_same_rows_plain_and_gzipped(suffix: str, zipped: bool) -> None:
    content = WRITERS[suffix](ROWS)
    path = write(f"rows.{suffix}{'.gz' if zipped else ''}", gzip.compress(content) if zipped else content)
    assert whole(path).to_pylist() == ROWS


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_a_given_format_wins_over_the_name(suffix: str) -> None:
    assert whole(write("rows.data", WRITERS[suffix](ROWS)), format=suffix).to_pylist() == ROWS


def test_suffixes_may_be_in_capitals() -> None:
    assert whole(write("ROWS.CSV.GZ", gzip.compress(_csv(ROWS)))).to_pylist() == ROWS


@pytest.mark.parametrize("zipped", [False, True])
def test_a_text_file_is_one_row_a_line(zipped: bool) -> None:
    content = b"first, line\r\n\r\n third\nlast"
    path = write("a.txt.gz" if zipped else "a.txt", gzip.compress(content) if zipped else content)
    assert whole(path).to_pydict() == {"text": ["first, line", "", " third", "last"]}


def test_a_quoted_cell_may_hold_the_delimiter_quotes_and_line_breaks() -> None:
    path = write("a.csv", 'text,label\n"one,\n""two""\r\nthree",x\nplain,y\n')
    assert whole(path).to_pydict() == {"text": ['one,\n"two"\r\nthree', "plain"], "label": ["x", "y"]}


def test_quotes_mean_nothing_in_a_tsv_file_unless_asked_for() -> None:
    path = write("a.tsv", 'text\tlabel\n"so\tx\n')
    assert whole(path).to_pydict() == {"text": ['"so'], "label": ["x"]}
    quoted = write("b.tsv", 'text\tlabel\n"a\tb"\tx\n')
    assert whole(quoted, quoting=True).to_pydict() == {"text": ["a\tb"], "label": ["x"]}


def test_quoting_can_be_switched_off_for_csv() -> None:
    assert whole(write("a.csv", 'text,label\n"so,x\n'), quoting=False).to_pydict() == {"text": ['"so'], "label": ["x"]}


def test_another_delimiter_may_be_given() -> None:
    assert whole(write("a.csv", "text;label\na,b;x\n"), delimiter=";").to_pydict() == {"text": ["a,b"], "label": ["x"]}


def test_columns_of_a_file_without_a_header_are_named() -> None:
    table = whole(write("a.tsv", "one\tx\ntwo\ty\n"), column_names=("text", "label"))
    assert table.to_pydict() == {"text": ["one", "two"], "label": ["x", "y"]}


def test_a_byte_order_mark_and_blanks_around_column_names_are_no_part_of_them() -> None:
    table = whole(write("a.csv", codecs.BOM_UTF8 + b" text , label\none,x\n"))
    assert table.column_names == ["text", "label"]
    assert whole(write("a.jsonl", codecs.BOM_UTF8 + b'{"text": "one"}')).to_pydict() == {"text": ["one"]}


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_blank_lines_are_no_rows(name: str) -> None:
    comma = "," if name.endswith("csv") else "\t"
    assert whole(write(name, f"text{comma}label\n\none{comma}x\n\n\ntwo{comma}y\n\n")).num_rows == 2


def test_a_cell_may_be_longer_than_the_csv_module_allows() -> None:
    limit = csv.field_size_limit()
    text = "word " * 40_000
    assert len(text) > limit
    assert whole(write("a.csv", f"text,label\n{text},x\n")).column("text").to_pylist() == [text]
    assert csv.field_size_limit() == limit


def test_cells_are_text_whatever_they_hold() -> None:
    assert whole(write("a.csv", "a,b\n1,2.5\n,true\n")).to_pydict() == {"a": ["1", ""], "b": ["2.5", "true"]}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_chunks_hold_as_many_rows_as_asked_for_and_count_on(suffix: str) -> None:
    rows = [{"text": f"t{index}", "label": "x"} for index in range(7)]
    path = write(f"a.{suffix}", WRITERS[suffix](rows)).absolute()
    tables = list(read(path, Form(), chunk=3))
    assert [table.num_rows for table in tables] == [3, 3, 1]
    assert [files_of(table) for table in tables] == [
        [(str(path), 3, 1)],
        [(str(path), 3, 4)],
        [(str(path), 1, 7)],
    ]
    assert pa.concat_tables(tables).to_pylist() == rows


def test_parquet_chunks_do_not_end_with_row_groups() -> None:
    pq.write_table(pa.table({"text": [str(index) for index in range(10)]}), "a.parquet", row_group_size=3)
    assert [table.num_rows for table in read(Path("a.parquet").absolute(), Form(), chunk=4)] == [4, 4, 2]


def test_json_lines_may_lack_keys_and_lines() -> None:
    path = write("a.jsonl", '{"text": "one", "label": 1}\n\n  \n{"text": "two", "extra": [1, 2]}\n')
    assert whole(path).to_pydict() == {"text": ["one", "two"], "label": [1, None], "extra": [None, [1, 2]]}


def test_a_column_of_several_kinds_is_text() -> None:
    path = write("a.json", '[{"a": 1}, {"a": "1"}, {"a": true}, {"a": null}, {"a": 1.5}, {"a": {"b": "\u00e9"}}]')
    assert whole(path).to_pydict() == {"a": ["1", "1", "true", None, "1.5", '{"b": "\u00e9"}']}


def test_a_number_too_large_for_a_column_is_text() -> None:
    assert whole(write("a.json", f'[{{"a": {2**70}}}, {{"a": 1}}]')).to_pydict() == {"a": [str(2**70), "1"]}


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("a.csv", b"text,label\n", ["text", "label"]),
        ("a.tsv", b"text\tlabel\n", ["text", "label"]),
        ("a.json", b"[]", []),
        ("a.jsonl", b"", []),
        ("a.txt", b"", ["text"]),
    ],
)
def test_a_file_without_rows_is_an_empty_table(name: str, content: bytes, columns: list[str]) -> None:
    table = whole(write(name, content))
    assert table.num_rows == 0
    assert table.column_names == columns


def test_an_empty_parquet_file_keeps_its_columns() -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), "a.parquet")
    assert whole("a.parquet").column_names == ["text"]


# ---- bad files ----


def test_an_empty_csv_file_has_not_even_a_header() -> None:
    assert refusal(write("a.csv", "")) == "a.csv: is empty, not even a header."


def test_a_missing_file_names_the_nearest() -> None:
    write("reviews.csv", "text\n")
    assert refusal("review.csv") == "review.csv: there is no such file. Did you mean 'reviews.csv'?"
    assert refusal("nowhere/review.csv") == "nowhere/review.csv: there is no such file."


def test_an_unknown_suffix_lists_the_known_ones() -> None:
    message = refusal(write("a.xlsx", ""))
    assert message.startswith("a.xlsx: the name does not tell the format; known are .csv, .tsv, .json, .jsonl,")
    assert message.endswith("Set the format to one of csv, tsv, json, jsonl, parquet, text.")
    with pytest.raises(DataError, match=r"^folder: the name does not tell"):
        format_of(Path("folder"))


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^format: no file format is called 'jsonlines'. Did you mean 'jsonl'"):
        Form(format="jsonlines")


@pytest.mark.parametrize("zipped", [False, True])
def test_a_wrong_encoding_names_the_byte_and_the_line(zipped: bool) -> None:
    # "text,label\n" has 11 bytes; "d\u00e9j\u00e0,x\n" 9 in UTF-8, "the" 3
    content = "text,label\nd\u00e9j\u00e0,x\n".encode() + "the\u00e9,y\n".encode("latin-1")
    assert content.index(b"\xe9") == 23
    path = write("a.csv.gz" if zipped else "a.csv", gzip.compress(content) if zipped else content)
    assert refusal(path) == (
        f"{path}: byte 23 (line 3) is 0xe9, which is not UTF-8. Convert the file, for example from windows-1252: "
        "iconv -f windows-1252 -t utf-8."
    )


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.txt"])
def test_utf_16_is_recognised_in_every_text_format(name: str) -> None:
    message = refusal(write(name, "text,label\none,x\n".encode("utf-16")))
    assert message.startswith(f"{name}: byte 0 (line 1) is 0xff, which is not UTF-8.")
    assert message.endswith("iconv -f utf-16 -t utf-8.")


def test_a_line_that_is_no_json_is_named() -> None:
    path = write("a.jsonl", '{"text": "one"}\n\n{"text": two}\n{"text": "three"}\n')
    assert refusal(path) == "a.jsonl: line 3 is no valid JSON (Expecting value, column 10)."


def test_a_line_of_json_that_is_no_object_is_named() -> None:
    assert refusal(write("a.jsonl", '["one"]\n')) == "a.jsonl: line 1 is a list where an object {...} is needed."
    assert refusal(write("a.jsonl", "7\n")) == "a.jsonl: line 1 is a number where an object {...} is needed."


def test_bad_lines_are_reported_together_and_at_most_five() -> None:
    with pytest.raises(DataError) as caught:
        whole(write("a.jsonl", "{}\n" + "oops\n" * 8))
    assert [problem.partition(" (")[0] for problem in caught.value.problems] == [
        *(f"a.jsonl: line {line} is no valid JSON" for line in range(2, 7)),
        "a.jsonl: 3 more lines like these.",
    ]


def test_bad_json_names_line_and_column() -> None:
    assert refusal(write("a.json", '[{"text": "one"},\n {"text": }]')) == (
        "a.json: line 2, column 11 is no valid JSON (Expecting value)."
    )


def test_json_lines_in_a_json_file_are_recognised() -> None:
    message = refusal(write("a.json", '{"text": "one"}\n{"text": "two"}\n'))
    assert message.endswith("It looks like one object a line: set the format to jsonl.")


def test_json_that_is_no_list_of_objects_is_refused() -> None:
    assert refusal(write("a.json", '{"data": []}')) == (
        "a.json: holds one object where a list of objects is needed, [{...}, {...}]."
    )
    assert refusal(write("a.json", '[{}, "x"]')) == "a.json: row 2 is a text where an object {...} is needed."


def test_half_a_character_in_json_is_refused() -> None:
    assert refusal(write("a.jsonl", '{"text": "\\ud83d!"}')) == (
        r"a.jsonl: the text '\ud83d!' holds half a character and is no UTF-8."
    )


@pytest.mark.parametrize(("name", "comma"), [("a.csv", ","), ("a.tsv", "\t")])
def test_ragged_rows_are_named_by_line_together(name: str, comma: str) -> None:
    lines = [f"text{comma}label", f"one{comma}x", f"two{comma}x{comma}y", "", "three"]
    with pytest.raises(DataError) as caught:
        whole(write(name, "\n".join(lines)))
    assert caught.value.problems == (
        f"{name}: line 3 has 3 cells where there are 2 columns (text, label).",
        f"{name}: line 5 has 1 cells where there are 2 columns (text, label).",
    )


def test_a_ragged_row_after_a_cell_of_several_lines_has_the_line_it_starts_in() -> None:
    assert "line 4 has 3 cells" in refusal(write("a.csv", 'text,label\n"one\nmore",x\ntwo,x,y\n'))


def test_a_quote_that_is_never_closed_names_the_line_where_its_row_starts() -> None:
    message = refusal(write("a.csv", 'text,label\none,x\n"two,x\nthree,y\n'))
    assert message.startswith("a.csv: the row that starts in line 3 cannot be read (unexpected end of data).")
    assert "never closed" in message
    assert "set quoting to false" in message


def test_a_quote_inside_a_quoted_cell_must_be_doubled() -> None:
    message = refusal(write("a.csv", 'text,label\n"he said "no" twice",x\n'))
    assert message.startswith("a.csv: the row that starts in line 2 cannot be read (',' expected after '\"').")


def test_columns_of_the_same_name_are_refused() -> None:
    assert refusal(write("a.csv", "text,text,label\n")) == (
        "a.csv: several columns are called 'text'. Rename them, or give column_names."
    )


@pytest.mark.parametrize(
    ("content", "word", "sign"), [("text;label\n", "semicolon", "';'"), ("text\tlabel\n", "tab", r"'\t'")]
)
def test_a_header_with_another_delimiter_is_recognised(content: str, word: str, sign: str) -> None:
    message = refusal(write("a.csv", content))
    assert message.endswith(f"If the cells are separated by a {word}, set the delimiter to {sign}.")


def test_a_cut_or_false_gzip_file_is_refused() -> None:
    cut = gzip.compress(_csv(ROWS * 50))[:-20]
    for name, content in {"cut.csv.gz": cut, "false.csv.gz": b"text,label\n"}.items():
        message = refusal(write(name, content))
        assert message.startswith(f"{name}: is no complete gzip file (")
        assert message.endswith("Copy or download it again.")


def test_a_false_parquet_file_is_refused() -> None:
    assert refusal(write("a.parquet", b"PAR1 and nothing else")).startswith(
        "a.parquet: is no parquet file that can be read ("
    )


def test_a_folder_is_no_file() -> None:
    Path("a.csv").mkdir()
    assert refusal("a.csv") == "a.csv: cannot be read (Is a directory)."


# ---- streams ----


def streamed(monkeypatch: pytest.MonkeyPatch, content: bytes, **settings: Any) -> list[dict[str, Any]]:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    return [row for table in stream("-", **settings) for row in table.to_pylist()]


def test_a_stream_begins_before_the_end_of_the_file_is_read() -> None:
    write("a.jsonl", '{"text": "one"}\n{"text": "two"}\n' + "broken\n")
    tables = stream("a.jsonl", chunk=2)
    assert next(tables).to_pydict() == {"text": ["one", "two"]}
    with pytest.raises(DataError, match="line 3 is no valid JSON"):
        next(tables)


def test_standard_input_is_json_lines_or_text_by_its_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert streamed(monkeypatch, b' {"text": "one"}\n{"text": "two"}') == [{"text": "one"}, {"text": "two"}]
    assert streamed(monkeypatch, b"one\n{two}\n") == [{"text": "one"}, {"text": "{two}"}]
    assert streamed(monkeypatch, b"") == []


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_standard_input_may_be_of_any_format(monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    assert streamed(monkeypatch, WRITERS[suffix](ROWS), format=suffix, chunk=2) == ROWS


def test_an_error_in_standard_input_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"^standard input: line 2 is no valid JSON"):
        streamed(monkeypatch, b"{}\n{\n")


def test_rows_of_dictionaries_become_a_table_with_all_their_keys() -> None:
    table = table_of([{"a": 1}, {"b": "x"}], "rows")
    assert table.to_pydict() == {"a": [1, None], "b": [None, "x"]}
    assert table_of([], "rows").num_rows == 0
