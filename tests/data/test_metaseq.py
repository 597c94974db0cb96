import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm3leon.cli import main as cli
from cm3leon.data.metaseq import parse, read_rows, row_of, spell
from cm3leon.data.shards import Alphabets, Record, Shards, TokenSegment
from cm3leon.data.stream import document_parts
from cm3leon.errors import DataError
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.tokens.codec import assemble
from cm3leon.tokens.vocabulary import Vocabulary

CODES = [*range(15), 63]
ALPHABETS = Alphabets(
    text_tokenizer="t", text_size=300, codes_per_image=16, codebook_size=64
)
captions = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ['a "red" apple', '" src="I5 ">', "<break>\nand\ttabs"]
)


@given(captions, st.lists(st.integers(0, 8191), min_size=1))
def test_a_spelled_picture_is_read_as_it_was(caption, codes):
    assert parse(spell(caption, codes)) == (caption, tuple(codes))


def document(tokenizer, caption, first):
    codes = tuple((first + code) % 64 for code in range(16))
    return (
        TokenSegment("text", (tuple(tokenizer.encode(caption)),)),
        TokenSegment("image", (codes,)),
    )


@pytest.fixture
def records(text_tokenizer):
    words = ['a "red" apple', "two cats,\nasleep", "赤いりんご", "a car", "x"]
    made = [document(text_tokenizer, text, n) for n, text in enumerate(words)]
    return [
        Record(f"rows.jsonl line {n + 1}", "all", made[n], tuple(made[:n]))
        for n in range(len(made))
    ]


@pytest.fixture
def rows(records, text_tokenizer, tmp_path):
    lines = [json.dumps(row_of(one, text_tokenizer)) for one in records]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "rows.jsonl"


def test_records_come_back_from_their_rows(rows, records, text_tokenizer):
    assert list(read_rows(rows, text_tokenizer, ALPHABETS)) == records


def test_rows_come_back_from_shards_by_command(rows, tokenizers, tmp_path, capsys):
    shards, again = tmp_path / "shards", tmp_path / "again.jsonl"
    words = ["--tokenizers", str(tokenizers)]
    assert cli.main(["data", "import", str(rows), str(shards), *words]) == 0
    assert "5 records" in capsys.readouterr().out
    assert cli.main(["data", "export", str(shards), str(again), *words]) == 0
    read = [
        [json.loads(line) for line in file.read_text().splitlines()]
        for file in (rows, again)
    ]
    assert read[0] == read[1]
    assert [len(row["retrieved_docs_from_txt"]) for row in read[0]] == [0, 1, 1, 2, 2]
    assert cli.main(["data", "import", str(rows), str(shards), *words]) == 1
    assert "holds shards already" in capsys.readouterr().err


def test_imported_shards_are_those_of_the_tokenizers(rows, tokenizers, tmp_path):
    words = ["--tokenizers", str(tokenizers)]
    assert cli.main(["data", "import", str(rows), str(tmp_path / "s"), *words]) == 0
    alphabets = Shards(tmp_path / "s").alphabets
    images = ImageTokenizer.load(tokenizers / "image_tokenizer")
    assert alphabets.codes_per_image == images.codes_per_image
    assert alphabets.codebook_size == images.codebook_size


def test_in_the_authors_vocabulary_ids_are_theirs(records, text_tokenizer):
    record = records[1]
    ids = assemble(
        Vocabulary.authors(), document_parts([*record.neighbours, record.segments])
    )
    (near_text, near_codes), (text, codes) = (
        [segment.alternatives[0] for segment in one]
        for one in (*record.neighbours, record.segments)
    )
    assert ids == [
        2,
        *(4 + value for value in near_text),
        65_536,
        *(56_320 + code for code in near_codes),
        65_536,
        *(4 + value for value in text),
        65_536,
        *(56_320 + code for code in codes),
        2,
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "Expecting"),
        ("[]", "has no attribute"),
        ('{"caption": "a cat"}', "'text'"),
        ('{"text": "a cat"}', "is no <img alt"),
        (json.dumps({"text": spell("a cat", [1, 2])}), "2 codes up to 2"),
        (json.dumps({"text": spell("a cat", [64] * 16)}), "16 codes up to 64"),
    ],
)
def test_a_line_that_is_no_row_is_named(line, reason, text_tokenizer, tmp_path):
    good = json.dumps({"text": spell("a cat", CODES)})
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{good}\n{line}\n")
    with pytest.raises(DataError, match=f"line 2 is no row: .*{reason}"):
        list(read_rows(file, text_tokenizer, ALPHABETS))
