"""The MeSH assets through Dagster on a small release, and each of their checks made to fail."""

import gzip
import io
from pathlib import Path

import dagster as dg
import mesh_2024
import polars as pl
import pytest

from mkailin_assets.mesh import assets, checks
from mkailin_assets.mesh.hierarchy import MeshHierarchy
from mkailin_assets.partitions import MESH_BRANCH_NAMES, pubmed_files
from mkailin_assets.pubmed.tables import CurrentCitation, pubmed_records
from mkailin_resources.nlm import NlmServers
from mkailin_resources.storage import ParquetTables, Storage

PLACES = {
    "D000001": ("Things", ["C04"]),
    "D000002": ("Small Things", ["C04.100"]),
    "D000003": ("Large Things", ["C04.200"]),
}
RULES = {
    "release_is_of_its_year",
    "tree_is_whole",
    "names_are_unique",
    "branches_are_the_partitions",
    "agrees_with_tree_file",
    "content_grows_downwards",
    "citations_were_counted",
}


def descriptors(**places: list[str]) -> pl.DataFrame:
    """Descriptors named as their UIs, at the tree numbers given."""
    return pl.DataFrame(
        {"descriptor_ui": list(places), "name": list(places), "tree_numbers": list(places.values())},
        schema={"descriptor_ui": pl.String, "name": pl.String, "tree_numbers": pl.List(pl.String)},
    )


def content(corpus: dict[str, float], intrinsic: dict[str, float]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "descriptor_ui": list(corpus),
            "corpus_ic": list(corpus.values()),
            "intrinsic_ic": list(intrinsic.values()),
        }
    )


def publish(folder: Path, tree_file: str | None) -> None:
    """A release of 1999, laid out as on NLM's server."""
    records = "".join(
        f"<DescriptorRecord DescriptorClass='1'><DescriptorUI>{ui}</DescriptorUI>"
        f"<DescriptorName><String>{name}</String></DescriptorName><TreeNumberList><TreeNumber>{numbers[0]}</TreeNumber></TreeNumberList>"
        "</DescriptorRecord>\n"
        for ui, (name, numbers) in PLACES.items()
    )
    text = (
        "<?xml version='1.0'?>\n<!DOCTYPE DescriptorRecordSet SYSTEM 'desc1999.dtd'>\n"
        f"<DescriptorRecordSet LanguageCode='eng'>\n{records}</DescriptorRecordSet>\n"
    )
    files = folder / "projects/mesh/MESH_FILES"
    (files / "xmlmesh").mkdir(parents=True)
    (files / "xmlmesh/desc1999.gz").write_bytes(gzip.compress(text.encode()))
    (files / "meshtrees").mkdir()
    if tree_file is not None:
        (files / "meshtrees/mtrees1999.bin").write_text(tree_file)


def materialize(root: Path, headings: list[str]) -> dg.ExecuteInProcessResult:
    """The MeSH stage over two citations, one of them deleted, of one PubMed file."""
    storage = Storage(root=str(root / "storage"))
    heading = [{"ui": ui, "name": ui, "major": False, "qualifiers": []} for ui in headings]
    records = [
        {"record": "citation", "position": place, "pmid": pmid, "pubmed_file": "f1", "headings": heading}
        for place, pmid in enumerate((1, 2))
    ]
    states = [
        {"pmid": 1, "state": "current", "pubmed_file": "f1", "position": 0},
        {"pmid": 2, "state": "deleted", "pubmed_file": "f1", "position": 1},
    ]
    storage.write_table(pubmed_records(records), "pubmed_citations", "f1")
    storage.write_table(
        pl.DataFrame(states, schema=CurrentCitation.create_empty().schema), "current_citations"
    )
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions(str(pubmed_files.name), ["f1"])
    return dg.materialize(
        [
            *dg.load_assets_from_modules([assets]),
            *dg.load_asset_checks_from_modules([checks]),
            dg.AssetSpec("current_citations"),
            dg.AssetSpec("pubmed_citations", partitions_def=pubmed_files),
        ],
        selection=["mesh_release", "mesh_descriptors", "mesh_information_content"],
        resources={
            "storage": storage,
            "nlm": NlmServers(url=str(root / "nlm"), mesh_year=1999, retry_wait_s=0),
            "io_manager": ParquetTables(storage=storage),
        },
        instance=instance,
        raise_on_error=False,
    )


def evaluations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def test_the_stage_is_materialized_and_checked_from_a_release(tmp_path: Path) -> None:
    publish(tmp_path / "nlm", "Things;C04\nSmall Things;C04.100\nLarge Things;C04.200\n")
    result = materialize(tmp_path, ["D000002", "D999999"])
    assert result.success
    assert {name for name, check in evaluations(result).items() if not check.passed} == {
        "branches_are_the_partitions",  # a release of one branch
        "headings_are_known",  # of two one is not
    }
    assert set(evaluations(result)) == {*RULES, "headings_are_known"}
    counted = result.output_for_node("mesh_information_content")
    assert dict(counted.select("name", "citations").iter_rows()) == {
        "Things": 1,
        "Small Things": 1,
        "Large Things": 0,
    }
    metadata = result.asset_materializations_for_node("mesh_information_content")[0].metadata
    assert metadata["headings_not_in_release"].value == {"D999999": 1}
    assert metadata["citations_counted"].value == 1


def test_headings_that_the_release_has_are_no_cause_to_warn(tmp_path: Path) -> None:
    publish(tmp_path / "nlm", "Things;C04\nSmall Things;C04.100\nLarge Things;C04.200\n")
    assert evaluations(materialize(tmp_path, ["D000002"]))["headings_are_known"].passed


def test_a_tree_file_that_disagrees_and_an_empty_corpus_are_told(tmp_path: Path) -> None:
    publish(tmp_path / "nlm", "Things;C04\nSmall Things;C04.100\nLarge Things;C04.300\n")
    result = materialize(tmp_path, [])
    assert result.success
    found = evaluations(result)
    assert not found["citations_were_counted"].passed
    disagreement = found["agrees_with_tree_file"]
    assert (disagreement.passed, disagreement.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert disagreement.description == (
        "2 differences: only in descriptors: C04.200 Large Things; "
        "only in mtrees1999.bin: C04.300 Large Things"
    )


def test_a_year_without_tree_file_has_nothing_to_disagree_with(tmp_path: Path) -> None:
    publish(tmp_path / "nlm", None)
    check = evaluations(materialize(tmp_path, ["D000002"]))["agrees_with_tree_file"]
    assert check.passed
    assert check.description == "NLM's server has no tree file for this year"


@pytest.mark.parametrize(
    ("name", "opening", "fault"),
    [
        ("desc2024.gz", '<!DOCTYPE X SYSTEM "https://x/nlmdescriptorrecordset_20240101.dtd">', None),
        ("mesh.gz", '<!DOCTYPE X SYSTEM "desc2024.dtd">', None),
        ("desc2024.gz", "<DescriptorRecordSet>", None),
        ("desc2024.gz", '<!DOCTYPE X SYSTEM "desc2015.dtd">', "desc2024.gz is of 2015, not of 2024"),
        ("mesh.gz", "<DescriptorRecordSet>", "mesh.gz does not say of which year it is"),
        ("desc2024.gz", " \n", "desc2024.gz is empty"),
    ],
)
def test_a_release_of_another_year_is_told(name: str, opening: str, fault: str | None) -> None:
    assert checks.release_fault(name, opening, 2024) == fault


def test_the_opening_of_a_file_is_read_through_gzip() -> None:
    assert (
        checks.opening(io.BytesIO(gzip.compress(b"<?xml?>")))
        == checks.opening(io.BytesIO(b"<?xml?>"))
        == "<?xml?>"
    )


def test_a_tree_number_without_parent_is_told() -> None:
    assert checks.orphans(descriptors(a=["C04"], b=["C04.100", "C04.200.300"], c=["D02.1"])) == [
        "C04.200.300",
        "D02.1",
    ]


def test_a_name_of_two_descriptors_is_told() -> None:
    twice = descriptors(a=["C04"], b=["C05"]).with_columns(name=pl.lit("Things"))
    assert checks.repeated_names(twice) == ["Things"]
    assert checks.repeated_names(descriptors(a=["C04"], b=["C05"])) == []


def test_branches_that_a_release_added_or_dropped_are_named() -> None:
    names = list(MESH_BRANCH_NAMES)
    release = descriptors(**{branch: [branch] for branch in [*names[1:], "Y09"]})
    assert checks.branch_changes(release) == ["added Y09 Y09", "dropped A01 Body Regions"]


def test_the_release_of_2024_is_whole_and_has_the_branches_of_the_partitions(real_data: Path) -> None:
    release = mesh_2024.descriptors(real_data)
    assert checks.orphans(release) == []
    assert checks.repeated_names(release) == []
    assert checks.branch_changes(release) == []


def test_an_ic_that_falls_downwards_is_told() -> None:
    hierarchy = MeshHierarchy({"up": ["C04"], "down": ["C04.100"]})
    good, bad = {"up": 0.2, "down": 0.9}, {"up": 0.9, "down": 0.2}
    assert checks.not_monotone(hierarchy, content(good, good)) == []
    assert checks.not_monotone(hierarchy, content(bad, good)) == [
        "corpus_ic of up is above that of down below it"
    ]
    assert checks.not_monotone(hierarchy, content(good, bad)) == [
        "intrinsic_ic of up is above that of down below it"
    ]


def test_a_content_table_that_nobody_was_counted_for_is_told() -> None:
    assert (
        checks.citations_counted(pl.DataFrame({"all_citations": []}, schema={"all_citations": pl.Int64})) == 0
    )
    assert checks.citations_counted(pl.DataFrame({"all_citations": [7, 7]})) == 7
