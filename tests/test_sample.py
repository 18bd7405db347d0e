"""Promises of the sample that ships with the project."""

import csv
import gzip
import hashlib
import json
import math
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from lxml import etree

from mkailin_assets.partitions import MESH_BRANCH_NAMES
from mkailin_resources.sample import MESH_YEAR, NLM_FOLDER, PUBMEDQA_FILE, make
from mkailin_resources.sample.mesh import EXCERPT, UNKNOWN_HEADING

PUBMED_FILES = {
    make.BASELINE: NLM_FOLDER / f"pubmed/baseline/{make.BASELINE}.xml.gz",
    make.SECOND_BASELINE: NLM_FOLDER / f"pubmed/baseline/{make.SECOND_BASELINE}.xml.gz",
    make.UPDATE: NLM_FOLDER / f"pubmed/updatefiles/{make.UPDATE}.xml.gz",
}
DESCRIPTORS = NLM_FOLDER / f"projects/mesh/MESH_FILES/xmlmesh/desc{MESH_YEAR}.gz"
MOST_BYTES = 600_000
MOST_SHARED_SHINGLES = 0.2


def parsed(path: Path) -> etree._Element:
    return etree.fromstring(gzip.decompress(path.read_bytes()), etree.XMLParser(resolve_entities=False))


def readable(root: etree._Element) -> dict[int, etree._Element]:
    """MedlineCitation by PMID, of the records that have one."""
    found = {}
    for citation in root.iter("MedlineCitation"):
        pmid = citation.findtext("PMID") or ""
        if pmid.isdecimal():
            assert int(pmid) not in found, f"{pmid} is twice in one file"
            found[int(pmid)] = citation
    return found


def headings(citation: etree._Element) -> list[str]:
    return [name.text for name in citation.iterfind("MeshHeadingList/MeshHeading/DescriptorName")]


def majors(citation: etree._Element) -> list[str]:
    return [
        heading.findtext("DescriptorName")
        for heading in citation.iterfind("MeshHeadingList/MeshHeading")
        if any(part.get("MajorTopicYN") == "Y" for part in heading)
    ]


def text(citation: etree._Element) -> str:
    return " ".join("".join(part.itertext()) for part in citation.iterfind("Article/Abstract/AbstractText"))


@pytest.fixture(scope="module")
def files() -> dict[str, etree._Element]:
    return {key: parsed(path) for key, path in PUBMED_FILES.items()}


@pytest.fixture(scope="module")
def baseline(files: dict[str, etree._Element]) -> dict[int, etree._Element]:
    return readable(files[make.BASELINE]) | readable(files[make.SECOND_BASELINE])


@pytest.fixture(scope="module")
def update(files: dict[str, etree._Element]) -> dict[int, etree._Element]:
    return readable(files[make.UPDATE])


@pytest.fixture(scope="module")
def trees() -> dict[str, list[str]]:
    """Tree numbers by descriptor name."""
    return {
        record.findtext("DescriptorName/String"): [
            n.text for n in record.iterfind("TreeNumberList/TreeNumber")
        ]
        for record in parsed(DESCRIPTORS).iter("DescriptorRecord")
    }


@pytest.fixture(scope="module")
def benchmark() -> dict[str, dict]:
    return json.loads(PUBMEDQA_FILE.read_text(encoding="utf-8"))


def intrinsic_ic(trees: dict[str, list[str]]) -> dict[str, float]:
    """Seco's intrinsic information content, from the root down: independent of the package's."""
    holder = {number: name for name, numbers in trees.items() for number in numbers}
    children: dict[str, set[str]] = {name: set() for name, numbers in trees.items() if numbers}
    for number, name in holder.items():
        if "." in number:
            children[holder[number.rpartition(".")[0]]].add(name)

    def below(name: str) -> set[str]:
        found, todo = {name}, [name]
        while todo:
            new = children[todo.pop()] - found
            found |= new
            todo += new
        return found

    return {name: 1 - math.log(len(below(name))) / math.log(len(children)) for name in children}


def home(citation: etree._Element, trees: dict[str, list[str]], ic: dict[str, float]) -> str:
    known = [name for name in majors(citation) if trees.get(name)]
    best = min(known, key=lambda name: (-ic[name], min(trees[name])))
    return min(trees[best])[:3]


def test_making_the_sample_again_gives_the_committed_content(tmp_path: Path) -> None:
    make.make(tmp_path / "nlm", tmp_path / "benchmark.json")
    committed = [path for path in NLM_FOLDER.rglob("*") if path.is_file()]
    made = {path.relative_to(tmp_path / "nlm") for path in (tmp_path / "nlm").rglob("*") if path.is_file()}
    assert {path.relative_to(NLM_FOLDER) for path in committed} == made
    for path in committed:
        again = tmp_path / "nlm" / path.relative_to(NLM_FOLDER)
        if path.suffix == ".gz":  # zlib versions compress differently, so contents are compared
            assert gzip.decompress(path.read_bytes()) == gzip.decompress(again.read_bytes()), path.name
    assert PUBMEDQA_FILE.read_bytes() == (tmp_path / "benchmark.json").read_bytes()


def test_making_the_sample_over_itself_changes_no_byte(tmp_path: Path) -> None:
    make.make(tmp_path / "nlm", tmp_path / "benchmark.json")
    first = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    make.make(tmp_path / "nlm", tmp_path / "benchmark.json")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == first


@pytest.mark.parametrize("path", PUBMED_FILES.values(), ids=PUBMED_FILES)
def test_each_md5_file_tells_the_md5_in_nlms_form(path: Path) -> None:
    digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    assert (path.parent / f"{path.name}.md5").read_text() == f"MD5({path.name})= {digest}\n"


def test_gzip_headers_carry_no_date() -> None:
    for path in [*PUBMED_FILES.values(), DESCRIPTORS]:
        assert path.read_bytes()[4:8] == bytes(4), path.name


def test_the_sample_stays_small() -> None:
    folder = PUBMEDQA_FILE.parent
    data = [path for path in NLM_FOLDER.rglob("*") if path.is_file()] + [PUBMEDQA_FILE, folder / EXCERPT.name]
    assert sum(path.stat().st_size for path in data) < MOST_BYTES


def test_there_are_at_least_250_current_citations_45_in_each_main_branch(
    baseline: dict[int, etree._Element],
    update: dict[int, etree._Element],
    trees: dict[str, list[str]],
) -> None:
    current = {p: c for p, c in (baseline | update).items() if p not in make.SPECIAL["deleted"]}
    assert len(current) >= 250
    assert min(current) == make.FIRST_WRITTEN
    ic = intrinsic_ic(trees)
    homes = Counter(home(citation, trees, ic) for citation in current.values() if majors(citation))
    assert all(homes[branch] >= 45 for branch in ("C04", "C10", "C14", "F03", "D12")), homes
    assert len(homes) >= 9


def test_each_indexed_citation_has_headings_and_major_topics_as_medline_gives_them(
    baseline: dict[int, etree._Element], update: dict[int, etree._Element], trees: dict[str, list[str]]
) -> None:
    without_abstract = {*make.SPECIAL["no abstract"], *make.SPECIAL["retraction notice"]}
    for pmid, citation in [*baseline.items(), *update.items()]:
        if pmid in make.SPECIAL["no headings"] or pmid in without_abstract:
            continue
        names = headings(citation)
        assert 6 <= len(names) <= 15, pmid
        assert len(names) == len(set(names)), pmid
        assert 1 <= len(majors(citation)) <= 4, pmid
        assert set(names) - set(trees) <= {UNKNOWN_HEADING[1]}, pmid


def test_abstracts_have_the_length_of_abstracts_and_no_mark_of_the_grammar(
    baseline: dict[int, etree._Element], update: dict[int, etree._Element]
) -> None:
    without = {*make.SPECIAL["no abstract"], *make.SPECIAL["retraction notice"]}
    for pmid, citation in [*baseline.items(), *update.items()]:
        if pmid in without:
            continue
        words = text(citation)
        assert 120 <= len(words.split()) <= 250, pmid
        assert not re.search(r"[{}]|\.\.|  | [,;.]|\bNone\b|\bnan\b|[.?] [a-z]{4,}\b", words), pmid
        assert not re.search(r"\b(a [aeio]\w+|an [bcdfgjklmnpqrstvwxz]\w+)\b", words.replace("a one-", "")), (
            pmid
        )


def test_no_two_abstracts_read_alike(
    baseline: dict[int, etree._Element], update: dict[int, etree._Element], benchmark: dict[str, dict]
) -> None:
    current = {p: text(c) for p, c in (baseline | update).items()}
    current |= {int(p): " ".join([*item["CONTEXTS"], item["LONG_ANSWER"]]) for p, item in benchmark.items()}
    shingles = {}
    for pmid, words in current.items():
        tokens = re.findall(r"\w+", words.lower())
        if found := {tuple(tokens[i : i + 8]) for i in range(len(tokens) - 7)}:
            shingles[pmid] = found
    for (one, a), (other, b) in combinations(shingles.items(), 2):
        assert len(a & b) < MOST_SHARED_SHINGLES * len(a | b), (one, other)


def test_titles_and_abstracts_vary_in_form(
    baseline: dict[int, etree._Element], update: dict[int, etree._Element]
) -> None:
    articles = [citation.find("Article") for citation in (baseline | update).values()]
    titles = ["".join(article.find("ArticleTitle").itertext()) for article in articles]
    assert len(set(titles)) == len(titles)
    labelled = sum(article.find("Abstract/AbstractText[@Label]") is not None for article in articles)
    plain = sum(article.find("Abstract/AbstractText") is not None for article in articles) - labelled
    types = Counter(kind.text for article in articles for kind in article.iter("PublicationType"))
    years = {
        int(re.search(r"\d{4}", "".join(article.find(".//PubDate").itertext()))[0]) for article in articles
    }
    assert labelled >= 100
    assert plain >= 60
    assert sum("?" in title for title in titles) >= 30
    assert sum(" not " in title and "?" not in title for title in titles) >= 20
    assert types["Review"] >= 20
    assert types["Case Reports"] >= 4
    assert min(years) <= 1990
    assert max(years) == 2026
    assert any(article.find(".//MedlineDate") is not None for article in articles)


def test_every_ancestor_of_a_descriptor_is_there(trees: dict[str, list[str]]) -> None:
    held = {number for numbers in trees.values() for number in numbers}
    missing = {n.rpartition(".")[0] for n in held if "." in n and n.rpartition(".")[0] not in held}
    assert not missing
    assert len(held) == sum(map(len, trees.values())), "a tree number belongs to two descriptors"


def test_the_root_of_every_branch_is_there(trees: dict[str, list[str]]) -> None:
    roots = {number: name for name, numbers in trees.items() for number in numbers if "." not in number}
    assert roots == MESH_BRANCH_NAMES


def test_check_tags_are_there_and_the_sexes_have_no_tree_number(trees: dict[str, list[str]]) -> None:
    assert trees["Male"] == []
    assert trees["Female"] == []
    assert {"Humans", "Adult", "Middle Aged", "Aged", "Child", "Pregnancy", "Animals"} <= trees.keys()


def test_the_excerpt_agrees_with_a_real_release(real_data: Path) -> None:
    real = {}
    with gzip.open(real_data / "nlm/projects/mesh/MESH_FILES/xmlmesh/desc2024.gz") as stream:
        for _, record in etree.iterparse(stream, tag="DescriptorRecord"):
            numbers = sorted(number.text for number in record.iterfind("TreeNumberList/TreeNumber"))
            real[record.findtext("DescriptorUI")] = (record.findtext("DescriptorName/String"), numbers)
            record.clear()
    with EXCERPT.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            assert real[row["ui"]] == (row["name"], [n for n in row["tree_numbers"].split("|") if n])
    assert real[UNKNOWN_HEADING[0]][0] == UNKNOWN_HEADING[1]


def test_each_file_has_one_record_that_cannot_be_filed(files: dict[str, etree._Element]) -> None:
    causes = {
        make.BASELINE: lambda pmid: pmid is None,
        make.SECOND_BASELINE: lambda pmid: pmid is not None and bool(pmid.text) and not pmid.text.isdecimal(),
        make.UPDATE: lambda pmid: pmid is not None and pmid.text is None,
    }
    assert files.keys() == make.MALFORMED.keys()
    for key, root in files.items():
        pmids = [citation.find("PMID") for citation in root.iter("MedlineCitation")]
        bad = [pmid for pmid in pmids if pmid is None or not (pmid.text or "").isdecimal()]
        assert len(bad) == 1, key
        assert causes[key](bad[0]), make.MALFORMED[key]


def test_revised_citations_have_another_abstract_and_other_headings(
    baseline: dict[int, etree._Element], update: dict[int, etree._Element]
) -> None:
    assert len(make.SPECIAL["revised"]) >= 3
    for pmid in make.SPECIAL["revised"]:
        assert text(baseline[pmid]) != text(update[pmid])
        assert headings(baseline[pmid]) != headings(update[pmid])
        before, after = (c.find("Article/ArticleTitle") for c in (baseline[pmid], update[pmid]))
        assert etree.tostring(before) == etree.tostring(after)


def test_a_revision_moves_a_citation_to_another_home_branch(
    baseline: dict[int, etree._Element], update: dict[int, etree._Element], trees: dict[str, list[str]]
) -> None:
    ic = intrinsic_ic(trees)
    for pmid in make.SPECIAL["moves to another home branch"]:
        assert home(baseline[pmid], trees, ic) != home(update[pmid], trees, ic)


def test_deleted_citations_are_in_the_baseline_and_named_in_the_update(
    files: dict[str, etree._Element], baseline: dict[int, etree._Element]
) -> None:
    named = [int(pmid.text) for pmid in files[make.UPDATE].iterfind("DeleteCitation/PMID")]
    assert named == list(make.SPECIAL["deleted"])
    assert set(named) <= baseline.keys()


def test_retracted_citations_say_so_twice_and_point_to_their_notice(
    baseline: dict[int, etree._Element], update: dict[int, etree._Element]
) -> None:
    pairs = zip(make.SPECIAL["retracted"], make.SPECIAL["retraction notice"], strict=True)
    for pmid, notice in pairs:
        assert baseline[pmid].find("CommentsCorrectionsList") is None
        types = [kind.text for kind in update[pmid].iter("PublicationType")]
        assert "Retracted Publication" in types
        link = update[pmid].find("CommentsCorrectionsList/CommentsCorrections[@RefType='RetractionIn']")
        assert link.findtext("PMID") == str(notice)
        back = update[notice].find("CommentsCorrectionsList/CommentsCorrections[@RefType='RetractionOf']")
        assert back.findtext("PMID") == str(pmid)


def test_new_citations_are_in_the_update_alone(
    baseline: dict[int, etree._Element], update: dict[int, etree._Element]
) -> None:
    new = {*make.SPECIAL["new"], *make.SPECIAL["retraction notice"]}
    assert update.keys() - baseline.keys() == new
    assert len(make.SPECIAL["new"]) == 3


def test_citations_without_headings_or_without_abstract_have_none(
    baseline: dict[int, etree._Element],
) -> None:
    for pmid in make.SPECIAL["no headings"]:
        assert baseline[pmid].find("MeshHeadingList") is None
        assert baseline[pmid].get("Status") != "MEDLINE"
        assert text(baseline[pmid])
    for pmid in make.SPECIAL["no abstract"]:
        assert baseline[pmid].find("Article/Abstract") is None
        assert headings(baseline[pmid])


def test_one_heading_is_unknown_to_the_excerpt(
    baseline: dict[int, etree._Element], trees: dict[str, list[str]]
) -> None:
    assert UNKNOWN_HEADING[1] not in trees
    holders = [pmid for pmid, citation in baseline.items() if UNKNOWN_HEADING[1] in headings(citation)]
    assert holders == list(make.SPECIAL["heading unknown to the excerpt"])


def test_translated_titles_stand_in_brackets_and_marked_up_ones_keep_their_mark_up(
    baseline: dict[int, etree._Element],
) -> None:
    for pmid in make.SPECIAL["vernacular title"]:
        article = baseline[pmid].find("Article")
        assert re.fullmatch(r"\[.*[.?]\]", article.findtext("ArticleTitle"))
        assert article.findtext("VernacularTitle")
        assert article.findtext("Language") != "eng"
    for pmid in make.SPECIAL["markup in title"]:
        assert len(baseline[pmid].find("Article/ArticleTitle")) >= 1


def test_the_benchmark_has_pubmedqas_format_and_its_share_of_answers(benchmark: dict[str, dict]) -> None:
    fields = {"QUESTION", "CONTEXTS", "LABELS", "MESHES", "YEAR", "final_decision", "LONG_ANSWER"}
    fields |= {"reasoning_required_pred", "reasoning_free_pred"}
    assert Counter(item["final_decision"] for item in benchmark.values()) == {"yes": 33, "no": 21, "maybe": 6}
    assert min(map(int, benchmark)) == make.FIRST_BENCHMARK
    for pmid, item in benchmark.items():
        assert item.keys() == fields, pmid
        assert len(item["CONTEXTS"]) == len(item["LABELS"]) >= 2, pmid
        assert item["QUESTION"].endswith("?"), pmid
        assert 1989 <= int(item["YEAR"]) <= 2017, pmid
        assert "Humans" in item["MESHES"] or "Animals" in item["MESHES"], pmid
        assert {item["reasoning_required_pred"], item["reasoning_free_pred"]} <= {"yes", "no", "maybe"}
    tags = Counter(tag for item in benchmark.values() for tag in item["MESHES"])
    assert min(tags[tag] for tag in ("Female", "Male", "Aged", "Adult")) >= 10
    years = [int(item["YEAR"]) for item in benchmark.values()]
    assert min(years) < 2000 < max(years)


def test_the_benchmark_asks_about_no_study_of_the_citations(
    baseline: dict[int, etree._Element], update: dict[int, etree._Element], benchmark: dict[str, dict]
) -> None:
    composed = make.compose()
    asked = {study.question for study in composed.benchmark}
    assert not asked & {study.question for study in composed.studies}
    assert not {int(pmid) for pmid in benchmark} & (baseline | update).keys()


def test_answers_of_the_benchmark_follow_from_the_p_value_in_its_contexts(benchmark: dict[str, dict]) -> None:
    tested = 0
    for pmid, item in benchmark.items():
        found = re.search(r"[pP] ([<=]) (\d\.\d+)", item["CONTEXTS"][-1])
        if found:
            tested += 1
            p = float(found[2])
            read = "yes" if p < 0.05 else "maybe" if p < 0.25 else "no"
            assert item["final_decision"] == read, pmid
    assert tested >= 30
