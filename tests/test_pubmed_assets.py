"""The PubMed assets through Dagster on small files, and each of their checks made to fail."""

import gzip
import hashlib
import io
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from test_pubmed_citations import article, article_set
from test_pubmed_current import descriptors

from mkailin_assets.partitions import pubmed_files
from mkailin_assets.pubmed import assets, checks
from mkailin_assets.pubmed.tables import CurrentCitation, pubmed_records
from mkailin_resources.eutils import EntrezQuery
from mkailin_resources.nlm import NlmServers
from mkailin_resources.storage import ParquetTables, Storage

FILES = ["pubmed26n0001", "pubmed26n0002"]
BRANCHES = ["C04", "D12", "Z01"]
PER_FILE = {
    "kept_file_is_the_published_one",
    "few_records_are_quarantined",
    "most_citations_have_abstracts",
    "most_citations_have_headings",
    "versions_come_once",
}


def indexed(pmid: int, ui: str) -> str:
    heading = f'<MeshHeading><DescriptorName UI="{ui}" MajorTopicYN="Y">x</DescriptorName></MeshHeading>'
    body = "<Abstract><AbstractText>That.</AbstractText></Abstract>"
    beside = f"</Article><MeshHeadingList>{heading}</MeshHeadingList></MedlineCitation>"
    return article(pmid, body).replace("</Article></MedlineCitation>", beside)


def publish(folder: Path, directory: str, key: str, *records: str) -> None:
    """A file as NLM publishes it, with its MD5."""
    content = gzip.compress(article_set(*records))
    (folder / "pubmed" / directory).mkdir(parents=True, exist_ok=True)
    (folder / "pubmed" / directory / f"{key}.xml.gz").write_bytes(content)
    digest = hashlib.md5(content).hexdigest()
    (folder / "pubmed" / directory / f"{key}.xml.gz.md5").write_text(f"MD5({key}.xml.gz)= {digest}\n")


class Stage:
    """The stage over a folder that stands in for NLM's server."""

    def __init__(self, root: Path) -> None:
        self.storage = Storage(root=str(root / "storage"))
        self.storage.write_table(descriptors(), "mesh_descriptors")
        self.instance = dg.DagsterInstance.ephemeral()
        self.instance.add_dynamic_partitions(str(pubmed_files.name), [*FILES, "pubmed26n0003"])
        self.nlm = NlmServers(url=str(root / "nlm"), mesh_year=1999, retry_wait_s=0)

    def run(
        self, *names: str, partition: str | None = None, tags: dict[str, str] | None = None
    ) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [
                *dg.load_assets_from_modules([assets]),
                *dg.load_asset_checks_from_modules([checks]),
                dg.AssetSpec("mesh_descriptors"),
            ],
            selection=list(names),
            partition_key=partition,
            tags=tags,
            resources={
                "storage": self.storage,
                "nlm": self.nlm,
                "entrez": EntrezQuery(),
                "io_manager": ParquetTables(storage=self.storage),
            },
            instance=self.instance,
            raise_on_error=False,
        )


def failed(result: dg.ExecuteInProcessResult) -> set[str]:
    assert result.success
    return {check.check_name for check in result.get_asset_check_evaluations() if not check.passed}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    broken = article(4, title="a & b")
    ten = [indexed(pmid, "D000001") for pmid in range(10, 20)]
    publish(
        tmp_path / "nlm", "baseline", FILES[0], indexed(1, "D000001"), indexed(2, "D000001"), broken, *ten
    )
    update = "<DeleteCitation><PMID>2</PMID></DeleteCitation>"
    publish(tmp_path / "nlm", "updatefiles", FILES[1], indexed(1, "D000004"), article(3), update)
    return Stage(tmp_path)


def test_files_become_current_citations_and_branches(stage: Stage) -> None:
    for key in FILES:
        result = stage.run("raw_pubmed", "pubmed_citations", partition=key)
        assert failed(result) == set()
        assert {check.check_name for check in result.get_asset_check_evaluations()} == PER_FILE
    raw = stage.storage.read_table("raw_pubmed", FILES[1])
    assert raw is not None
    assert raw["directory"].item() == "updatefiles"

    result = stage.run("current_citations")
    assert failed(result) == set()
    metadata = result.asset_materializations_for_node("current_citations")[0].metadata
    assert metadata["files_without_table"].value == ["pubmed26n0003"]
    assert metadata["states"].value == {"current": 12, "deleted": 1}
    assert metadata["waiting"].value == {"no headings": 1}

    span = {"dagster/asset_partition_range_start": "C04", "dagster/asset_partition_range_end": "Z01"}
    result = stage.run("branch_citations", tags=span)
    assert failed(result) == set()
    sizes = {}
    for branch in BRANCHES:
        table = stage.storage.read_table("branch_citations", branch)
        assert table is not None
        sizes[branch] = table.height
    assert sizes == {"C04": 10, "D12": 1, "Z01": 0}


def test_one_branch_alone_can_be_materialized(stage: Stage) -> None:
    for key in FILES:
        stage.run("raw_pubmed", "pubmed_citations", partition=key)
    stage.run("current_citations")
    assert failed(stage.run("branch_citations", partition="D12")) == set()
    table = stage.storage.read_table("branch_citations", "D12")
    assert table is not None
    assert table["pmid"].to_list() == [1]


def test_a_branch_that_an_update_made_old_is_told(stage: Stage) -> None:
    stage.run("raw_pubmed", "pubmed_citations", partition=FILES[0])
    stage.run("current_citations")
    assert failed(stage.run("branch_citations", partition="C04")) == set()
    stage.run("raw_pubmed", "pubmed_citations", partition=FILES[1])
    stage.run("current_citations")
    assert failed(stage.run("branch_citations", partition="D12")) == {"branches_hold_their_current_citations"}


def test_a_file_that_is_not_from_pubmed_fails_and_leaves_no_table(stage: Stage, tmp_path: Path) -> None:
    publish(tmp_path / "nlm", "baseline", "pubmed26n0003", "</PubmedArticleSet><html>")
    result = stage.run("raw_pubmed", "pubmed_citations", partition="pubmed26n0003")
    assert not result.success
    assert stage.storage.read_table("pubmed_citations", "pubmed26n0003") is None


def records(*rows: dict[str, object]) -> pl.DataFrame:
    return pubmed_records(rows)


def current(*rows: dict[str, object]) -> pl.LazyFrame:
    return pl.LazyFrame(list(rows), schema=CurrentCitation.create_empty().schema)


def test_a_kept_file_that_changed_is_told() -> None:
    assert checks.md5_fault(io.BytesIO(b"intact"), hashlib.md5(b"intact").hexdigest()) is None
    assert "NLM says" in str(checks.md5_fault(io.BytesIO(b"changed"), hashlib.md5(b"intact").hexdigest()))


@pytest.mark.parametrize(
    ("records", "allowed"), [(0, 0), (9, 0), (10, 1), (30, 3), (300, 3), (400, 4), (30_000, 300)]
)
def test_the_quarantine_may_hold_a_few_records_alone(records: int, allowed: int) -> None:
    assert checks.most_quarantined(records) == allowed


def test_a_file_of_broken_records_is_told() -> None:
    broken = [{"record": "quarantined", "position": n, "cause": "x"} for n in range(3)]
    good = [{"record": "citation", "position": n, "pmid": n} for n in range(3, 29)]
    assert not checks.few_records_are_quarantined(records(*broken, *good)).passed
    assert checks.few_records_are_quarantined(records(*broken[:2], *good)).passed


def told(result: dg.AssetCheckResult) -> bool:
    """Whether a check warns."""
    assert result.severity == dg.AssetCheckSeverity.WARN
    return not result.passed


def test_a_file_without_abstracts_or_headings_is_told() -> None:
    full = {"abstract": [{"text": "x"}], "headings": [{"name": "x", "major": False, "qualifiers": []}]}
    kind: dict[str, object] = {"record": "citation"}
    mixed = records({**kind, **full}, *[kind] * 9)
    assert not told(checks.most_citations_have_abstracts(mixed))
    assert not told(checks.most_citations_have_headings(mixed))
    bare = records({**kind, **full}, *[kind] * 10)
    assert told(checks.most_citations_have_abstracts(bare))
    assert told(checks.most_citations_have_headings(bare))


def test_many_deleted_pmids_are_told() -> None:
    kept: list[dict[str, object]] = [{"state": "current"}] * 9
    assert not told(checks.few_citations_are_deleted(current({"state": "deleted"}, *kept)))
    assert told(checks.few_citations_are_deleted(current({"state": "deleted"}, {"state": "deleted"}, *kept)))


def test_many_records_in_quarantine_over_all_files_are_told() -> None:
    known = current(*[{"state": "current"}] * 100)
    quarantine = pl.DataFrame({"pubmed_file": ["f1", "f2"]})
    assert not told(checks.few_records_of_all_are_quarantined(quarantine.head(1), known))
    assert told(checks.few_records_of_all_are_quarantined(quarantine, known))


def test_the_quarantine_of_all_files_is_one_table(stage: Stage) -> None:
    for key in FILES:
        stage.run("raw_pubmed", "pubmed_citations", partition=key)
    stage.run("current_citations")
    assert stage.run("quarantined_records").success
    table = stage.storage.read_table("quarantined_records")
    assert table is not None
    assert table.select("pubmed_file", "position", "pmid").rows() == [(FILES[0], 2, 4)]
    assert table["cause"].str.starts_with("malformed XML").all()
    assert "a & b" in table["raw"].item()


def test_a_version_that_comes_twice_is_told() -> None:
    first = {"record": "citation", "position": 0, "pmid": 1, "version": 1}
    assert not checks.versions_come_once(records(first, {**first, "position": 1})).passed
    assert checks.versions_come_once(records(first, {**first, "position": 1, "version": 2})).passed


@pytest.mark.parametrize(
    "wrong",
    [
        {"pmid": 1, "state": "current", "home_branch": "C04"},
        {"pmid": 2, "state": "current"},
        {"pmid": 2, "state": "current", "home_branch": "C04", "waiting": "x"},
        {"pmid": 2, "state": "deleted", "home_branch": "C04"},
        {"pmid": 2, "state": "retracted", "waiting": "x"},
    ],
)
def test_states_that_do_not_add_up_are_told(wrong: dict[str, object]) -> None:
    right = {"pmid": 1, "state": "current", "home_branch": "C04"}
    assert checks.states_add_up(current(right)).passed
    assert not checks.states_add_up(current(right, wrong)).passed


def test_a_home_that_is_no_partition_is_told() -> None:
    assert checks.home_branches_are_partitions(current({"home_branch": "C04"}, {"home_branch": None})).passed
    assert not checks.home_branches_are_partitions(current({"home_branch": "C99"})).passed


def test_many_citations_that_wait_are_told() -> None:
    waits, homed = {"state": "current", "waiting": "x"}, {"state": "current", "home_branch": "C04"}
    assert not told(checks.few_citations_wait(current(waits, homed)))
    assert told(checks.few_citations_wait(current(waits, waits, homed)))


@pytest.mark.parametrize(
    ("held", "wrong"),
    [
        ([(1, "C04", "aa")], []),
        ([(1, "C10", "aa")], ["labelled with another branch"]),
        ([(1, "C04", "bb")], ["not current here, or of other content"]),
        ([(1, "C04", "aa"), (2, "C04", "aa")], ["not current here, or of other content"]),
        ([(1, "C04", "aa"), (3, "C04", "aa")], ["not current here, or of other content"]),
        ([], ["missing"]),
    ],
)
def test_a_branch_that_differs_from_the_current_citations_is_told(
    held: list[tuple[int, str, str]], wrong: list[str]
) -> None:
    states = current(
        {"pmid": 1, "state": "current", "home_branch": "C04", "content_hash": "aa"},
        {"pmid": 2, "state": "retracted", "content_hash": "aa"},
        {"pmid": 3, "state": "current", "home_branch": "D12", "content_hash": "aa"},
    )
    schema = {"pmid": pl.Int64, "branch": pl.String, "content_hash": pl.String}
    branches = {"C04": pl.LazyFrame(held, schema=schema, orient="row")}
    assert checks.misplaced(branches, states)["wrong"].to_list() == wrong
    of_this_run, of_another = (
        checks.judged(checks.misplaced(branches, states), [run]) for run in ("C04", "D12")
    )
    assert of_this_run.passed == of_another.passed == (not wrong)
    assert of_this_run.severity == (dg.AssetCheckSeverity.ERROR if wrong else dg.AssetCheckSeverity.WARN)
    assert of_another.severity == dg.AssetCheckSeverity.WARN
