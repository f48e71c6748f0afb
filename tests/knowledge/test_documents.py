import gzip
import json

import pytest

from etude.errors import UserError
from etude.knowledge.documents import Corpus, read_documents, split_text

WORDS = " ".join(f"word{number}" for number in range(50))


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_folder_gives_every_file_that_can_be_read_by_name(tmp_path):
    (tmp_path / "books" / "old").mkdir(parents=True)
    (tmp_path / "books" / "b.txt").write_text("second")
    (tmp_path / "books" / "old" / "b.txt").write_text("third")
    (tmp_path / "books" / "a.md").write_text("first")
    (tmp_path / "books" / "picture.png").write_bytes(b"\x89PNG")
    found = [(document.origin, document.text) for document in read_documents(Corpus(path=["books"]), tmp_path)]
    assert found == [("books/a.md", "first"), ("books/b.txt", "second"), ("books/old/b.txt", "third")]


def test_every_kind_of_file_gives_the_same_text(tmp_path):
    import pyarrow
    from pyarrow.parquet import write_table

    rows = [{"text": "one, two", "about": "numbers"}, {"text": "red", "about": "colours"}]
    write_rows(tmp_path / "a.jsonl", rows)
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.csv").write_text('text,about\n"one, two",numbers\nred,colours\n')
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    for ending in ("jsonl", "json", "csv", "jsonl.gz", "parquet"):
        found = list(read_documents(Corpus(path=[f"a.{ending}"], label_column="about"), tmp_path))
        assert [(document.text, document.label) for document in found] == [("one, two", "numbers"), ("red", "colours")], ending
        assert len({document.origin for document in found}) == 2 and found[0].origin.startswith(f"a.{ending}")


def test_a_data_set_is_streamed(tmp_path):
    write_rows(tmp_path / "train.jsonl", [{"text": "one"}, {"text": "two"}])
    found = read_documents(Corpus(dataset=str(tmp_path)))
    assert [document.text for document in found] == ["one", "two"]
    with pytest.raises(UserError, match="has no column 'body': its columns are text"):
        list(read_documents(Corpus(dataset=str(tmp_path), text_column="body")))


def test_a_long_text_is_cut_between_paragraphs_and_a_long_paragraph_between_words(tmp_path):
    (tmp_path / "a.txt").write_text(f"one two\n\nthree\n\n{WORDS}\n\nfour")
    found = list(read_documents(Corpus(path=["a.txt"], max_words=20), tmp_path))
    assert [document.origin for document in found] == [f"a.txt#{number}" for number in range(5)]
    assert found[0].text == "one two\n\nthree" and found[4].text == "four"
    assert " ".join(document.text for document in found[1:4]) == WORDS
    assert split_text(WORDS, 50) == [WORDS]


def test_a_broken_row_is_a_document_without_text_and_ends_nothing(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": \n[1]\n{"text": null}\n\n{"text": "two"}\n')
    found = list(read_documents(Corpus(path=["a.jsonl"]), tmp_path))
    assert [document.text for document in found] == ["one", "", "", "", "two"]
    assert [document.origin for document in found] == [f"a.jsonl:{line}" for line in (1, 2, 3, 4, 6)]


def test_half_a_character_bytes_that_are_no_text_and_an_empty_heading_are_no_trouble(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "bad \\ud83d end", "title": null}\n')
    (document,) = read_documents(Corpus(path=["a.jsonl"], heading_column="title"), tmp_path)
    assert document.text == "bad \ufffd end" and document.heading == ""
    document.text.encode()
    (tmp_path / "a.txt").write_bytes(b"good \xff\xfe bad")
    assert [document.text for document in read_documents(Corpus(path=["a.txt"]), tmp_path)] == ["good \ufffd\ufffd bad"]


def test_two_folders_of_one_name_are_told_apart_and_a_file_is_not_read_twice(tmp_path):
    for folder in ("x/pages", "y/pages"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.txt").write_text(folder)
    found = list(read_documents(Corpus(path=["x/pages", "y/pages/"]), tmp_path))
    assert [document.origin for document in found] == ["x/pages/a.txt", "y/pages/a.txt"]
    for again in ("x/pages/a.txt", "x/pages"):
        with pytest.raises(UserError, match=r"x/pages/a\.txt is read twice"):
            list(read_documents(Corpus(path=["x/pages", again]), tmp_path))


def test_a_book_may_stand_in_a_cell_and_a_torn_archive_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("text\n" + "word " * 50_000 + "\n")
    assert len(list(read_documents(Corpus(path=["a.csv"]), tmp_path))) == 125
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": WORDS}).encode() * 200)[:-20])
    with pytest.raises(UserError, match=r"a\.jsonl\.gz cannot be read to its end"):
        list(read_documents(Corpus(path=["a.jsonl.gz"]), tmp_path))


@pytest.mark.parametrize(
    ("corpus", "sentence"),
    [
        (Corpus(path=["none"]), "path 'none' is neither a file nor a folder"),
        (Corpus(path=["empty"]), "folder 'empty' holds nothing that can be read: .txt"),
        (Corpus(path=["a.png"]), "'a.png' must end in one of .txt, .md"),
        (Corpus(path=["a.jsonl"], text_column="body"), "a.jsonl:1 has no column 'body': its columns are text; name one with text_column"),
        (Corpus(path=["a.parquet"]), "a.parquet is not a Parquet file"),
        (Corpus(), "corpus needs either path or dataset, got neither"),
        (Corpus(path=["a"], dataset="b"), "got both"),
        (Corpus(path=["a"], dataset_name="b"), "corpus.dataset_name belongs to dataset"),
        (Corpus(path=["a"], max_words=5), "corpus.max_words must be at least 20, got 5"),
    ],
)
def test_wrong_places_and_settings_are_named_in_one_sentence(corpus, sentence, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "a.parquet").write_bytes(b"no")
    write_rows(tmp_path / "a.jsonl", [{"text": "one"}])
    with pytest.raises(UserError, match=sentence):
        corpus.check("corpus")
        list(read_documents(corpus, tmp_path))
