"""Tables: every dialect is read as Python's own readers do, and one column changes, no other byte."""

import csv
import io
import json
import os
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmlcli.errors import InvalidInput
from nmlcli.products import delimited
from nmlcli.products.delimited import Delimited
from nmlcli.products.jsonlines import JsonLines
from nmlcli.products.tables import (
    is_table,
    new_table,
    open_table,
    read_table,
    read_table_record,
    save_edited,
    sidecar,
    write_sidecar,
    write_table,
)
from nmlcli.provenance import Record, hash_file

RECORD = Record(kind="labels", identity="0" * 32, command="corrupt", classes=("a", "b"))
CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8) | st.sampled_from(
    ["007", "1e5", "NA", "", '"', '""', ",", "\r\n", "\n", "\r", ";", "a\tb", " x ", "x" * 3000]
)


@st.composite
def tables(draw):
    """Columns, rows, and their text in some dialect."""
    width = draw(st.integers(1, 4))
    columns = draw(st.lists(CELLS.filter(bool), min_size=width, max_size=width, unique=True))
    rows = draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=8))
    delimiter, end = draw(st.sampled_from(",\t;|")), draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n"]))
    always = draw(st.booleans())

    def written(cell):
        special = cell.startswith('"') or any(c in cell for c in (delimiter, "\r", "\n"))
        if special or always or (width == 1 and not cell):
            return '"' + cell.replace('"', '""') + '"'
        return cell

    text = "".join(delimiter.join(map(written, row)) + end for row in [columns, *rows])
    return columns, rows, delimiter, text.removesuffix(end) if draw(st.booleans()) else text


@pytest.fixture(params=[1 << 18, 16], ids=["large chunks", "small chunks"])
def chunks(request, monkeypatch):
    monkeypatch.setattr(delimited, "_CHUNK", request.param)


def all_rows(table):
    columns = [[] for _ in table.columns]
    for batch in table.batches(table.columns):
        for column, cells in zip(columns, batch, strict=True):
            column += cells
    return [list(row) for row in zip(*columns, strict=True)]


@settings(max_examples=150, deadline=None)
@given(tables(), st.booleans(), st.sampled_from([1 << 18, 16]))
def test_csv_is_read_as_the_csv_module_reads_it(case, bom, chunk):
    columns, rows, delimiter, text = case
    before, delimited._CHUNK = delimited._CHUNK, chunk
    try:
        table = Delimited(b"\xef\xbb\xbf" * bom + text.encode(), "t.csv", delimiter.encode())
        assert list(table.columns) == columns
        assert all_rows(table) == rows
    finally:
        delimited._CHUNK = before


@settings(max_examples=150, deadline=None)
@given(tables(), st.data())
def test_relabelling_changes_one_column_and_adds_one(case, data):
    columns, rows, delimiter, text = case
    table = Delimited(text.encode(), "t.csv", delimiter.encode())
    place = data.draw(st.integers(0, len(columns) - 1))
    values = data.draw(st.lists(st.none() | CELLS.filter(bool), min_size=len(rows), max_size=len(rows)))

    product = b"".join(table.relabelled(columns[place], iter(values), "clean"))

    reader = csv.reader(io.StringIO(product.decode(), newline=""), delimiter=delimiter)
    read = [row for row in reader if row]  # blank lines
    wanted = []
    for row, value in zip(rows, values, strict=True):
        new = row[place] if value is None else value
        wanted.append([*row[:place], new, *row[place + 1 :], row[place]])
    assert read == [[*columns, "clean"], *wanted]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_blank_lines_between_any_two_rows(chunks, end):
    rows = [b"%d,%s" % (i, b"x" * (i % 13)) for i in range(300)]
    text = b"a,b\n" + b"".join(row + end * (1 + i % 2) for i, row in enumerate(rows))
    table = Delimited(text, "t.csv")

    assert all_rows(table) == [row.decode().split(",") for row in rows]
    product = b"".join(table.relabelled("a", iter([None] * 300), "c"))
    assert product == b"a,b,c\n" + b"".join(
        b"%s,%d%s" % (row, i, end * (1 + i % 2)) for i, row in enumerate(rows)
    )


def test_every_other_byte_stays(chunks):
    text = (
        b'\xef\xbb\xbf"id";label;"text"\r\n007;"a";"x ""y""\n z"\r\n\r\n 1e5;b;\xff\r\n'
        b'3;"b";0.10\n4;a; last'
    )
    table = Delimited(text, "t.csv")

    product = b"".join(table.relabelled("label", iter(["b;", None, "c", 'q"']), "clean"))

    assert product == (
        b'\xef\xbb\xbf"id";label;"text";"clean"\r\n007;"b;";"x ""y""\n z";"a"\r\n\r\n 1e5;b;\xff;b\r\n'
        b'3;"c";0.10;"b"\n4;q"; last;a'
    )


def test_a_changed_cell_is_quoted_where_it_must_be():
    table = Delimited(b"l,x\na,1\na,1\na,1\n", "t.csv")

    product = b"".join(table.relabelled("l", iter(["b,c", '"d', "e\nf"]), "clean"))

    assert product == b'l,x,clean\n"b,c",1,a\n"""d",1,a\n"e\nf",1,a\n'


def raw(value, delimiter, quoted=False):
    """A cell as it is written."""
    if quoted or value.startswith('"') or any(c in value for c in (delimiter, "\r", "\n")):
        return '"' + value.replace('"', '""') + '"'
    return value


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(2, 4), st.sampled_from(",\t;|"), st.booleans())
def test_a_column_changes_and_no_other_byte(data, width, delimiter, bom):
    kinds = st.tuples(CELLS, st.booleans())
    rows = data.draw(st.lists(st.lists(kinds, min_size=width, max_size=width), max_size=6))
    ends = [data.draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n"])) for _ in range(1 + len(rows))]
    values = [data.draw(st.none() | CELLS) for _ in rows]
    place = data.draw(st.integers(0, width - 1))
    names = [f"{i}" for i in range(width)]

    def text(rows):
        lines = zip([names, *rows], ends, strict=True)
        return ("\ufeff" * bom + "".join(delimiter.join(row) + end for row, end in lines)).encode()

    cells = [[raw(value, delimiter, quoted) for value, quoted in row] for row in rows]
    table = Delimited(text(cells), "t.csv", delimiter.encode())
    kept = b"".join(table.relabelled(str(place), iter([None] * len(rows)), None))
    product = b"".join(table.relabelled(str(place), iter(values), None))

    assert kept == text(cells)
    for row, value in zip(cells, values, strict=True):
        if value is not None:
            row[place] = raw(value, delimiter, row[place].startswith('"'))
    assert product == text(cells)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a,b\n1,2\n1,2,3\n", "line 3 has 3 cells, the header 2"),
        (b"a,b\n1,2\n1\n", "line 3 has 1 cells, the header 2"),
        (b'a,b\n"x\ny",2\n1,2,3\n', "line 4 has 3 cells"),
        (b'a,b\n1,"2\n3,4\n', "line 2 opens a quote and never closes it"),
        (b'a,b\n1,"2"x\n', "line 2 has text behind a closing quote"),
        (b'a,"b\n', "line 1 opens a quote"),
        (b"a,b,a\n1,2,3\n", "two columns a"),
        (b"a,b\n1,2\n1,\xe9\n", "line 3 is not UTF-8"),
        (b'a,b\n"1\n",2\n1,\xe9\n', "line 4 is not UTF-8"),
        (b"a,b\n1,\0\n", "NUL bytes"),
        ("a,b\n".encode("utf-16"), "NUL bytes"),
        (b"", "is empty"),
        (b"\xef\xbb\xbf\r\n\n", "is empty"),
    ],
)
def test_damaged_tables(tmp_path, chunks, text, message):
    path = tmp_path / "t.csv"
    path.write_bytes(text)

    with pytest.raises(InvalidInput, match=message):
        read_table(str(path))


def test_hostile_quotes_take_no_time():
    rows = b"".join(b'"%d,\n' % i for i in range(200_001))

    with pytest.raises(InvalidInput, match="quote"):
        all_rows(Delimited(b"a,b\n" + rows, "t.csv"))


@pytest.mark.parametrize("wide", [1, 2, 2000])
def test_a_header_alone_is_a_table_of_no_rows(tmp_path, wide):
    path = tmp_path / "t.tsv"
    path.write_text("\t".join(map(str, range(wide))))

    table = read_table(str(path))

    assert len(table.columns) == wide
    assert len(table) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1}\n{"a": \n', "line 2 is not JSON"),
        (b'{"a": 1}\n[1]\n', "line 2 is no JSON object"),
        (b'{"a": 1, "a": 2}\n', "line 1 is not JSON .a key is named twice"),
        (b'{"a": "\xe9"}\n', "line 1 is not UTF-8"),
        (b"[" * 200_000, "line 1 is not JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "line 1 is not JSON"),
    ],
)
def test_damaged_json_lines(tmp_path, text, message):
    path = tmp_path / "t.jsonl"
    path.write_bytes(text)

    with pytest.raises(InvalidInput, match=message):
        read_table(str(path))


def test_json_lines_are_read_with_their_types_and_gaps(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('\ufeff{"id": "007", "label": 3}\n\n{"label": null, "x": [1, {"a": "b"}]}')

    table = read_table(str(path))

    assert table.values == {"id": ["007", None], "label": [3, None], "x": [None, [1, {"a": "b"}]]}
    assert len(table) == 2


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=4), min_size=1, max_size=5),
    st.sampled_from([(", ", ": "), (",", ":"), (" ,\t", " : ")]),
    st.booleans(),
    st.integers(0, 4),
)
def test_relabelling_json_lines(rows, separators, ascii_only, place):
    rows = [{k: v for k, v in row.items() if k != "clean"} for row in rows]
    rows = [dict([*list(row.items())[:place], ("l", 3), *list(row.items())[place:]]) for row in rows]
    rows = [{**row, "l": number} for number, row in enumerate(rows)]
    text = "\n\n".join(json.dumps(r, separators=separators, ensure_ascii=ascii_only) for r in rows)
    table = JsonLines(text.encode("utf-8", "surrogatepass"), "t.jsonl")
    values = [None if number % 2 else f"ü{number}" for number in range(len(rows))]

    product = b"".join(table.relabelled("l", iter(values), "clean")).decode()

    read = [json.loads(line) for line in product.split("\n") if line]
    for number, (row, value) in enumerate(zip(rows, values, strict=True)):
        assert read[number] == {**row, "l": number if value is None else value, "clean": number}
        assert list(read[number]) == [*row, "clean"]
    kept = b"".join(table.relabelled("l", iter([None] * len(rows)), "clean")).decode()
    for number, line in enumerate(line for line in kept.split("\n") if line):
        old = json.dumps(rows[number], separators=separators, ensure_ascii=ascii_only)
        assert line.startswith(old[:-1])


@settings(max_examples=150, deadline=None)
@given(st.data(), st.booleans())
def test_a_value_changes_and_no_other_byte(data, ascii_only):
    spaces, before, after, values = st.text(" \t\r", max_size=2), "", "", []
    for _ in range(data.draw(st.integers(1, 4))):
        others = data.draw(st.dictionaries(st.text(max_size=3).filter(lambda k: k != "l"), VALUES))
        pairs = [
            f"{json.dumps(k, ensure_ascii=ascii_only)}{data.draw(spaces)}:{data.draw(spaces)}"
            f"{json.dumps(v, ensure_ascii=ascii_only)}{data.draw(spaces)}"
            for k, v in others.items()
        ]
        place = data.draw(st.integers(0, len(pairs)))
        head, tail = ",".join([*pairs[:place], '"l" :']), ",".join([" ", *pairs[place:]])
        old = data.draw(st.sampled_from(["1.50e1", '"\\u00fc"', "-0", '{"l": 2}', "null"]))
        value = data.draw(st.none() | st.integers() | st.text())
        new = old if value is None else json.dumps(value, ensure_ascii=False)
        end = data.draw(st.sampled_from(["\n", "\r\n", "\n \n"]))
        before += f" {{{head}{old}{tail}}}{end}"
        after += f" {{{head}{new}{tail}}}{end}"
        values.append(value)
    table = JsonLines(before.encode(), "t.jsonl")

    product = b"".join(table.relabelled("l", iter(values), None))

    assert product == after.encode()


def test_a_row_without_the_key_is_named():
    table = JsonLines(b'{"l": 1}\n{"m": 1}\n', "t.jsonl")

    with pytest.raises(InvalidInput, match=r"^t\.jsonl: line 2 has no l$"):
        list(table.relabelled("l", iter([2, 2]), None))


def test_json_lines_keep_every_other_byte():
    text = b'{"l":1 , "x": 1.50e1, "k": {"l": 2}  }\r\n\n  {"y": "\\u00fc", "l": "a"}'
    table = JsonLines(text, "t.jsonl")

    assert b"".join(table.relabelled("l", iter([7, "b"]), "clean")) == (
        b'{"l":7 , "x": 1.50e1, "k": {"l": 2},"clean":1  }\r\n\n'
        b'  {"y": "\\u00fc", "l": "b", "clean": "a"}'
    )


@pytest.mark.parametrize(
    ("text", "kind", "columns"),
    [
        (b"a,b\n", Delimited, ("a", "b")),
        (b"a;b,c\td;e\n", Delimited, ("a", "b,c\td", "e")),
        (b'"a;b",c\n', Delimited, ("a;b", "c")),
        (b"a\tb\n", Delimited, ("a", "b")),
        (b"alone\n", Delimited, ("alone",)),
        (b' {"a": 1}\n', JsonLines, ("a",)),
    ],
)
def test_the_form_of_a_pipe_is_recognised(tmp_path, text, kind, columns):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(text,))
    writer.start()

    assert is_table(str(pipe))
    table = open_table(str(pipe))

    writer.join()
    assert isinstance(table, kind)
    assert table.columns == columns


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_new_table_is_read_back(tmp_path, suffix):
    columns = {"id": ["1", 'a,"b"', "x\ty", "z\nz"], "label": ["ü", ";", "'", " "]}
    path = tmp_path / f"t{suffix}"
    path.write_bytes(b"".join(new_table(columns, suffix)))

    assert read_table(str(path)).values == columns


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_written_tables_and_edited_ones_have_their_records_beside_them(tmp_path, capfdbinary, suffix):
    columns = {"id": ["1", "2"], "label": ["a", "b"]}
    path, out = tmp_path / f"t{suffix}", tmp_path / f"out{suffix}"

    write_table(str(path), columns, RECORD)

    table = open_table(str(path))
    assert path.read_bytes() == b"".join(new_table(columns, suffix))
    assert read_table_record(path) == RECORD
    assert table.identity == hash_file(path)
    save_edited(str(out), table, "label", iter(["b", None]), "clean", RECORD)
    assert out.read_bytes() == b"".join(table.relabelled("label", iter(["b", None]), "clean"))
    assert read_table_record(out) == RECORD
    save_edited(None, table, "label", iter(["b", None]), "clean", RECORD)
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == out.read_bytes()
    write_table(str(tmp_path / f"plain{suffix}"), columns, None)
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("out", [None, "-"])
def test_a_table_on_stdout_is_csv(capfdbinary, out):
    write_table(out, {"id": ["1"], "label": ["a"]}, RECORD)

    sys.stdout.flush()
    assert capfdbinary.readouterr().out == b"id,label\n1,a\n"


def test_a_missing_file_and_a_missing_column(tmp_path):
    with pytest.raises(InvalidInput, match="cannot read"):
        read_table(str(tmp_path / "none.csv"))
    with pytest.raises(InvalidInput, match="cannot read"):
        read_table(str(tmp_path))
    (tmp_path / "t.csv").write_text("a,b\n")
    with pytest.raises(InvalidInput, match=r"no column label, but a, b: .*--label-column"):
        read_table(str(tmp_path / "t.csv")).column("label", "--label-column")


def test_a_record_lies_beside_a_table_as_long_as_it_is_that_table(tmp_path, caplog):
    path = tmp_path / "t.csv"
    path.write_text("id,label\n1,a\n")
    assert read_table_record(path) is None

    write_sidecar(path, RECORD)

    assert sidecar(path).name == "t.csv.nml.json"
    assert read_table_record(path) == RECORD
    assert not caplog.records
    path.write_text("id,label\n1,b\n")
    assert read_table_record(path) is None
    assert "has changed" in caplog.text
    sidecar(path).write_text("{")
    with pytest.raises(InvalidInput, match=r"t\.csv\.nml\.json"):
        read_table_record(path)
