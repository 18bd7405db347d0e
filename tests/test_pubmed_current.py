"""Which record of a PMID counts, where it is at home, and which citations a branch holds."""

import itertools
import json
from pathlib import Path

import mesh_2024
import polars as pl
import pytest

from mkailin_assets.mesh.hierarchy import MeshHierarchy
from mkailin_assets.mesh.tables import MeshDescriptor
from mkailin_assets.pubmed.branches import citations_of_branches
from mkailin_assets.pubmed.citations import read_pubmed_file
from mkailin_assets.pubmed.current import changed_files, resolve
from mkailin_assets.pubmed.home_branch import NO_HEADINGS, NO_KNOWN_HEADING, NO_PLACE, HomeBranches
from mkailin_assets.pubmed.tables import BranchCitation, CurrentCitation, PubmedRecord, pubmed_records

# UI: name, tree numbers, entry terms. The check tag has a place in the tree, as it has in MeSH.
DESCRIPTORS = {
    "D000001": ("Ills", ["C04"], []),
    "D000002": ("Small Ills", ["C04.100", "C10.900"], ["Little Ills"]),
    "D000003": ("Tiny Ills", ["C10.900.100"], ["Ills"]),
    "D000004": ("Drugs", ["D12.100"], []),
    "D000005": ("Nowhere", [], []),
    "D006801": ("Humans", ["B01.050"], []),
}


def descriptors() -> pl.DataFrame:
    rows = [
        {"descriptor_ui": ui, "name": name, "tree_numbers": numbers, "entry_terms": terms}
        for ui, (name, numbers, terms) in DESCRIPTORS.items()
    ]
    return pl.DataFrame(rows, schema=MeshDescriptor.create_empty().schema)


@pytest.fixture(scope="module")
def home() -> HomeBranches:
    return HomeBranches(MeshHierarchy.from_descriptors(descriptors()))


def heading(ui: str | None, major: bool = False, name: str = "") -> dict[str, object]:
    return {"ui": ui, "name": name, "major": major, "qualifiers": []}


def homes(home: HomeBranches, *citations: list[dict[str, object]]) -> list[tuple[str | None, str | None]]:
    dtype = PubmedRecord.create_empty().schema["headings"]
    return home.of(pl.Series(citations, dtype=dtype)).rows()


@pytest.mark.parametrize(
    ("headings", "branch", "waiting"),
    [
        ([heading("D000001"), heading("D000004", major=True)], "D12", None),
        ([heading("D000001", major=True), heading("D000002", major=True)], "C04", None),
        ([heading("D000001"), heading("D000003")], "C10", None),
        # As specific as each other: the lower tree number decides.
        ([heading("D000004", major=True), heading("D000003", major=True)], "C10", None),
        ([heading("D006801", major=True), heading("D000004")], "D12", None),
        ([heading("D999999", major=True), heading("D000004")], "D12", None),
        ([heading(None, name="Drugs")], "D12", None),
        ([heading(None, name="Little Ills")], "C04", None),
        # A preferred name goes before an entry term of another descriptor.
        ([heading(None, name="Ills")], "C04", None),
        ([], None, NO_HEADINGS),
        ([heading("D999999"), heading(None, name="Unheard of")], None, NO_KNOWN_HEADING),
        ([heading("D000005"), heading("D006801"), heading("D999999")], None, NO_PLACE),
    ],
)
def test_a_citation_is_at_home_where_its_most_specific_major_topic_is(
    home: HomeBranches, headings: list[dict[str, object]], branch: str | None, waiting: str | None
) -> None:
    assert homes(home, [heading("D000001")], headings, []) == [
        ("C04", None),
        (branch, waiting),
        (None, NO_HEADINGS),
    ]


def test_home_branches_equal_the_rule_as_it_is_written(real_data: Path) -> None:
    release, hierarchy = mesh_2024.descriptors(real_data), mesh_2024.tree(real_data)
    ic = hierarchy.intrinsic_ic()
    uis_of_names = {
        term: ui for ui, terms in release.select("descriptor_ui", "entry_terms").iter_rows() for term in terms
    } | dict(release.select("name", "descriptor_ui").iter_rows())

    def by_the_rule(headings: list[dict[str, object]]) -> str | None:
        for majors_only in (True, False):
            counting = [h for h in headings if h["major"] or not majors_only]
            uis = [h["ui"] or uis_of_names.get(h["name"]) for h in counting]
            places = [
                (-ic[ui], number)
                for ui in uis
                if ui in hierarchy and not hierarchy.is_check_tag(ui)
                for number in hierarchy.tree_numbers(ui)
            ]
            if places:
                return min(places)[1].split(".")[0]
        return None

    with next(real_data.glob("nlm/pubmed/*/pubmed26n0003*.gz")).open("rb") as file:
        headings = pl.concat(read_pubmed_file(file, "pubmed26n0003"))["headings"]
    found = HomeBranches(hierarchy).of(headings)["home_branch"].to_list()
    assert found == [by_the_rule(of_one) for of_one in headings.to_list()]
    assert len(set(found)) > 30
    assert any(h["ui"] is None for of_one in headings.to_list() for h in of_one)


def record(pmid: int, **fields: object) -> dict[str, object]:
    usual = {"record": "citation", "pmid": pmid, "version": 1, "retracted": False, "content_hash": "0" * 16}
    return {**usual, "headings": [heading("D000001")], **fields}


def deleted(pmid: int) -> dict[str, object]:
    return {"record": "deleted", "pmid": pmid, "version": 1}


def file_of(key: str, *rows: dict[str, object]) -> tuple[str, pl.LazyFrame]:
    numbered = [{**row, "pubmed_file": key, "position": position} for position, row in enumerate(rows)]
    return key, pubmed_records(numbered).lazy()


def states(current: pl.DataFrame) -> dict[int, tuple[str, str, int]]:
    chosen = current.select("pmid", "state", "pubmed_file", "position")
    return {pmid: (state, file, position) for pmid, state, file, position in chosen.iter_rows()}


def test_the_latest_file_wins_whatever_order_they_come_in(home: HomeBranches) -> None:
    files = [
        file_of("pubmed26n0009", record(1), record(2), record(3), record(4)),
        file_of("pubmed26n0010", record(2), deleted(3), deleted(4), deleted(9)),
        file_of("pubmed26n0011", record(4), record(5, retracted=True)),
        file_of("pubmed27n0001", record(1)),
    ]
    expected = {
        1: ("current", "pubmed27n0001", 0),
        2: ("current", "pubmed26n0010", 0),
        3: ("deleted", "pubmed26n0010", 1),
        4: ("current", "pubmed26n0011", 0),
        5: ("retracted", "pubmed26n0011", 1),
        9: ("deleted", "pubmed26n0010", 3),
    }
    tables = [CurrentCitation.validate(resolve(dict(order), home)) for order in itertools.permutations(files)]
    assert states(tables[0]) == expected
    assert all(table.equals(tables[0]) for table in tables)


def test_within_a_file_deletion_then_version_then_position_decides(home: HomeBranches) -> None:
    rows = [record(1, version=2), record(1), record(2), record(2), deleted(3), record(3)]
    assert states(resolve(dict([file_of("pubmed26n0001", *rows)]), home)) == {
        1: ("current", "pubmed26n0001", 0),
        2: ("current", "pubmed26n0001", 3),
        3: ("deleted", "pubmed26n0001", 4),
    }


def test_a_quarantined_revision_leaves_what_was_there(home: HomeBranches) -> None:
    files = [
        file_of("pubmed26n0001", record(1)),
        file_of("pubmed26n0002", {"record": "quarantined", "pmid": 1, "cause": "broken", "raw": "<"}),
    ]
    assert states(resolve(dict(files), home)) == {1: ("current", "pubmed26n0001", 0)}


def test_only_current_citations_have_a_home_or_wait_for_one(home: HomeBranches) -> None:
    rows = [record(1), record(2, headings=[]), record(3, retracted=True), deleted(4)]
    current = resolve(dict([file_of("pubmed26n0001", *rows)]), home)
    assert current.select("home_branch", "waiting").rows() == [
        ("C04", None),
        (None, NO_HEADINGS),
        (None, None),
        (None, None),
    ]


def test_no_files_give_an_empty_table(home: HomeBranches) -> None:
    assert CurrentCitation.validate(resolve({}, home)).is_empty()


@pytest.mark.parametrize(
    ("present", "resolved", "read", "is_whole"),
    [
        ("", "", "", True),
        ("1a 2a", "", "1 2", True),
        ("1a 2a", "1a 2a", "", False),
        ("1a 2a 3a 4a", "1a 2a", "3 4", False),
        ("1a 2a 3a", "1a 3a", "1 2 3", True),
        ("1b 2a 3a", "1a 2a", "1 2 3", True),
        ("2a 3a", "1a 2a", "2 3", True),
    ],
)
def test_files_are_read_again_only_where_an_earlier_word_may_count(
    present: str, resolved: str, read: str, is_whole: bool
) -> None:
    def files(written: str) -> dict[str, str]:
        return {f"pubmed26n000{number}": content for number, content in written.split()}

    keys = [f"pubmed26n000{number}" for number in read.split()]
    assert changed_files(files(present), files(resolved)) == (keys, is_whole)


def test_a_name_that_tells_no_order_is_refused(home: HomeBranches) -> None:
    with pytest.raises(ValueError, match=r"'pubmed\.xml' is no key of a PubMed file"):
        resolve(dict([file_of("pubmed.xml", record(1))]), home)


def test_a_branch_holds_its_current_citations_with_their_latest_text(
    home: HomeBranches, tmp_path: Path
) -> None:
    cancer, drugs = [heading("D000001")], [heading("D000004")]
    journal = [{"ui": "D016428", "name": "Journal Article"}]
    files = dict(
        [
            file_of(
                "pubmed26n0001",
                record(1, title="old"),
                record(2, title="moved", headings=cancer),
                record(3, title="gone"),
                record(4, title="false", retracted=True),
                record(5, title="kept", publication_types=journal, year=1999),
            ),
            file_of(
                "pubmed26n0002", record(1, title="new"), record(2, title="x", headings=drugs), deleted(3)
            ),
        ]
    )
    gathered = citations_of_branches(files, resolve(files, home).lazy(), ["C04", "D12", "Z01"], tmp_path)
    found = {branch: BranchCitation.validate(table.collect()) for branch, table in gathered.items()}
    assert {branch: table.select("pmid", "title", "branch").rows() for branch, table in found.items()} == {
        "C04": [(5, "kept", "C04"), (1, "new", "C04")],
        "D12": [(2, "x", "D12")],
        "Z01": [],
    }
    assert found["C04"].select("publication_types", "year").row(0) == (["Journal Article"], 1999)


def test_a_file_that_is_not_parsed_is_named(home: HomeBranches, tmp_path: Path) -> None:
    files = dict([file_of("pubmed26n0001", record(1))])
    with pytest.raises(ValueError, match="current_citations names pubmed26n0001"):
        citations_of_branches({}, resolve(files, home).lazy(), ["C04"], tmp_path)


def test_the_real_update_files_do_what_is_known_of_them(real_data: Path) -> None:
    tables = {}
    for path in real_data.glob("nlm/pubmed/*/*.xml.gz"):
        key = path.name.removesuffix(".xml.gz")
        with path.open("rb") as file:
            tables[key] = pl.concat(read_pubmed_file(file, key))
    hierarchy = mesh_2024.tree(real_data)
    current = resolve({key: table.lazy() for key, table in tables.items()}, HomeBranches(hierarchy))
    expected = json.loads((real_data / "nlm/pubmed/expected_changes.json").read_text())

    def pmids(of: pl.DataFrame) -> set[str]:
        return set(of["pmid"].cast(pl.String))

    def citations(key: str) -> set[str]:
        return pmids(tables[key].filter(pl.col("record") == "citation"))

    baseline = set().union(*(citations(key) for key in tables if key < "pubmed26n0005"))
    first, second = citations("pubmed26n0005"), citations("pubmed26n0006")
    latest = {key: pmids(rows) for (key,), rows in current.partition_by("pubmed_file", as_dict=True).items()}
    retracted = pmids(current.filter(pl.col("state") == "retracted"))
    assert len(baseline) == expected["baseline_citations"]
    assert pmids(current.filter(pl.col("state") == "deleted")) == set(expected["deleted"])
    assert retracted == set(expected["retracted"])
    assert (first | second) - baseline == set(expected["new"])
    assert first & second & baseline == set(expected["revised_twice"]) <= latest["pubmed26n0006"]
    assert ((first ^ second) & baseline) - retracted == set(expected["revised_once"])
    assert second <= latest["pubmed26n0006"]
    assert first - second <= latest["pubmed26n0005"]
    assert current.height == 2412 + 60
