"""What another year of MeSH changes: small releases, and the real tree of 2021 beside the release of 2024."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import mesh_2024
import polars as pl
import pytest

from mkailin_assets.automation import mesh_migration_job
from mkailin_assets.mesh import assets, checks
from mkailin_assets.mesh.descriptors import read_tree_file
from mkailin_assets.mesh.migration import (
    Migration,
    Release,
    branch_flows,
    branches_of,
    changes,
    counterparts,
    current_headings_by_file,
    migrate,
    moved_within_branches,
    years_compared,
)
from mkailin_assets.mesh.tables import CitationMove, MeshChange, MeshDescriptor
from mkailin_assets.partitions import pubmed_files
from mkailin_assets.pubmed.citations import read_pubmed_file
from mkailin_assets.pubmed.current import resolve
from mkailin_assets.pubmed.home_branch import NO_KNOWN_HEADING, HomeBranches
from mkailin_assets.pubmed.tables import CurrentCitation, PubmedRecord, pubmed_records
from mkailin_resources.nlm import NlmServers
from mkailin_resources.storage import ParquetTables, Storage

Places = dict[str, tuple[str, list[str], list[str]]]

# UI: name, tree numbers, entry terms.
OF_1999: Places = {
    "D000001": ("Ills", ["C04"], []),
    "D000002": ("Small Ills", ["C04.100"], ["Little Ills"]),
    "D000003": ("Nerves", ["C10"], []),
    "D000004": ("Ague", ["C04.200"], []),
    "D000005": ("Vapours", ["C04.300"], []),
    "D000006": ("Humours", ["D12.100"], []),
    "D000007": ("Drugs", ["D12"], []),
    "D000009": ("Blood", ["C04.400"], []),
    "D008297": ("Male", [], []),
}
OF_2000: Places = {
    "D000001": ("Ills", ["C04"], ["Vapours"]),
    "D000002": ("Small Ills", ["C10.100"], ["Little Ills"]),
    "D000003": ("Nerves", ["C10"], []),
    "D000004": ("Malaria", ["C04.200"], ["Ague"]),
    "D000007": ("Drugs", ["D12"], []),
    "D000008": ("New Drugs", ["D12.200"], []),
    "D000009": ("Blood", ["C04.500"], []),
    "D008297": ("Male", [], []),
}
# Headings of the citations with these PMIDs, each a major topic.
CITATIONS = {
    1: ["D000002"],
    2: ["D000006"],
    3: ["D000008"],
    4: ["D000001", "D000004"],
    5: [],
    6: ["D000002"],
    7: ["D000005"],
    8: ["D000001", "D000008"],
}
DELETED = 6
FILE = "pubmed26n0001"


def descriptors(places: Places, year: int) -> pl.DataFrame:
    rows = [
        {
            "descriptor_ui": ui,
            "name": name,
            "tree_numbers": numbers,
            "entry_terms": terms,
            "pharmacological_actions": [],
            "release_year": year,
        }
        for ui, (name, numbers, terms) in places.items()
    ]
    return pl.DataFrame(rows, schema=MeshDescriptor.create_empty().schema)


def tree_file(places: Places) -> pl.DataFrame:
    return pl.DataFrame(
        [(name, number) for name, numbers, _ in places.values() for number in numbers],
        schema=["name", "tree_number"],
        orient="row",
    )


def headings(*citations: Sequence[tuple[str | None, str]]) -> pl.Series:
    values = [
        [{"ui": ui, "name": name, "major": True, "qualifiers": []} for ui, name in citation]
        for citation in citations
    ]
    return pl.Series(values, dtype=PubmedRecord.create_empty().schema["headings"])


def citations() -> tuple[pl.Series, pl.Series]:
    names = {ui: place[0] for ui, place in (OF_1999 | OF_2000).items()}
    kept = {pmid: uis for pmid, uis in CITATIONS.items() if pmid != DELETED}
    return pl.Series(list(kept)), headings(*([(ui, names[ui]) for ui in uis] for uis in kept.values()))


def migrated(before: Release, after: Release) -> Migration:
    migration = migrate(before, after, [citations()])
    MeshChange.validate(migration.changes)
    CitationMove.validate(migration.moves)
    return migration


@pytest.fixture(scope="module")
def of_1999() -> Release:
    return Release(descriptors(OF_1999, 1999))


@pytest.fixture(scope="module")
def of_2000() -> Release:
    return Release(descriptors(OF_2000, 2000))


@pytest.fixture(scope="module")
def tree_of_1999() -> Release:
    return Release.of_tree_file(tree_file(OF_1999), 1999, descriptors(OF_2000, 2000))


FORWARD = [
    ("added", "D000008", None, "New Drugs", None, [], ["D12"], 2),
    ("dropped", "D000006", "Humours", None, None, ["D12"], [], 1),
    ("dropped", "D000005", "Vapours", None, "Ills", ["C04"], [], 1),
    ("renamed", "D000004", "Ague", "Malaria", None, ["C04"], ["C04"], 1),
    ("moved", "D000002", "Small Ills", "Small Ills", None, ["C04"], ["C10"], 1),
]
BACK = [
    ("added", "D000006", None, "Humours", None, [], ["D12"], 1),
    ("added", "D000005", None, "Vapours", "Ills", [], ["C04"], 1),
    ("dropped", "D000008", "New Drugs", None, None, ["D12"], [], 2),
    ("renamed", "D000004", "Malaria", "Ague", None, ["C04"], ["C04"], 1),
    ("moved", "D000002", "Small Ills", "Small Ills", None, ["C10"], ["C04"], 1),
]


def rows(table: pl.DataFrame) -> list[tuple[Any, ...]]:
    return table.drop("tree_numbers_before", "tree_numbers_after").rows()


def without_uis(expected: list[tuple[Any, ...]], unknown: set[str]) -> list[tuple[Any, ...]]:
    return [(kind, None if ui in unknown else ui, *rest) for kind, ui, *rest in expected]


def test_descriptors_that_come_go_change_their_name_or_branch_are_listed(
    of_1999: Release, of_2000: Release
) -> None:
    forward, back = migrated(of_1999, of_2000).changes, migrated(of_2000, of_1999).changes
    assert rows(forward) == FORWARD
    assert rows(back) == BACK
    moved = forward.filter(kind="moved").row(0, named=True)
    assert (moved["tree_numbers_before"], moved["tree_numbers_after"]) == (["C04.100"], ["C10.100"])


def test_a_tree_file_tells_the_same_but_for_the_uis_of_what_is_gone(
    tree_of_1999: Release, of_2000: Release
) -> None:
    gone = {"D000005", "D000006"}
    assert rows(migrated(tree_of_1999, of_2000).changes) == without_uis(FORWARD, gone)
    assert rows(migrated(of_2000, tree_of_1999).changes) == without_uis(BACK, gone)
    MeshDescriptor.validate(tree_of_1999.descriptors)
    assert tree_of_1999.year == 1999


def test_a_move_inside_a_branch_is_counted_and_not_listed(of_1999: Release, of_2000: Release) -> None:
    assert moved_within_branches(of_1999, of_2000) == 1
    assert moved_within_branches(of_1999, of_1999) == 0


def test_a_descriptor_that_is_renamed_and_moved_has_a_row_for_each(of_1999: Release) -> None:
    both = OF_1999 | {"D000004": ("Malaria", ["C10.200"], [])}
    found = changes(of_1999, Release(descriptors(both, 2000)))
    assert found.select("kind", "name_after").rows() == [("renamed", "Malaria"), ("moved", "Malaria")]


def test_a_branch_that_gets_another_head_is_told_and_has_not_gone(of_1999: Release) -> None:
    headed = OF_1999 | {"D000001": ("Ills", ["C04.050"], []), "D000008": ("All Ills", ["C04"], [])}
    found = changes(of_1999, Release(descriptors(headed, 2000)))
    assert found.select("kind", "name_after").rows() == [("added", "All Ills"), ("moved", "Ills")]
    assert moved_within_branches(of_1999, Release(descriptors(headed, 2000))) == 0
    assert checks.heads_changed(found) == []


MOVES = [
    (1, "C04", "C10", None),
    (2, "D12", None, NO_KNOWN_HEADING),
    (3, None, "D12", None),
    (7, "C04", None, NO_KNOWN_HEADING),
    (8, "C04", "D12", None),
]


@pytest.mark.parametrize("before", ["of_1999", "tree_of_1999"])
def test_citations_move_begin_to_wait_and_end_waiting(
    before: str, of_2000: Release, request: pytest.FixtureRequest
) -> None:
    migration = migrated(request.getfixturevalue(before), of_2000)
    assert migration.moves.rows() == MOVES
    assert migration.citations == len(CITATIONS) - 1
    assert branch_flows(migration.moves).rows() == [
        ("C04", "C10", 1),
        ("C04", "D12", 1),
        ("C04", "waiting", 1),
        ("D12", "waiting", 1),
        ("waiting", "D12", 1),
    ]


def test_nothing_changes_from_a_release_to_itself(of_2000: Release) -> None:
    migration = migrated(of_2000, of_2000)
    assert migration.changes.is_empty()
    assert migration.moves.is_empty()


def test_chunks_add_up(of_1999: Release, of_2000: Release) -> None:
    pmids, of_pmids = citations()
    chunks = [(pmids[start : start + 2], of_pmids[start : start + 2]) for start in range(0, len(pmids), 2)]
    whole, parted = migrated(of_1999, of_2000), migrate(of_1999, of_2000, chunks)
    assert parted.changes.equals(whole.changes)
    assert parted.moves.equals(whole.moves)
    assert parted.citations == whole.citations


def test_headings_are_known_as_home_branches_know_them(of_1999: Release, tree_of_1999: Release) -> None:
    given = headings(
        [("D000002", "Small Ills")], [(None, "Little Ills")], [("D999999", "Ills")], [("D000006", "Humours")]
    )
    assert of_1999.with_uis(given).list.eval(pl.element().struct.field("ui")).to_list() == [
        ["D000002"],
        ["D000002"],
        ["D999999"],  # as everywhere: a UI that the release does not have is not looked up by name
        ["D000006"],
    ]
    assert of_1999.homes(of_1999.with_uis(given)).equals(HomeBranches(of_1999.hierarchy).of(given))
    # A tree file has no UIs: there the name decides.
    assert tree_of_1999.homes(tree_of_1999.with_uis(given)).rows() == [
        ("C04", None),
        ("C04", None),
        ("C04", None),
        ("D12", None),
    ]
    # Nor has it entry terms: those of the other release serve, and the name a descriptor has there.
    since_renamed = tree_of_1999.with_uis(headings([(None, "Malaria")]))
    assert since_renamed.to_list()[0][0]["ui"] == "D000004"


@pytest.mark.parametrize(
    ("places", "uis"),
    [
        ({"Malaria": ["C04.200"]}, {"Malaria": "D000004"}),
        ({"Ague": ["C04.900"]}, {"Ague": "D000004"}),
        # Two names for one descriptor: that with its places, then the first.
        ({"Ague": ["C04.900"], "Fever": ["C04.200"]}, {"Ague": "D000004"}),
        # A term of a descriptor that was there already: it was taken in, not renamed.
        ({"Ills": ["C04"], "Vapours": ["C10.100"]}, {"Ills": "D000001"}),
        # No term tells, but the place does.
        ({"Faintness": ["C10.100"]}, {"Faintness": "D000002"}),
        ({"Faintness": ["C10.100"], "Small Ills": ["C10.200"]}, {"Small Ills": "D000002"}),
        ({"Unheard of": ["C25"]}, {}),
    ],
)
def test_a_name_of_a_tree_file_finds_its_descriptor(
    places: dict[str, list[str]], uis: dict[str, str]
) -> None:
    assert counterparts(places, descriptors(OF_2000, 2000)) == uis


def test_of_two_old_names_of_one_descriptor_the_one_in_its_place_is_it() -> None:
    release = descriptors({"D000004": ("Malaria", ["C04.200"], ["Ague", "Marsh Fever"])}, 2000)
    assert counterparts({"Ague": ["C10"], "Marsh Fever": ["C04.200"]}, release) == {"Marsh Fever": "D000004"}
    assert counterparts({"Ague": ["C10"], "Marsh Fever": ["C10.1"]}, release) == {"Ague": "D000004"}


@pytest.mark.parametrize(
    ("from_year", "to_year", "years"),
    [
        (None, None, (2024, 2026)),
        (None, 2025, (2024, 2025)),
        (None, 2021, (2024, 2021)),
        (2021, None, (2021, 2024)),
        (2021, 2024, (2021, 2024)),
        (2024, 2025, (2024, 2025)),
    ],
)
def test_one_of_the_years_compared_is_in_use(
    from_year: int | None, to_year: int | None, years: tuple[int, int]
) -> None:
    assert years_compared(2024, 2026, from_year, to_year) == years


def test_two_years_of_which_none_is_in_use_are_refused() -> None:
    with pytest.raises(ValueError, match="neither is the release in use, 2024; give from_year or to_year"):
        years_compared(2024, 2026, 2021, 2025)


def test_a_file_without_table_is_named() -> None:
    current = pl.DataFrame(
        [{"pmid": 1, "state": "current", "pubmed_file": FILE}], schema=CurrentCitation.create_empty().schema
    )
    with pytest.raises(ValueError, match=f"pubmed_citations has no {FILE}; materialize it"):
        list(current_headings_by_file(current, {}))


def publish(folder: Path, places: Places, year: int) -> None:
    """Descriptors of a year as on NLM's server."""

    def record(ui: str, name: str, numbers: list[str], terms: list[str]) -> str:
        strings = "".join(f"<Term><String>{term}</String></Term>" for term in [name, *terms])
        trees = "".join(f"<TreeNumber>{number}</TreeNumber>" for number in numbers)
        return (
            f"<DescriptorRecord DescriptorClass='1'><DescriptorUI>{ui}</DescriptorUI>"
            f"<DescriptorName><String>{name}</String></DescriptorName><TreeNumberList>{trees}</TreeNumberList>"
            f"<ConceptList><Concept PreferredConceptYN='Y'><TermList>{strings}</TermList></Concept>"
            "</ConceptList></DescriptorRecord>\n"
        )

    records = "".join(record(ui, *place) for ui, place in places.items())
    text = f"<?xml version='1.0'?>\n<DescriptorRecordSet>\n{records}</DescriptorRecordSet>\n"
    target = folder / f"projects/mesh/MESH_FILES/xmlmesh/desc{year}.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress(text.encode()))


class Stage:
    """Release 1999 in use, a folder that stands in for NLM's server, and the citations of one PubMed file."""

    def __init__(self, root: Path, nlm: Path) -> None:
        self.storage = Storage(root=str(root / "storage"))
        self.storage.write_table(descriptors(OF_1999, 1999), "mesh_descriptors")
        self.nlm = NlmServers(url=str(nlm), mesh_year=1999, retry_wait_s=0)

    def add_citations(self) -> None:
        names = {ui: place[0] for ui, place in (OF_1999 | OF_2000).items()}
        records = [
            {
                "record": "citation",
                "position": place,
                "pmid": pmid,
                "pubmed_file": FILE,
                "headings": headings([(ui, names[ui]) for ui in uis]).to_list()[0],
            }
            for place, (pmid, uis) in enumerate(CITATIONS.items())
        ]
        states = [
            {
                "pmid": record["pmid"],
                "state": "deleted" if record["pmid"] == DELETED else "current",
                "pubmed_file": FILE,
                "position": record["position"],
            }
            for record in records
        ]
        self.storage.write_table(pubmed_records(records), "pubmed_citations", FILE)
        self.storage.write_table(
            pl.DataFrame(states, schema=CurrentCitation.create_empty().schema), "current_citations"
        )

    def run(self, **config: int) -> dg.ExecuteInProcessResult:
        """The job, as the UI launches it."""
        definitions = dg.Definitions(
            assets=[
                assets.migration_report,
                dg.AssetSpec("mesh_descriptors"),
                dg.AssetSpec("current_citations"),
                dg.AssetSpec("pubmed_citations", partitions_def=pubmed_files),
            ],
            asset_checks=[checks.branches_stay_the_partitions, checks.few_citations_move],
            jobs=[mesh_migration_job],
            resources={
                "storage": self.storage,
                "nlm": self.nlm,
                "io_manager": ParquetTables(storage=self.storage),
            },
        )
        return definitions.resolve_job_def("mesh_migration").execute_in_process(
            run_config={"ops": {"migration_report": {"config": config}}},
            instance=dg.DagsterInstance.ephemeral(),
            raise_on_error=False,
        )

    def table(self, name: str) -> pl.DataFrame:
        table = self.storage.read_table(name)
        assert table is not None
        return table


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (made,) = [
        made
        for made in result.asset_materializations_for_node("migration_report")
        if made.asset_key == dg.AssetKey(asset)
    ]
    return {key: value.value for key, value in made.metadata.items()}


def check_results(result: dg.ExecuteInProcessResult) -> dict[str, tuple[bool, dg.AssetCheckSeverity]]:
    return {
        check.check_name: (check.passed, check.severity) for check in result.get_asset_check_evaluations()
    }


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    publish(tmp_path / "nlm", OF_2000, 2000)
    return Stage(tmp_path, tmp_path / "nlm")


def test_the_newest_year_is_reported_and_nothing_else_is_touched(stage: Stage) -> None:
    stage.add_citations()
    before = {path: path.stat().st_mtime_ns for path in Path(stage.storage.root).rglob("*.parquet")}
    result = stage.run()
    assert result.success
    assert rows(stage.table("mesh_migration")) == FORWARD
    assert stage.table("citation_moves").rows() == MOVES
    told = metadata(result, "mesh_migration")
    assert told["compared"] == "1999 to 2000"
    assert [told[kind] for kind in ("added", "dropped", "renamed", "moved")] == [1, 2, 1, 1]
    assert told["moved_within_branches"] == 1
    assert "| ['C04'] | ['C10'] |" not in told["descriptors_moved"]
    assert "| C04 | C10 | 1 |" in told["descriptors_moved"]
    assert len(told["partitions_without_branch"]) == 112
    moved = metadata(result, "citation_moves")
    assert (moved["citations"], moved["move_to_another_branch"], moved["end_waiting"]) == (7, 2, 1)
    assert moved["begin_to_wait"] == {NO_KNOWN_HEADING: 2}
    assert moved["largest_moves"].startswith("![")
    assert check_results(result)["few_citations_move"] == (False, dg.AssetCheckSeverity.WARN)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_without_citations_the_report_is_about_the_tree(stage: Stage) -> None:
    result = stage.run(to_year=2000)
    assert result.success
    assert rows(stage.table("mesh_migration")) == [(*row[:-1], 0) for row in FORWARD]
    assert stage.table("citation_moves").is_empty()
    assert check_results(result)["few_citations_move"][0]


def test_a_year_with_a_tree_file_alone_is_compared_by_name(stage: Stage, tmp_path: Path) -> None:
    stage.add_citations()
    trees = tmp_path / "nlm/projects/mesh/MESH_FILES/meshtrees"
    trees.mkdir()
    lines = [f"{name};{number}\n" for name, number in tree_file(OF_1999).rows()]
    (trees / "mtrees1998.bin").write_text("".join(lines))
    stage.storage.write_table(descriptors(OF_2000, 2000), "mesh_descriptors")
    result = stage.run(from_year=1998)
    assert result.success
    assert metadata(result, "mesh_migration")["compared"] == "1998 to 2000"
    assert rows(stage.table("mesh_migration")) == without_uis(FORWARD, {"D000005", "D000006"})
    assert stage.table("citation_moves").rows() == MOVES


def test_where_there_is_no_newer_year_there_is_nothing_to_report(stage: Stage) -> None:
    stage.storage.write_table(descriptors(OF_2000, 2000), "mesh_descriptors")
    result = stage.run()
    assert result.success
    assert stage.table("mesh_migration").is_empty()
    assert metadata(result, "mesh_migration")["compared"] == "2000 to 2000"


def test_a_year_that_nlm_does_not_have_is_an_error_that_names_those_it_has(stage: Stage) -> None:
    result = stage.run(to_year=2001)
    assert not result.success
    (failure,) = result.get_step_failure_events()
    assert "there is no desc2001.gz; the years it lists: 2000" in str(failure.event_specific_data)


def test_branches_that_are_no_partition_or_go_are_told(stage: Stage, tmp_path: Path) -> None:
    assert check_results(stage.run())["branches_stay_the_partitions"][0]
    other = OF_2000 | {"D000007": ("Drugs", ["Y09"], []), "D000008": ("New Drugs", ["Y09.200"], [])}
    publish(tmp_path / "nlm", other, 2000)
    result = stage.run()
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name != "few_citations_move"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == "2 branch changes: added Y09; dropped D12 Amino Acids, Peptides, and Proteins"
    assert metadata(result, "mesh_migration")["branches_without_partition"] == ["Y09 Drugs"]


@pytest.mark.parametrize(("moves", "passed"), [(0, True), (1, True), (2, False)])
def test_more_than_a_tenth_of_the_citations_moving_is_told(moves: int, passed: bool, tmp_path: Path) -> None:
    storage = Storage(root=str(tmp_path))
    current = pl.DataFrame({"state": ["current"] * 10 + ["deleted"] * 90})
    storage.write_table(current, "current_citations")
    result = checks.few_citations_move(pl.DataFrame({"pmid": range(moves)}), storage)
    assert (result.passed, result.severity) == (passed, dg.AssetCheckSeverity.WARN)


@pytest.fixture(scope="module")
def of_2024(real_data: Path) -> Release:
    return Release(mesh_2024.descriptors(real_data))


@pytest.fixture(scope="module")
def of_2021(real_data: Path) -> Release:
    path = real_data / "nlm/projects/mesh/MESH_FILES/meshtrees/mtrees2021.bin"
    return Release.of_tree_file(read_tree_file(path, path.name), 2021, mesh_2024.descriptors(real_data))


def kinds(table: pl.DataFrame) -> dict[str, int]:
    return dict(table["kind"].value_counts().iter_rows())


def test_mesh_from_2021_to_2024(of_2021: Release, of_2024: Release) -> None:
    assert len(of_2021.hierarchy) == 29_917
    found = changes(of_2021, of_2024)
    assert kinds(found) == {"added": 853, "dropped": 6, "renamed": 68, "moved": 897}
    assert moved_within_branches(of_2021, of_2024) == 2_474
    assert found.filter(kind="dropped").select("name_before", "covered_by").sort("name_before").rows() == [
        ("American Natives", "American Indian or Alaska Native"),
        ("Angiopoietin-like 4 Protein", None),
        ("Cervical Intraepithelial Neoplasia", "Uterine Cervical Dysplasia"),
        ("Extreme Hot Weather", "Extreme Heat"),
        ("Genus Pimenta", None),
        ("Tobacco", None),
    ]
    renamed = found.filter(kind="renamed").select("name_before", "name_after").rows()
    assert ("Monkeypox", "Mpox (monkeypox)") in renamed  # its old name is an entry term
    assert ("RNA, Guide", "RNA, Guide, Kinetoplastida") in renamed  # it stands where it stood
    assert branches_of(of_2021).keys() - branches_of(of_2024).keys() == {"C13"}
    assert branches_of(of_2024).keys() <= branches_of(of_2021).keys()


def test_the_way_back_from_2024_to_2021_is_its_mirror(of_2021: Release, of_2024: Release) -> None:
    found = changes(of_2024, of_2021)
    assert kinds(found) == {"added": 6, "dropped": 853, "renamed": 68, "moved": 897}
    assert checks.heads_changed(found) == ["added C13"]
    assert checks.heads_changed(changes(of_2021, of_2024)) == []


def test_real_citations_from_2021_to_2024_through_dagster(
    real_data: Path, of_2024: Release, tmp_path: Path
) -> None:
    stage = Stage(tmp_path, real_data / "nlm")
    stage.storage.write_table(of_2024.descriptors, "mesh_descriptors")
    files = {}
    for path in (real_data / "nlm/pubmed").glob("*/*.xml.gz"):
        key = path.name.removesuffix(".xml.gz")
        with path.open("rb") as file:
            files[key] = pl.concat(read_pubmed_file(file, key))
        stage.storage.write_table(files[key], "pubmed_citations", key)
    current = resolve(
        {key: of_file.lazy() for key, of_file in files.items()}, HomeBranches(of_2024.hierarchy)
    )
    stage.storage.write_table(current, "current_citations")

    result = stage.run(from_year=2021)
    assert result.success
    assert all(passed for passed, _ in check_results(result).values())
    assert metadata(result, "mesh_migration")["branches_that_disappear"] == [
        "C13 Female Urogenital Diseases and Pregnancy Complications"
    ]
    told = metadata(result, "citation_moves")
    assert told["citations"] == 2_455
    assert (told["move_to_another_branch"], told["begin_to_wait"], told["end_waiting"]) == (57, {}, 0)
    moves = stage.table("citation_moves")
    assert branch_flows(moves).head(3).rows() == [("D12", "D09", 23), ("C13", "C12", 3), ("D08", "D12", 3)]
    # Where the release in use comes after, what a citation moves to is the home it has.
    homes = moves.join(current, on="pmid")
    assert homes["to_branch"].equals(homes["home_branch"], check_names=False)
    most = stage.table("mesh_migration").sort("citations", descending=True).row(0, named=True)
    assert (most["name_after"], most["branches_before"], most["branches_after"], most["citations"]) == (
        "Membrane Glycoproteins",
        ["D12"],
        ["D09", "D12"],
        44,
    )

    back = stage.run(to_year=2021)
    assert back.success
    assert check_results(back)["branches_stay_the_partitions"] == (False, dg.AssetCheckSeverity.WARN)
    assert branch_flows(stage.table("citation_moves")).row(0) == ("D09", "D12", 23)
    assert moves.select("pmid").equals(stage.table("citation_moves").select("pmid"))
