"""BioASQ's files: what is no question says why, and what is no such file says which and how to set it."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mkailin_assets.questions.bioasq import BioASQItem, NotBioASQ, Snippet, read_bioasq

ADDRESS = "http://www.ncbi.nlm.nih.gov/pubmed/"


def snippet(pmid: int, text: str, begin: int = 0, section: str = "abstract") -> dict[str, Any]:
    return {
        "document": f"{ADDRESS}{pmid}",
        "text": text,
        "beginSection": section,
        "endSection": section,
        "offsetInBeginSection": begin,
        "offsetInEndSection": begin + len(text),
    }


def question(name: str, *snippets: dict[str, Any], **changes: Any) -> dict[str, Any]:
    entry = {
        "id": name,
        "body": "Does amarin prevent stroke?",
        "type": "yesno",
        "documents": [f"{ADDRESS}11", f"{ADDRESS}12"],
        "snippets": list(snippets),
        "ideal_answer": ["Yes."],
        "exact_answer": "yes",
    }
    return entry | changes


def write(path: Path, *questions: object) -> Path:
    path.write_text(json.dumps({"questions": questions}))
    return path


def item(*snippets: dict[str, Any], **changes: Any) -> BioASQItem:
    return BioASQItem.model_validate(question("a", *snippets, **changes))


def test_a_question_is_read_with_its_citations_and_passages(tmp_path: Path) -> None:
    file = write(tmp_path / "one.json", question("a", snippet(12, "Amarin is a drug.", 40)))
    (read,) = read_bioasq(file)
    assert (read.id, read.question, read.type) == ("a", "Does amarin prevent stroke?", "yesno")
    assert read.documents == (11, 12)
    expected = {"document": f"{ADDRESS}12", "beginSection": "abstract", "text": "Amarin is a drug."}
    offsets = {"offsetInBeginSection": 40, "offsetInEndSection": 57}
    assert read.snippets == (Snippet.model_validate(expected | offsets),)


def test_documents_with_most_snippets_come_first_and_each_once() -> None:
    snippets = [snippet(12, "a"), snippet(14, "b"), snippet(14, "c")]
    documents = [f"{ADDRESS}{pmid}" for pmid in (13, 12, 13, 11)]
    assert item(*snippets, documents=documents).pmids == [14, 12, 13, 11]


def test_passages_stand_in_reading_order_and_none_twice() -> None:
    marked = item(
        snippet(11, "It failed.", 60),
        snippet(11, "of amarin", 20),
        snippet(11, "We gave", 0),
        snippet(11, "We gave a dose of amarin.", 0),
        snippet(12, "Another document."),
        snippet(11, "A trial of amarin", 0, "title"),
    )
    assert marked.passages(11) == "A trial of amarin We gave a dose of amarin. It failed."
    assert marked.passages(13) == ""


def test_without_offsets_passages_stand_as_the_file_has_them() -> None:
    bare = [{"document": f"{ADDRESS}11", "text": text} for text in ("B.", "A.")]
    assert item(*bare).passages(11) == "B. A."


@pytest.mark.parametrize(
    "address",
    [
        f"{ADDRESS}11",
        f"{ADDRESS}11/",
        "https://www.ncbi.nlm.nih.gov/pubmed/11",
        "http://ncbi.nlm.nih.gov/pubmed/11",
        "https://pubmed.ncbi.nlm.nih.gov/11/",
    ],
)
def test_every_address_that_pubmed_has_had_is_read(address: str) -> None:
    assert item(documents=[address]).documents == (11,)


@pytest.mark.parametrize(
    ("entry", "cause"),
    [
        ("Does amarin prevent stroke?", "Input should be a valid dictionary"),
        ({"id": "b", "type": "yesno"}, "body: Field required"),
        (question("b", body=" \u200b\n"), "body: Value error, there is nothing to read in it"),
        (question("b", body=["Does amarin?"]), "body: Input should be a valid string"),
        (question("b", type="essay"), "type: Input should be 'yesno', 'factoid', 'list' or 'summary'"),
        (question("b", documents=["https://x.org/11"]), "'https://x.org/11' is not the address"),
        (question("b", documents=[f"{ADDRESS}PMC11"]), "PMC11' is not the address of a citation in PubMed"),
        (question("b", documents=[f"{ADDRESS}{10**30}"]), "is not the address of a citation in PubMed"),
        (question("b", documents=[11]), "documents: 0: Value error, '11' is not the address"),
        (question("b", {"document": f"{ADDRESS}11"}), "snippets: 0: text: Field required"),
        (question("b", snippet(11, "")), "snippets: 0: text: Value error, there is nothing to read in it"),
        (question("b", snippet(11, "A.") | {"document": "x"}), "snippets: 0: document: Value error, 'x'"),
        (question("a"), "an earlier question has its id, a, too"),
    ],
)
def test_a_refused_question_says_why_and_spares_the_others(entry: object, cause: str, tmp_path: Path) -> None:
    read = read_bioasq(write(tmp_path / "some.json", question("a"), entry, question("c")))
    assert [item.id for item in read] == ["a", "c"]
    ((name, reason),) = read.refused.items()
    assert name == "some.json, question 2"
    assert cause in reason


def test_what_cannot_be_seen_is_left_out_and_what_can_stays() -> None:
    body = "Does \x07amarin \U0001f9ec\n\ud83d prevent stroke?"
    odd = item(snippet(11, "Amarin\x00 is\u202e a\ndrug."), body=body)
    assert odd.question == "Does amarin \U0001f9ec prevent stroke?"
    assert odd.passages(11) == "Amarin is a drug."


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "Expecting value"),
        (b'{"questions": [{"id": "a", "bo', "Unterminated string"),
        (b"<!DOCTYPE html><html><body>Please log in</body></html>", "Expecting value"),
        (b"\x1f\x8b\x08\x00zipped", "can't decode byte 0x8b"),
        (b"[" * 200_000, "recursion"),
        (b'[{"id": "a"}]', "expected a JSON object with a list of questions, as in"),
        (b'{"questions": {"a": {}}}', "expected a JSON object with a list of questions, as in"),
        (b'{"questions": []}', "no question can be used; wrong.json: there are no questions in it"),
        (b'{"questions": [{}]}', "no question can be used; wrong.json, question 1: id: Field required"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_that_is_none_of_bioasq_is_named_with_its_setting(
    content: bytes | None, cause: str, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(NotBioASQ) as raised:
        read_bioasq(file)
    assert str(file) in str(raised.value)
    assert cause in str(raised.value)
    assert "set MKAILIN_BIOASQ to" in str(raised.value)


def test_a_folder_is_read_by_name_and_every_file_in_it_must_be_right(tmp_path: Path) -> None:
    write(tmp_path / "b.json", question("a", body="Is it asked again?"), question("c"))
    write(tmp_path / "a.json", question("a"))
    (tmp_path / "README.txt").write_text("not read")
    read = read_bioasq(tmp_path)
    assert [(item.id, item.question) for item in read] == [
        ("a", "Does amarin prevent stroke?"),
        ("c", "Does amarin prevent stroke?"),
    ]
    assert read.refused == {"b.json, question 1": "an earlier question has its id, a, too"}
    (tmp_path / "c.json").write_text("")
    with pytest.raises(NotBioASQ, match=r"c\.json: Expecting value"):
        read_bioasq(tmp_path)


def test_a_folder_without_files_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotBioASQ, match="there are no questions in it; set MKAILIN_BIOASQ"):
        read_bioasq(tmp_path)


def test_the_real_golden_files_are_read_whole(real_data: Path, tmp_path: Path) -> None:
    read = read_bioasq(real_data / "bioasq")
    assert read.refused == {}
    assert Counter(item.type for item in read) == {"factoid": 53, "yesno": 47, "summary": 38, "list": 25}
    assert sum(len(item.snippets) for item in read) == 1530
    assert len({pmid for item in read for pmid in item.pmids}) == 1066
    shutil.copy(real_data / "bioasq" / "10B1_golden.json", tmp_path / "again.json")
    shutil.copy(real_data / "bioasq" / "10B1_golden.json", tmp_path)
    twice = read_bioasq(tmp_path)
    assert (len(twice.items), len(twice.refused)) == (90, 90)
