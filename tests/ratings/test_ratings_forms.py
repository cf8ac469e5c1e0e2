"""Ratings files in the forms in which people have them: each read with its settings, or refused with what to do."""

import gzip
import io
import itertools
import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from stages.prepare_ratings import prepare
from stages.ratings import files
from stages.ratings.source import read_source
from stages.ratings.table import write_parts
from tests.project import ROOT
from tests.ratings.ratings_files import COMPRESSORS, parquet, prepare_settings, read, refusal, rows, write

SHARED = ROOT.parent / "shared" / "files"

WORDS = {"it was amazing": 5, "really liked it": 4, "liked it": 3, "it was ok": 2, "did not like it": 1}
BY_PLACE = {"header": False, "columns": {"user": 1, "book": 2, "rating": 3}}


def named(user: str | int | None, book: str | int, rating: str | int) -> dict[str, Any]:
    return {"columns": {"user": user, "book": book, "rating": rating}}


NO_RATINGS = "This user doesn't have any rating"
GOODREADS_10M = {
    "user_rating_0_to_12.csv": 'ID,Name,Rating\n11,Salt,it was amazing\n11,"Ferry (Lights, #2)",really liked it\n',
    "user_rating_12_to_20.csv": f"ID,Name,Rating\n13,Salt,did not like it\n14,Rating,{NO_RATINGS}\n",
}
UCSD_CSV = "user_id,book_id,is_read,rating,is_reviewed\n0,501,1,5,0\n0,502,1,0,0\n1,501,1,4,1\n2,501,0,0,0\n"
UCSD_JSON = "".join(
    json.dumps({"user_id": f"{user:032x}", "book_id": "501", "rating": rating, "review": 'Good,\nsays "one"'}) + "\n"
    for user, rating in [(0xA5, 5), (0xA6, 0), (0xA7, 3)]
)
EXPORT = "Book Id,Title,ISBN,My Rating,My Review\n"
EXPORTS = {
    "anna.csv": EXPORT + '701,"Salt, a Novel","=""0140449132""",5,"Two<br/>"\n702,Orchard,"=""""",3,""\n',
    "bela.csv": EXPORT + '701,"Salt, a Novel","=""0140449132""",4,""\n704,Untitled,"=""""",0,""\n',
}
BOOK_CROSSING = b'"User-ID";"ISBN";"Book-Rating"\r\n"3";"014044913X";"0"\r\n"3";"055.3\xfc97";"8"\r\n'
AMAZON = "Id,Title,User_id,review/score\n0140449132,Salt,AX1,4.0\n0552993697,Orchard,,5.0\n0140449132,Salt,nan,3.0\n"


def zipped(**members: str | bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


SPARK = {
    "part-00000.snappy.parquet": parquet({"user_id": [1, 1], "book_id": [901, 902], "rating": [3.0, 4.0]}),
    "part-00001.snappy.parquet": parquet({"user_id": [2], "book_id": [901], "rating": [5.0]}),
    "_SUCCESS": b"",
    ".part-00000.crc": b"crc",
}
THREE = [(1, 901, 3), (1, 902, 4), (2, 901, 5)]
TSV = "1\t901\t3\t881250949\n1\t902\t4\t881250950\n2\t901\t5\t881250951\n"

SETTINGS: dict[str, dict[str, Any]] = {
    "Goodreads 10M": named("ID", "Name", "Rating") | {"rating_words": WORDS, "not_rated": [NO_RATINGS]},
    "exports": named(None, "Book Id", "My Rating") | {"not_rated": [0]},
    "BookCrossing": named("User-ID", "ISBN", "Book-Rating")
    | {"not_rated": [0], "rating_scale": [1, 10], "encoding": "latin-1"},
}
ARRAY = json.dumps([{"user_id": 1, "book_id": "b", "rating": 3}, {"rating": 4.5, "book_id": "c", "user_id": 2}])
MIXED_LINES = '{"user_id": 1, "book_id": 2, "rating": 3}\n\n{"user_id": "x", "book_id": 2, "rating": "4"}\n'
HEAD = "user_id,book_id,rating\n"

READ: dict[str, tuple[dict[str, Any], dict[str, Any], list[Any], dict[str, int]]] = {
    "Goodreads exports, by ISBN": (
        EXPORTS, named(None, "ISBN", "My Rating") | {"not_rated": [0], "missing_ids": "leave_out"},
        [("anna", "0140449132", 5), ("bela", "0140449132", 4)], {"not rated": 1, "no user or book": 1},
    ),
    "BookCrossing": ({"b.csv": BOOK_CROSSING}, SETTINGS["BookCrossing"], [(3, "055.3ü97", 8)], {"not rated": 1}),
    "Amazon's reviews": (
        {"a.csv": AMAZON}, named("User_id", "Id", "review/score") | {"missing_ids": "leave_out"},
        [("AX1", "0140449132", 4)], {"no user or book": 2},
    ),
    "ISBNs": (
        {"z.csv": HEAD + "1,0140449132,5\n1,140449132,4\n"}, {}, [(1, "0140449132", 5), (1, "140449132", 4)], {},
    ),
    "zip": ({"k.zip": zipped(**{"a/ratings.csv": HEAD + "1,901,3\n"})}, {}, THREE[:1], {}),
    "Spark": (SPARK, {}, THREE, {}),
    "decimal commas without a header": (
        {"x.csv": "7;901;3;10,2\n8;902;4;11,3\n"}, BY_PLACE, [(7, 901, 3), (8, 902, 4)], {},
    ),
    "decimal commas in two columns": (
        {"ann.csv": "901;4,5\n902;3,5\n"}, {"header": False, **named(None, 1, 2)},
        [("ann", 901, 4.5), ("ann", 902, 3.5)], {},
    ),
    "a list in a column": (
        {"l.csv": "9,2,5,1;2;3;4\n8,2,4,1;2;3;4\n"}, BY_PLACE, [(9, 2, 5), (8, 2, 4)], {},
    ),
    "a list of words in a column": ({"l.csv": "9,2,5,a|b|c|d|e\n"}, BY_PLACE, [(9, 2, 5)], {}),
    "commas in a title": ({"l.csv": "1|A, B, C|5\n"}, BY_PLACE, [(1, "A, B, C", 5)], {}),
    "text that begins as files of other kinds do": (
        {"a.csv": "ORC,PARE,BZh\n1,2,3\n", "b.csv": "PARE,ORC,BZh\n2,1,4\n", "c.csv": "BZh,PARE,ORC\n5,2,3\n"},
        named("ORC", "PARE", "BZh"), [(1, 2, 3), (1, 2, 4), (3, 2, 5)], {},
    ),
    "titles in brackets": (
        {"a.csv": "<U>,ann,5\n", "b.csv": "[Untitled],ann,4\n"}, {"header": False, **named(2, 1, 3)},
        [("ann", "<U>", 5), ("ann", "[Untitled]", 4)], {},
    ),
    "words with blanks": ({"w.csv": HEAD + "1,2,good \n"}, {"rating_words": {"good ": 5}}, [(1, 2, 5)], {}),
    "Excel's line with the separator": ({"e.csv": "SEP=;\nuser_id;book_id;rating\n1;2;3,5\n"}, {}, [(1, 2, 3.5)], {}),
    "Excel's wrapping within blanks": (
        {"e.csv": 'user_id\tbook_id\trating\n1\t ="0140"\t5\n'}, {}, [(1, "0140", 5)], {},
    ),
    "readers with points in their names": (
        {"j.doe.csv": "book_id,rating\n2,3\n", "j.smith.CSV": "book_id,rating\n2,4\n"},
        named(None, "book_id", "rating"), [("j.doe", 2, 3), ("j.smith", 2, 4)], {},
    ),
    "a JSON array": ({"j.json": ARRAY}, {}, [(1, "b", 3), (2, "c", 4.5)], {}),
    "a JSON array in UTF-16": (
        {"j.json": ARRAY.encode("utf-16")}, {"encoding": "utf-16"}, [(1, "b", 3), (2, "c", 4.5)], {},
    ),
    "text behind quotes in another column": (
        {"t.csv": "title," + HEAD + '"Great" book,1,2,3\n"x\ny",2,3,4\n"a, b",3,4,5\n'}, {},
        [(1, 2, 3), (2, 3, 4), (3, 4, 5)], {},
    ),
    "text behind quotes beside a title with commas": (
        {"t.csv": "t," + HEAD + '"Great" book,1,"a, ""b""",5\n5" disk,1,"901" ,5\n'}, {},
        [(1, 'a, "b"', 5), (1, "901 ", 5)], {},
    ),
    "quotes after backslashes, from Spark": (
        {"s.csv": HEAD + r'1,"The \"Best\", of\\",5' + "\n" + r'2,a\b,4' + "\n"}, {"quotes": "backslash"},
        [(1, 'The "Best", of\\', 5), (2, r"a\b", 4)], {},
    ),
    "quotes that are but text": (
        {"a.tsv": 'user_id\tbook_id\trating\ttitle\n1\t"b\t5\t"Great\n2\t3\t4\tthe 5" one\n'}, {"quotes": False},
        [(1, '"b', 5), (2, "3", 4)], {},
    ),
    "likes in JSON": (
        {"j.json": '{"user_id": 1, "book_id": 2, "rating": true}\n{"user_id": 2, "book_id": 2, "rating": false}\n'},
        {"rating_words": {"True": 5, "False": 1}}, [(1, 2, 5), (2, 2, 1)], {},
    ),
    "line breaks in reviews": (
        {"r.csv": 'user_id,book_id,review,rating\n1,901,"Nice,\nbut long, so, so.",4\n2,902,"a, b\n3,4,5\n",5\n'},
        {}, [(1, 901, 4), (2, 902, 5)], {},
    ),
    "a zip from a Mac": ({"k.zip": zipped(**{"r.csv": HEAD + "1,901,3\n", ".DS_Store": "x"})}, {}, THREE[:1], {}),
    "JSON lines of several types": ({"j.json": MIXED_LINES}, {}, [("1", 2, 3), ("x", 2, 4)], {}),
}  # fmt: skip


@pytest.mark.parametrize(("contents", "settings", "expected", "left_out"), READ.values(), ids=READ)
def test_reads(
    contents: dict[str, Any], settings: dict[str, Any], expected: list[Any], left_out: dict[str, int], tmp_path: Path
) -> None:
    source = read_source(prepare_settings(write(tmp_path, contents), **settings))
    assert rows(source) == expected
    assert source.left_out == left_out


def test_reads_a_pattern(tmp_path: Path) -> None:
    write(tmp_path, GOODREADS_10M | {"book0.csv": "Id,Name\n1,Salt\n"})
    settings = SETTINGS["Goodreads 10M"]
    expected = [(11, "Salt", 5), (11, "Ferry (Lights, #2)", 4), (13, "Salt", 1)]
    assert read(tmp_path / "user_rating_*.csv", **settings) == expected
    assert read(tmp_path, files="user_rating_*", **settings) == expected


def test_a_file_with_a_pattern_s_name_is_a_file(tmp_path: Path) -> None:
    write(tmp_path, {"r1.csv": HEAD + "1,1,1\n"})
    file = write(tmp_path, {"r[1].csv": HEAD + "2,2,2\n"})
    assert read(tmp_path / "r[1].csv") == [(2, 2, 2)]
    file.unlink()
    assert read(tmp_path / "r[1].csv") == [(1, 1, 1)]


def test_ids_of_parts_join_whatever_stands_in_each(tmp_path: Path) -> None:
    parts = {"a.csv": "7,1,3\n8,2,3\n", "b.csv": "7,0140449132,4\n", "c.csv": "8,1,5\n9,x,5\n"}
    write(tmp_path, {name: HEAD + part for name, part in parts.items()})
    source = read_source(prepare_settings(tmp_path))
    assert rows(source) == [(7, "1", 3), (8, "2", 3), (7, "0140449132", 4), (8, "1", 5), (9, "x", 5)]
    assert prepare(source, prepare_settings(tmp_path)).book_ids.to_pylist() == ["0140449132", "1", "2", "x"]


def test_a_part_without_rows_changes_nothing(tmp_path: Path) -> None:
    names = pa.array(["ann", "1.5", "-3"])
    whole = pa.table({"user_id": names, "book_id": names, "rating": [3.0, 4.0, 5.0]})
    pq.write_table(whole, tmp_path / "a.parquet")
    pq.write_table(whole[:0], tmp_path / "b.parquet")
    assert read(tmp_path) == [("ann", "ann", 3), ("1.5", "1.5", 4), ("-3", "-3", 5)]


# --- Refusals ---

EXCEL = zipped(**{"[Content_Types].xml": "<Types/>", "xl/workbook.xml": "<workbook/>"})
TAR = io.BytesIO()
with tarfile.open(fileobj=TAR, mode="w:gz") as archive:
    archive.addfile(tarfile.TarInfo("ratings.csv"), io.BytesIO())
FEATHER = io.BytesIO()
pyarrow.feather.write_feather(pa.table({"user_id": [1]}), FEATHER, compression="uncompressed")

REFUSED: dict[str, tuple[str | bytes, dict[str, Any], list[str]]] = {
    "xlsx": (EXCEL, {}, ["an Excel workbook (.xlsx)", "CSV"]),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", {}, ["an Excel workbook (.xls)"]),
    "tar.gz": (TAR.getvalue(), {}, ["a tar archive"]),
    "Feather": (FEATHER.getvalue(), {}, ["an Arrow or Feather file"]),
    "HTML": ("<!DOCTYPE html><html>Sign in</html>", {}, ["HTML", "log in"]),
    "several files in a zip": (zipped(a="1", b="2"), {}, ["2 files", "'a', 'b'", "unpack it"]),
    "UTF-16": (
        "User-ID;ISBN;Book-Rating\n1;2;ok\n".encode("utf-16"), {},
        ["UTF-16", "prepare.encoding: utf-16", "did you mean", "'ok' (line 2)"],
    ),
    "UTF-16 with few NUL bytes": ("книга".encode("utf-16"), {}, ["UTF-16", "prepare.encoding: utf-16"]),
    "missing in capitals": (HEAD + "NONE,2,3\nNull,2,3\n", {}, ["2 values missing: 'NONE', 'Null' (lines 2, 3)"]),
    "ISBNs after a German Excel": (
        "user_id;book_id;rating\n1;9,78014E+12;5\n", {}, ["1 value in powers of ten: '9,78014E+12' (line 2)"],
    ),
    "cut numbers in JSON": (
        '{"user_id": 1, "book_id": 9.78014E+12, "rating": 3.0}\n', {}, ["in powers of ten: '9.78014E+12' (line 1)"]
    ),
    "cut numbers in a JSON array": (
        '[{"user_id": 1.0, "rating": 3, "book_id": 1.2e12}]', {}, ["in powers of ten: '1.2e12' (object 1)"]
    ),
    "a quote that takes rows in": (
        'user_id\tbook_id\trating\tt\n1\t901\t3\t"Great\n2\t902\t5\tfine\n3\t903\t4\tso 7"\n', {},
        ["1 line with a quote that goes on over lines that look like rows (line 2)"],
    ),
    "a quote that takes rows in, and a blank line": (
        HEAD.replace("\n", ",t\n") + '1,10,5,"Great\n\n1,11,4,fine\n2,10,3,so so"\n', {}, ["goes on over lines"]
    ),
    "a quote that takes rows in, rated by decimal commas": (
        HEAD.replace(",", ";").replace("\n", ";t\n") + '1;10;4,5;"Great\n2;10;3,5;so so"\n', {}, ["goes on over lines"]
    ),
    "a quote that takes rows in, rated by words": (
        HEAD.replace("\n", ",t\n") + '1,10,ok,"Great\n2,10,,so so"\n', {"rating_words": {"ok ": 5}, "not_rated": [""]},
        ["goes on over lines"],
    ),
    "UTF-16 the other way round": ((HEAD + "1,2,3\n").encode("utf-16-be"), {}, ["prepare.encoding: utf-16-be"]),
    "a quote that takes rows in, and closes within one": (
        "user_id,title,book_id,rating\n1,\"Hello,2,4\n2,foo,2,\n3,\",2,5\n4,x,3,2\n", {}, ["goes on over lines"]
    ),
    "a quote that takes rows in, beside an inch": (
        "user_id\ttitle\tbook_id\trating\tt\n1\t5\" disk\t1\t5\t\"Great\n2\tb\t2\t3\tbad\n3\tc\t3\t4\tword\"\n", {},
        ["goes on over lines"],
    ),
    "a quote that takes rows in, with a comma": (
        HEAD.replace("\n", ",t\n") + '1,1,5,"Great, really\n2,2,3,bad\n3,3,4,fine"\n4,4,5,end\n', {}, ["over lines"]
    ),
    "a quote that takes rows in, with a comma before the rating": (
        "t," + HEAD + '"Great, really,1,1,5\nbad,2,2,3\nok",3,3,4\nx,4,4,5\n', {}, ["goes on over lines"]
    ),
    "Cyrillic first in UTF-16": (("книга," + HEAD).encode("utf-16-le"), {}, ["prepare.encoding: utf-16-le"]),
    "a list in JSON": ('{"user_id": [], "book_id": 1, "rating": 3}\n', {}, ["1 line without an object"]),
    "text behind a quote in an id": (HEAD + '1,"12"3,5\n2,123,4\n', {}, ["1 line with text behind a closing quote"]),
    "undefined in cp1252": (
        HEAD.encode() + b"1,2,3\n\x81,2,3\n", {"encoding": "cp1252"}, ["1 line not in cp1252 (line 3)"]
    ),
    "words without a header": (
        "ann,b,liked it\n", {"rating_words": {"liked it": 3}}, ["no header?", "'liked it' (separated by ',')"]
    ),
    "gzip in a zip": (zipped(**{"r.csv.gz": gzip.compress(HEAD.encode())}), {}, ["compressed", "unpack it"]),
    "tar": (b"r.csv".ljust(257, b"\0") + b"ustar", {}, ["a tar archive; unpack it"]),
    "text behind a quote, beside its like": (HEAD + '123,"12"3,5\n', {}, ["text behind a closing quote"]),
    "text behind a quote, and a quote that goes on": (
        "t," + HEAD.replace("\n", ",r\n") + '"Great" book,1,2,3,"multi\nx,7,8,5,z"\n', {},
        ["text behind a closing quote (line 2)"],
    ),
    "an unclosed quote behind inches": (HEAD.replace("\n", ",a,b\n") + '1,2,3,5","\n', {}, ["isn't closed"]),
    "text behind an empty field": (HEAD + '1,""3,5\n', {}, ["text behind a closing quote", "quotes: backslash"]),
    "an export by other names, not rated": (
        EXPORTS["bela.csv"], {}, ["no column 'user_id'", '"book": "Book Id"', "off the scale 1 to 5: '0' (line 3)"],
    ),
    "another separator": (HEAD + "1,2,3\n", {"separator": ";"}, ["'user_id,book_id,rating' (separated by ';')"]),
    "UTF-32": ((HEAD + "1,2,3\n").encode("utf-32"), {}, ["is text in UTF-32; set prepare.encoding: utf-32"]),
    "Git LFS": ("version https://git-lfs.github.com/spec/v1\noid sha256:1\n", {}, ["git lfs pull brings the file"]),
    "more than a message names": (
        HEAD.replace("\n", ",t\n") + ",,9,a\n-1,1e+9,x,a\n1,2,,b\n1,2\n", {}, ["\nand 3 more"]
    ),
    "six words": (
        HEAD + "".join(f"1,{row},{word}\n" for row, word in enumerate([*WORDS, NO_RATINGS])), {},
        ["6 values not a number", *WORDS, "any rating"],
    ),
    "Goodreads 10M": (
        GOODREADS_10M["user_rating_0_to_12.csv"], {}, ['{"user": "ID", "book": "Name", "rating": "Rating"}'],
    ),
    "a missing reader": (
        AMAZON, named("User_id", "Id", "review/score"),
        ["2 values missing: '', 'nan' (lines 3, 4)", "prepare.missing_ids: leave_out"],
    ),
    "an export's missing ISBN": (
        EXPORTS["anna.csv"], named(None, "ISBN", "My Rating"),
        ["column 'ISBN': 1 value missing: '=\"\"' (line 3)"],
    ),
    "no header, tabs": (TSV, {}, ["no header?", "prepare.header: false", "'881250949' (separated by '\\t')"]),
    "no header, double colons": (TSV.replace("\t", "::"), {}, ["no header?", "separated by '::'"]),
    "0 off the scale": (UCSD_CSV, {}, ["2 values off the scale 1 to 5: '0' (lines 3, 5)", "prepare.not_rated"]),
    "other names": (
        EXPORTS["anna.csv"], named("user", "book_id", "rating"),
        ["no column 'user' (prepare.columns.user)", '"book": "Book Id", "rating": "My Rating"', "user: null"],
    ),
    "words": (GOODREADS_10M["user_rating_0_to_12.csv"], named("ID", "Name", "Rating"), ["prepare.rating_words"]),
    "not UTF-8": (
        BOOK_CROSSING, SETTINGS["BookCrossing"] | {"encoding": "utf-8"},
        ["1 line not in UTF-8 (line 3); prepare.encoding: latin-1", "cp1252"],
    ),
    "not UTF-16": (b"user_id,book_id,rating\n1,2,3\n\xff", {"encoding": "utf-16"}, ["isn't in prepare.encoding"]),
    "JSON that isn't": ('{"user_id": 1,\n "book_id": 2}\n', {}, ["looks like JSON", "lines=True"]),
    "JSON by columns": ('{"user_id": {"0": 1}, "book_id": {"0": 1}, "rating": {"0": 1}}', {}, ["line 1", "lines=True"]),
    "a broken line of JSON": (UCSD_JSON + '{"user_id": 1\n', {"not_rated": [0]}, ["1 line without an object", " 4"]),
    "an object of a JSON array": (
        json.dumps([{"user_id": 1, "book_id": 1, "rating": rating} for rating in (1, 9)]), {}, ["'9' (object 2)"]
    ),
    "a JSON array in Latin-1": (
        '[{"user_id": "Jörg", "book_id": 1, "rating": 1}]'.encode("latin-1"), {}, ["prepare.encoding: latin-1 would"]
    ),
    "nothing but left out": (
        HEAD + "1,2,0\n", {"not_rated": [0]}, ["no ratings; left out: 1 not rated"]
    ),
    "a place that isn't there": (
        "1,2,3\n", {"header": False, "columns": {"user": 1, "book": 2, "rating": 9}}, ["no column 9", "'1', '2', '3'"]
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "settings", "fragments"), REFUSED.values(), ids=REFUSED)
def test_refuses(content: str | bytes, settings: dict[str, Any], fragments: list[str], tmp_path: Path) -> None:
    message = refusal(write(tmp_path, {"file": content}), **settings)
    for fragment in fragments:
        assert fragment in message


def test_no_separator_is_named_where_none_is_seen(tmp_path: Path) -> None:
    assert refusal(write(tmp_path, {"a.csv": "a^b^c\n"})).endswith("known: 'a^b^c'")


def test_one_message_says_all_that_a_file_needs(tmp_path: Path) -> None:
    names, encoding, scale = refusal(write(tmp_path, {"b.csv": BOOK_CROSSING})).splitlines()
    assert 'did you mean {"user": "User-ID", "book": "ISBN", "rating": "Book-Rating"}?' in names
    assert "separated by ';'" in names
    assert "(line 3); prepare.encoding: latin-1" in encoding
    assert "2 values off the scale 1 to 5: '0', '8' (lines 2, 3); prepare.rating_scale" in scale


def test_the_encoding_is_seen_without_the_columns(tmp_path: Path) -> None:
    file = write(tmp_path, {"b.csv": 'Käufer;Titel;Note\nJörg;"Auf\n";5\n'.encode("latin-1")})
    names, encoding = refusal(file).splitlines()
    assert "no column 'user_id'" in names
    assert "2 lines not in UTF-8 (lines 1, 2); prepare.encoding: latin-1" in encoding


def test_no_column_is_suggested_that_only_looks_alike(tmp_path: Path) -> None:
    file = write(tmp_path, {"b.csv": "Publisher,Year,Pages\nP,1999,7\n"})
    assert "did you mean" not in refusal(file, **named("user", "item", "stars"))


def test_of_several_files_the_one_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a.csv": HEAD + "1,2,3\n", "b.csv": HEAD + "\n1,2,9\n1,2,0\n", "c.csv": HEAD + "1,2,7\n"})
    first, second = refusal(folder).splitlines()
    assert first.startswith(
        f"{folder / 'b.csv'}: column 'rating': 2 values off the scale 1 to 5: '9', '0' (lines 3, 4)"
    )
    assert second.startswith(f"{folder / 'c.csv'}: column 'rating': 1 value off the scale 1 to 5: '7' (line 2)")
    (folder / "b.csv").write_text("user;book\n1;2\n")
    assert f"{folder / 'b.csv'} has no column 'user_id'" in refusal(folder)
    (folder / "b.csv").write_text(HEAD + "1,2\n")
    (folder / "c.csv").unlink()
    assert f"{folder / 'b.csv'}: 1 line with fewer than 3 fields (line 2)" in refusal(folder)


def test_a_part_of_nothing_but_a_mark_ends_no_reading(tmp_path: Path) -> None:
    """It decodes to no text at all: alone it is empty, and the files after it are read or it is refused."""
    folder = write(tmp_path, {"a.csv": HEAD + "1,2,3\n", "b.csv": "+", "c.csv": HEAD + "4,5,3\n"})
    assert refusal(folder, encoding="utf-7") == f"{folder / 'b.csv'} is empty"


def test_two_files_of_one_reader_are_refused(tmp_path: Path) -> None:
    """Two readers whose files have one name would be one: where each lies in a folder of its own, say."""
    for reader in ("anna", "bela"):
        (tmp_path / reader).mkdir()
        (tmp_path / reader / "export.csv").write_text("book_id,rating\n2,3\n")
    message = refusal(tmp_path / "*" / "export.csv", **named(None, "book_id", "rating"))
    assert f"{tmp_path / 'anna' / 'export.csv'} and {tmp_path / 'bela' / 'export.csv'} are both named" in message


def test_a_link_to_nothing_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": HEAD + "1,2,3\n", "c.csv": HEAD + "1,4,3\n"})
    (tmp_path / "b.csv").symlink_to("nowhere")
    assert f"{tmp_path / 'b.csv'}" in refusal(tmp_path)


def test_lines_are_right_after_rows_that_are_left_out(tmp_path: Path) -> None:
    file = write(tmp_path, {"r.csv": HEAD + "1,2,0\n,2,3\n1,3,3\n1,nan,3\n1,4,9\n"})
    assert "'9' (line 6)" in refusal(file, not_rated=[0], missing_ids="leave_out")


def test_a_folder_with_another_table_is_told_to_choose(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, {"books.csv": "book_id,title\n1,Emma\n", "ratings.csv": HEAD + "1,2,3\n"}))
    assert "books.csv has no column 'user_id'" in message
    assert "one of 2 files; prepare.files chooses" in message


def test_a_folder_without_ratings_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"_SUCCESS": "", ".hidden.csv": "user_id"})
    assert "no files with ratings" in refusal(tmp_path)
    assert "no files with ratings" in refusal(tmp_path / "*.csv")


# --- The same table in every form ---

HEADER = ("user_id", "book_id", "rating", "title")
TABLE = [(f"u{row % 7}", f"{row % 11:04}", (row % 9 + 2) / 2, f'T "{row}", é; a|b') for row in range(60)]


def as_csv(separator: str, line_end: str = "\n", header: bool = True, decimal: str = ".", table: Any = TABLE) -> str:
    def field(value: object) -> str:
        text = f"{value:g}".replace(".", decimal) if isinstance(value, float) else str(value)
        return '"' + text.replace('"', '""') + '"' if set(text) & {separator, '"', " ", "\t"} else text

    if separator == "::":  # knows no quotes
        table = [(*row[:3], "T") for row in table]
    return "".join(separator.join(map(field, row)) + line_end for row in ([HEADER, *table] if header else table))


def as_json(table: Any = TABLE) -> str:
    return "".join(json.dumps(dict(zip(HEADER, row, strict=True))) + "\n" for row in table)


def as_parquet(table: Any = TABLE) -> bytes:
    return parquet({name: [row[place] for row in table] for place, name in enumerate(HEADER)})


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    **COMPRESSORS,
    "zip": lambda content: zipped(ratings=content),
}
SEPARATORS = (",", ";", "\t", "|", "::", " ")
ENCODINGS = ["utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32", "cp437", "mac_roman", "cp037"]
FORMS: dict[str, tuple[bytes, dict[str, Any]]] = {
    **{f"CSV, {separator!r}": (as_csv(separator).encode(), {}) for separator in SEPARATORS},
    **{f"CSV, {separator!r} set": (as_csv(separator).encode(), {"separator": separator}) for separator in SEPARATORS},
    **{f"CSV, {end!r}": (as_csv(",", end).encode(), {}) for end in ("\r\n", "\r", "\n\n")},
    **{f"CSV, {name}": (as_csv(";").encode(name), {"encoding": name}) for name in ENCODINGS},
    "CSV, no header": (as_csv(",", header=False).encode(), BY_PLACE),
    "CSV, decimal commas": (as_csv(";", decimal=",").encode(), {}),
    "CSV, line breaks in quotes": (as_csv(",").replace("é", "\n\né").encode(), {}),
    "CSV, wrapped by Excel": (re.sub(r",(00\d\d),", r',"=""\1""",', as_csv(",")).encode(), {}),
    "JSON lines": (as_json().encode(), {}),
    "JSON lines, UTF-16": (as_json().encode("utf-16"), {"encoding": "utf-16"}),
    "a JSON array": (json.dumps([json.loads(line) for line in as_json().splitlines()], indent=1).encode(), {}),
    "Parquet": (as_parquet(), {}),
}


def prepared_bytes(ratings: Path, folder: Path, **settings: Any) -> bytes:
    checked = prepare_settings(ratings, **settings)
    prepared = prepare(read_source(checked), checked)
    assert prepared.user_ids.to_pylist() == sorted({row[0] for row in TABLE})
    assert prepared.book_ids.to_pylist() == sorted({row[1] for row in TABLE})
    write_parts(prepared.parts, folder / "ratings.parquet")
    return (folder / "ratings.parquet").read_bytes()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("expected")
    return prepared_bytes(write(folder, {"r.csv": as_csv(",")}), folder)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chunk", [200, 1 << 22])
def test_every_form_gives_the_same_bytes(
    form: str, chunk: int, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a file is read in many small chunks, and whatever it is compressed with."""
    monkeypatch.setattr(files, "CHUNK", chunk)
    content, settings = FORMS[form]
    for name, pack in PACKERS.items():
        file = write(tmp_path, {f"file.{name}": pack(content)})
        assert prepared_bytes(file, tmp_path, **settings) == expected, name


@pytest.mark.parametrize("size", [1, 7, 59])
def test_every_division_into_parts_gives_the_same_bytes(size: int, expected: bytes, tmp_path: Path) -> None:
    writers: list[Callable[[Any], bytes]] = [
        lambda some: as_csv(";", table=some).encode(),
        lambda some: gzip.compress(as_json(some).encode()),
        as_parquet,
    ]
    for number, kinds in enumerate([writers[:1], writers[1:2], writers[2:], writers]):
        folder = tmp_path / str(number)
        folder.mkdir()
        parts = [TABLE[first : first + size] for first in range(0, len(TABLE), size)]
        for place, (part, kind) in enumerate(zip(parts, itertools.cycle(kinds))):
            (folder / f"part-{place:03}").write_bytes(kind(part))
        assert prepared_bytes(folder, tmp_path) == expected


# --- The files beside the project ---


@pytest.mark.skipif(not SHARED.exists(), reason="the small ratings files are not beside the project")
def test_the_files_beside_the_project_are_as_here() -> None:
    counted = {
        **dict.fromkeys(["goodreads-10m", "goodreads-10m.csv"], SETTINGS["Goodreads 10M"]),
        **{f"ucsd-interactions.{kind}": {"not_rated": [0]} for kind in ("csv", "json.gz")},
        **{"goodreads-exports": SETTINGS["exports"], "book-crossing.csv": SETTINGS["BookCrossing"]},
    }
    found = {}
    for name, settings in counted.items():
        source = read_source(prepare_settings(SHARED / name, **settings))
        users, books, _ = zip(*rows(source), strict=True)
        found[name] = [source.rows, len({*users}), len({*books}), source.left_out["not rated"]]
    assert list(found.values()) == [[6, 3, 3, 1], [6, 3, 3, 1], [4, 3, 3, 3], [4, 3, 3, 3], [4, 2, 3, 2], [5, 3, 3, 1]]
