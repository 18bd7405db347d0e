"""How the corpus covers the MeSH tree beside PubMed, what could fill its gaps, and the picture of it."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pytest

from mkailin_assets.corpus.coverage import Coverage, mesh_coverage, thinnest
from mkailin_assets.corpus.coverage_picture import MESH_CATEGORIES, alt_text, coverage_picture
from mkailin_assets.corpus.tables import CoverageGap, MeshCoverage
from mkailin_assets.mesh.hierarchy import MeshHierarchy, count_annotations, information_content
from mkailin_assets.mesh.tables import MeshDescriptor
from mkailin_assets.partitions import MESH_BRANCH_NAMES
from mkailin_assets.pubmed.tables import BranchCitation, CurrentCitation

# `liver` is a neoplasm's and a digestive disease's child; `hepatoma` is right below it.
TREE = {
    "neoplasms": ["C04"],
    "sites": ["C04.588"],
    "digestive": ["C06"],
    "liver": ["C04.588.100", "C06.552"],
    "hepatoma": ["C04.588.100.200", "C06.552.200"],
    "viruses": ["B04"],
    "phage": ["B04.123"],
    "D006801": ["B01"],
}


def descriptors() -> pl.DataFrame:
    rows = [
        {"descriptor_ui": ui, "name": ui.title(), "tree_numbers": numbers} for ui, numbers in TREE.items()
    ]
    blank = {"entry_terms": [], "pharmacological_actions": [], "release_year": 2024}
    return pl.DataFrame([blank | row for row in rows], schema=MeshDescriptor.create_empty().schema)


Headings = Mapping[int, Sequence[str]]


class Pubmed:
    """Citations by branch, PMID and headings; all are current and have an abstract, unless said otherwise."""

    def __init__(self, branches: Mapping[str, Headings], **states: Mapping[int, Any]) -> None:
        schema = CurrentCitation.create_empty().schema
        self.branches = branches
        blank = {"state": "current", "pubmed_file": "pubmed26n0001", "position": 0, "has_abstract": True}
        rows = [
            {
                **blank,
                "pmid": pmid,
                "home_branch": branch,
                **{what: of[pmid] for what, of in states.items() if pmid in of},
            }
            for branch, citations in branches.items()
            for pmid in citations
        ]
        self.current = pl.DataFrame(rows, schema=schema)

    def covered_by(
        self,
        corpus: Sequence[tuple[int, str]],
        *,
        distilled: Mapping[str, Sequence[int]] | None = None,
        gathered: Mapping[str, Headings] | None = None,
        most_gaps: int = 500,
    ) -> Coverage:
        """Coverage by a corpus of these PMIDs and branches."""
        tree = descriptors()
        hierarchy = MeshHierarchy.from_descriptors(tree)
        lists = [list(headings) for citations in self.branches.values() for headings in citations.values()]
        counts = count_annotations(hierarchy, [pl.Series(lists, dtype=pl.List(pl.String))])
        found = self.branches if gathered is None else gathered
        tried = distilled if distilled is not None else {branch: [] for branch in self.branches}
        return mesh_coverage(
            pl.DataFrame(corpus, schema={"pmid": pl.Int64, "branch": pl.String}, orient="row"),
            self.current.lazy(),
            branch_citations={branch: citations(of).lazy() for branch, of in found.items()},
            evaluated={
                branch: pl.LazyFrame({"pmid": pmids}, schema={"pmid": pl.Int64})
                for branch, pmids in tried.items()
            },
            descriptors=tree,
            information_content=information_content(tree, hierarchy, counts),
            branches=MESH_BRANCH_NAMES,
            most_gaps=most_gaps,
        )


def citations(headings: Headings) -> pl.DataFrame:
    schema = {name: BranchCitation.create_empty().schema[name] for name in ("pmid", "headings")}
    rows = [
        {"pmid": pmid, "headings": [{"ui": ui, "name": ui, "major": False, "qualifiers": []} for ui in uis]}
        for pmid, uis in headings.items()
    ]
    return pl.DataFrame(rows, schema=schema)


def place(coverage: Coverage, level: str, name: str) -> dict[str, Any]:
    return coverage.places.filter(level=level, place=name).row(0, named=True)


def many(first: int, how_many: int, *headings: str) -> dict[int, Sequence[str]]:
    return dict.fromkeys(range(first, first + how_many), headings)


@pytest.fixture(scope="module")
def half() -> Coverage:
    """The corpus has half of the neoplasms and none of the viruses."""
    pubmed = Pubmed({"C04": many(1, 8, "hepatoma"), "B04": many(11, 8, "phage")})
    return pubmed.covered_by([(pmid, "C04") for pmid in range(1, 5)], distilled={"C04": range(1, 9)})


def test_every_branch_has_a_row_also_an_empty_one(half: Coverage) -> None:
    branches = half.places.filter(level="branch")
    assert dict(branches.select("place", "name").iter_rows()) == MESH_BRANCH_NAMES
    empty = place(half, "branch", "Z01")
    counted = ("pubmed_citations", "citations", "examples", "descriptors", "fillable", "untried")
    assert [empty[column] for column in counted] == [0] * len(counted)
    assert (empty["ratio"], empty["is_distilled"]) == (None, False)


def test_a_branch_is_measured_by_the_citations_at_home_in_it(half: Coverage) -> None:
    row = place(half, "branch", "C04")
    assert (row["pubmed_citations"], row["citations"], row["examples"]) == (8, 4, 4)
    assert (row["share_of_pubmed"], row["share_of_corpus"], row["ratio"]) == (0.5, 1.0, 2.0)
    assert place(half, "branch", "B04")["ratio"] == 0
    assert (row["descriptors"], row["pubmed_descriptors"], row["corpus_descriptors"]) == (4, 4, 4)


def test_a_descriptor_counts_through_its_descendants(half: Coverage) -> None:
    # Nobody ticked `sites`; everybody's `hepatoma` is below it.
    row = place(half, "subtree", "C04.588")
    assert (row["name"], row["pubmed_citations"], row["citations"]) == ("Sites", 8, 4)
    assert (row["descriptors"], row["pubmed_descriptors"], row["corpus_descriptors"]) == (3, 3, 3)
    assert (row["share_of_pubmed"], row["share_of_corpus"], row["ratio"]) == (0.5, 1.0, 2.0)
    assert (row["examples"], row["fillable"], row["is_distilled"]) == (None, None, None)


def test_a_citation_counts_once_for_each_descriptor_it_is_under() -> None:
    pubmed = Pubmed({"C04": {1: ["hepatoma", "liver", "liver"], 2: ["digestive"]}})
    coverage = pubmed.covered_by([(1, "C04")])
    # Depth 0: 1 under neoplasms, 1 and 2 under digestive; depth 1: 1 under sites and liver (C06.552).
    depths = coverage.places.filter(level="depth").select("place", "pubmed_citations", "citations").rows()
    assert depths == [("0", 3, 2), ("1", 2, 2), ("2", 1, 1)]
    assert place(coverage, "subtree", "C06.552")["citations"] == 1
    assert place(coverage, "branch", "C06")["corpus_descriptors"] == 3


def test_several_examples_of_a_citation_are_one_citation() -> None:
    row = place(Pubmed({"C04": many(1, 2, "liver")}).covered_by([(1, "C04"), (1, "C04")]), "branch", "C04")
    assert (row["examples"], row["citations"], row["fillable"]) == (2, 1, 1)


def test_a_source_that_stands_in_two_branches_is_counted_once() -> None:
    moved = {"C04": {1: ["liver"]}, "C06": {1: ["liver"], 2: ["liver"]}}
    coverage = Pubmed({"C06": moved["C06"]}).covered_by([(1, "C04")], gathered=moved)
    assert coverage.sources.by_descriptor["liver"] == 1
    assert coverage.not_gathered == 0


def test_a_source_that_no_branch_holds_is_told() -> None:
    coverage = Pubmed({"C04": many(1, 2, "liver")}).covered_by([(1, "C04"), (77, "C04")])
    assert coverage.not_gathered == 1
    assert place(coverage, "branch", "C04")["citations"] == 2


def test_a_heading_of_another_release_is_named() -> None:
    coverage = Pubmed({"C04": {1: ["liver", "D999999"], 2: ["D999999"]}}).covered_by([(1, "C04"), (2, "C04")])
    assert coverage.sources.unknown == {"D999999": 2}
    assert (coverage.sources.citations, coverage.sources.without_headings) == (1, 1)
    assert coverage.not_gathered == 0


def test_an_unknown_branch_has_a_row_without_a_name() -> None:
    coverage = Pubmed({"C04": many(1, 2, "liver")}).covered_by([(1, "C04"), (2, "X99")])
    row = place(coverage, "branch", "X99")
    assert (row["name"], row["examples"], row["ratio"]) == (None, 1, None)
    assert place(coverage, "branch", "C04")["share_of_corpus"] == 0.5
    assert "X99" not in alt_text(coverage.places)


def test_only_current_citations_with_an_abstract_could_fill_a_branch() -> None:
    pubmed = Pubmed(
        {"C04": many(1, 6, "liver")}, state={2: "retracted", 3: "deleted"}, has_abstract={4: False}
    )
    row = place(pubmed.covered_by([(1, "C04")], distilled={"C04": [1, 5]}), "branch", "C04")
    assert (row["pubmed_citations"], row["fillable"], row["untried"]) == (3, 2, 1)


def test_an_empty_corpus_covers_nothing_and_every_citation_could_fill_it() -> None:
    coverage = Pubmed({"C04": many(1, 8, "liver")}).covered_by([], distilled={})
    row = place(coverage, "branch", "C04")
    assert (row["share_of_corpus"], row["ratio"], row["fillable"]) == (0, 0, 8)
    # It has no size of which PubMed's share could be expected.
    assert (coverage.gaps.height, coverage.gaps_in_all) == (0, 0)
    assert thinnest(coverage.places, 3) == ["C04"]


def test_nothing_at_all_is_no_error() -> None:
    coverage = Pubmed({}).covered_by([])
    assert coverage.places.filter(level="branch").height == len(MESH_BRANCH_NAMES)
    assert thinnest(coverage.places, 3) == []
    assert coverage_picture(coverage.places)


def test_a_gap_says_how_much_is_missing_and_what_could_fill_it(half: Coverage) -> None:
    gap = half.gaps.row(0, named=True)
    assert (gap["descriptor_ui"], gap["name"], gap["depth"], gap["branches"]) == (
        "phage",
        "Phage",
        1,
        ["B04"],
    )
    assert (gap["pubmed_citations"], gap["corpus_citations"]) == (8, 0)
    assert (gap["expected"], gap["missing"]) == (2.0, 2.0)
    assert (gap["fillable"], gap["home_branch"], gap["pmids"]) == (8, "B04", list(range(18, 10, -1)))


def test_a_gap_that_is_its_childs_is_listed_once(half: Coverage) -> None:
    assert half.gaps["descriptor_ui"].to_list() == ["phage"]
    # Where some of it is not the child's, which stands below it in two places, both are listed.
    pubmed = Pubmed({"C04": many(1, 16, "liver") | many(21, 24, "hepatoma"), "B04": many(51, 40, "phage")})
    gaps = pubmed.covered_by([(pmid, "B04") for pmid in range(51, 61)]).gaps
    assert gaps.select("descriptor_ui", "missing").rows() == [("liver", 5.0), ("hepatoma", 3.0)]


def test_what_indexers_tick_for_nearly_every_article_is_no_gap() -> None:
    gaps = Pubmed({"C04": many(1, 5, "liver"), "B01": many(11, 5, "D006801")}).covered_by(
        [(pmid, "C04") for pmid in range(1, 5)]
    )
    assert gaps.gaps.is_empty()


def test_of_many_gaps_the_largest_are_listed_and_all_are_counted() -> None:
    pubmed = Pubmed({"B04": many(1, 30, "viruses") | many(31, 10, "phage"), "C04": many(51, 40, "liver")})
    coverage = pubmed.covered_by([(pmid, "C04") for pmid in range(51, 61)], most_gaps=1)
    assert (coverage.gaps["descriptor_ui"].to_list(), coverage.gaps_in_all) == (["viruses"], 2)


def test_citations_never_tried_come_first_among_those_that_could_fill_a_gap() -> None:
    pubmed = Pubmed(
        {"B04": many(11, 14, "phage", "phage"), "C04": many(1, 8, "liver") | many(31, 2, "phage")},
        state={12: "retracted"},
        has_abstract={13: False},
    )
    corpus = [*((pmid, "C04") for pmid in range(1, 5)), (19, "B04")]
    gap = pubmed.covered_by(corpus, distilled={"B04": range(19, 25)}).gaps.row(0, named=True)
    # Not the retracted one, nor that without an abstract, nor that of the corpus.
    assert gap["pmids"] == [18, 17, 16, 15, 14, 11, 24, 23, 22, 21]
    assert (gap["home_branch"], gap["fillable"]) == ("B04", 13)


def test_a_branch_not_gathered_is_the_hint_where_a_gap_could_be_filled() -> None:
    branches = {"C04": many(1, 8, "liver"), "B04": many(11, 8, "phage")}
    coverage = Pubmed(branches).covered_by(
        [(pmid, "C04") for pmid in range(1, 5)], gathered={"C04": branches["C04"]}
    )
    gap = coverage.gaps.row(0, named=True)
    assert (gap["home_branch"], gap["fillable"], gap["pmids"]) == ("B04", 0, [])


def test_the_thinnest_branches_are_those_a_backfill_would_help() -> None:
    pubmed = Pubmed(
        {
            "C04": many(1, 20, "liver"),  # more of the corpus than of PubMed
            "C06": many(101, 20, "liver"),  # all tried: distilling again adds nothing
            "B04": many(201, 20, "phage"),  # short
            "A01": many(301, 5, "liver"),  # never distilled
            "A02": many(401, 8, "liver"),  # never distilled, shorter
            "X99": many(501, 8, "liver"),  # no branch that could be distilled
        }
    )
    tried = {"C04": range(1, 20), "C06": range(101, 121), "B04": [201]}
    coverage = pubmed.covered_by([*((pmid, "C04") for pmid in range(1, 20)), (201, "B04")], distilled=tried)
    assert thinnest(coverage.places, 10) == ["A02", "A01", "B04"]
    assert thinnest(coverage.places, 1) == ["A02"]


def test_the_tables_hold_to_their_schemas(half: Coverage) -> None:
    MeshCoverage.validate(half.places)
    CoverageGap.validate(half.gaps)


def test_every_branch_belongs_to_a_category_of_mesh() -> None:
    assert {branch[0] for branch in MESH_BRANCH_NAMES} == set(MESH_CATEGORIES)


def test_the_picture_is_the_same_for_the_same_table(half: Coverage) -> None:
    picture = coverage_picture(half.places)
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == (1200, 1560)
    assert picture == coverage_picture(half.places)
    assert picture != coverage_picture(half.places.with_columns(ratio=pl.col("ratio") / 3))


def test_the_picture_can_be_read_to_one_who_cannot_see_it(half: Coverage) -> None:
    text = alt_text(half.places)
    assert "4 examples of 4 citations, beside 16 citations of PubMed" in text
    assert "Branches distilled: 1 of 115" in text
    assert "1 of the 2 where PubMed has citations, the largest of them B04 Viruses" in text
