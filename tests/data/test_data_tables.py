"""Tables, text and dates."""

from __future__ import annotations

import csv
import datetime
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmxx.data import DataError, Source, Table, decimal_years, load, read_table, read_text
from mmxx.data.tables import parse_table

QUICK = settings(max_examples=80, deadline=None, database=None, derandomize=True)
SOURCE = Source("test", "mine", "made here")


def parse(text, **options):
    return parse_table(text.encode(), "x", SOURCE, **options)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", " ", "   ", ", "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends(delimiter, end):
    rows = [("time", "value"), ("0", "1.5"), ("1", "-2e-3"), ("2", ".5"), ("3", "4.")]
    table = parse(end.join(delimiter.join(row) for row in rows) + end)
    assert table.names == ("time", "value")
    assert table.numeric == table.names
    np.testing.assert_array_equal(table["value"], [1.5, -2e-3, 0.5, 4.0])
    assert len(table) == 4


def test_header_is_found_or_told():
    assert parse("1,2\n3,4\n").names == ("column_1", "column_2")
    assert len(parse("a,b\n3,4\n")) == 1
    years = parse("name,1990\nx,4\n", header=True)
    assert years.names == ("name", "1990")
    told = parse("a,b\nc,d\n", header=False)
    assert told.names == ("column_1", "column_2")
    assert told["column_1"].tolist() == ["a", "c"]
    # A first row of gaps and numbers is no header.
    assert len(parse("#N/A,1\n2,3\n")) == 2


def test_missing_numbers_and_text():
    table = parse("a,b,c,d\n1,x,,\n,N,,\nNA,y,,\n#N/A,z,,\n 4 ,?,,\n")
    np.testing.assert_array_equal(table["a"], [1, np.nan, np.nan, np.nan, 4])
    assert table["b"].tolist() == ["x", "N", "y", "z", "?"]
    assert np.isnan(table["c"]).all()
    assert table.numeric == ("a", "c", "d")


def test_one_value_a_line_with_gaps(tmp_path):
    path = tmp_path / "m.txt"
    path.write_bytes(b"4529.05\r\n#N/A\r\n4540.33\r\nN\r\n\r\n4540\r\n")
    table = load(path, ("table",))
    assert table.names == ("column_1",)
    np.testing.assert_array_equal(table["column_1"], [4529.05, np.nan, 4540.33, np.nan, 4540])


def test_names_are_unique():
    table = parse("ind,x,ind,,ind,ind_2\n1,2,3,4,5,6\n")
    assert len(set(table.names)) == 6
    assert table.names[:2] == ("ind", "x")
    assert table["ind_2"][0] == 6
    assert table["ind"][0] == 1


def test_comments():
    table = parse("\ufeff# a file\n# p q\n1 2 # first\n3 4\n")
    assert table.names == ("p", "q")
    assert table.matrix().tolist() == [[1, 2], [3, 4]]
    assert parse("# a,b\n1,2\n").names == ("a", "b")
    # Only white space parts fields from comments: a SMILES string holds the sign too.
    assert parse("s,y\nC #N,1\nC#N,2\n")["s"].tolist() == ["C #N", "C#N"]


def test_quotes():
    table = parse('a,b\n"x, y",1\n"says ""no""",2\n"two\nlines",3\n')
    assert table["a"].tolist() == ["x, y", 'says "no"', "two\nlines"]
    with pytest.raises(DataError, match="never closed"):
        parse('a,b\n1,"x\n2,y\n')


def test_underscores_and_hex_are_text_and_infinity_is_a_number():
    assert parse("a\n1_000\n0x10\n")["a"].tolist() == ["1_000", "0x10"]
    assert parse("a\ninf\n-Infinity\n")["a"].tolist() == [np.inf, -np.inf]


def test_matrix_and_columns():
    table = parse("a,b,c\n1,x,2\n3,y,4\n")
    np.testing.assert_array_equal(table.matrix(), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(table.matrix(["c"]), [[2], [4]])
    with pytest.raises(ValueError, match="'b' holds text; numbers: a, c"):
        table.matrix(["b"])
    with pytest.raises(KeyError, match="no column 'z'; there are a, b, c"):
        table["z"]
    assert parse("a\nx\n").matrix().shape == (1, 0)


cells = st.text(st.characters(codec="ascii", exclude_characters="\r\n\0"), max_size=6)


@QUICK
@given(
    st.integers(2, 4).flatmap(
        lambda k: st.lists(st.lists(cells, min_size=k, max_size=k), min_size=2)
    )
)
def test_what_the_csv_writer_writes_is_read(rows):
    # Bracketed and quoted, every cell is text, and blanks, commas and quotes are the csv reader's.
    rows = [[f"<{cell}>" for cell in row] for row in rows]
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows(rows)
    content = buffer.getvalue()
    if content.count(";") or content.count("\t"):
        return
    table = parse(content, header=False)
    assert [list(row) for row in zip(*table.columns, strict=True)] == rows


finite = st.floats(allow_nan=False)


@QUICK
@given(st.lists(st.tuples(finite, finite), min_size=1), st.sampled_from([",", ";", "\t", " "]))
def test_numbers_come_back_exactly(rows, delimiter):
    table = parse("\n".join(delimiter.join(map(repr, row)) for row in rows))
    np.testing.assert_array_equal(table.matrix(), np.array(rows))


@QUICK
@given(st.binary(max_size=200))
def test_any_bytes_are_an_error_or_a_table(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    try:
        table = read_table(path)
    except DataError:
        return
    assert isinstance(table, Table)
    assert len(table) >= 1
    assert len({len(column) for column in table.columns}) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\n \n", "no rows"),
        ("a,b\n", "a header of 2 names and no rows"),
        ("a,b\n1,2\n3\n4,5\n", "data row 2 has 1 fields where the first row has 2"),
        ("a,b\n1,2\n3,4,5\n", "data row 2 has 3 fields"),
        ("a,b\n1,\0\n", "a NUL"),
        ("a," + "x" * 200_000 + "\n1,2\n", "field larger"),
    ],
)
def test_unusable_tables(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_table(path)


def test_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffgrün\r\nund\rblau\n".encode())
    text = read_text(path)
    assert text.text == "grün\nund\nblau\n"
    assert text.source.name == "a.txt"
    for content, message in (
        (b"\xff\xfea\0", "byte 0 is no UTF-8"),
        ("grün".encode("latin-1"), "byte 2 is no UTF-8"),
        (b"ab\0c", "NUL at character 2"),
        (b" \n\t", "white space"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_text(path)


@QUICK
@given(st.dates(datetime.date(1600, 1, 1), datetime.date(2400, 12, 31)))
def test_decimal_years(day):
    days = (datetime.date(day.year + 1, 1, 1) - datetime.date(day.year, 1, 1)).days
    expected = day.year + (day.timetuple().tm_yday - 1) / days
    iso = day.isoformat()
    forms = [iso, iso.replace("-", "/"), iso.replace("-", ""), f"{iso}T12:00", f"{iso} 12:00:00"]
    forms += [f"{day.day}-{day:%b}-{day.year}", f"{day.day} {day:%B} {day.year}"]
    np.testing.assert_array_equal(decimal_years(forms), np.full(len(forms), expected))


def test_odd_dates():
    np.testing.assert_array_equal(decimal_years(["2001", "2001-01", ""]), [2001, 2001, np.nan])
    for bad in ("01/02/2003", "2001-13-01", "2001-02-30", "yesterday", "20010", "3-foo-2001"):
        with pytest.raises(ValueError, match="is no date; accepted are"):
            decimal_years(["2001-01-01", bad])
