"""Benchmarks come from the Hub at their commits, whole, once, and as files that the evaluation can ask.

The Hub is a stand-in on loopback, asked by the real client; its files have the real names, columns and
numbers of items, and invented words.
"""

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import polars as pl
import pytest
from hub_server import Commit, HubServer, Repository, hub_server, refuse

from mkailin_assets.evaluation import fetch as fetching
from mkailin_assets.evaluation.benchmark_files import benchmark_items
from mkailin_assets.evaluation.fetch import LISTING, SOURCES, NotFetched, Source, fetch, main
from mkailin_assets.evaluation.items import measured_items
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.training_checkpoints import sha256

TOKEN = "hf_" + "NeverToBeShown" * 2
# The words are invented, so the hashes of the real ones do not hold.
INVENTED = tuple(replace(source, sha256="") for source in SOURCES)


def _ask(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the client of this process, which reads HF_ENDPOINT when it is imported, ask there."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", url)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub that holds all sources."""
    with hub_server(TOKEN) as served:
        _ask(served.url, monkeypatch)
        for repository in {source.repository for source in SOURCES}:
            its = [source for source in SOURCES if source.repository == repository]
            commit = Commit(repository, {source.file: _body(source) for source in its})
            served.repositories[repository] = Repository(False, [commit], {its[0].commit: commit.oid})
        yield served


def _body(source: Source) -> bytes:
    numbers = range(source.items)
    if source.to.startswith("pubmedqa"):
        return _archive(source.items)
    if source.to.endswith(".jsonl"):
        options = dict(zip("ABCD", ("a rash", "a cough", "gout", "nothing"), strict=True))
        rows = [
            {"question": f"What ails man {number}?", "options": options, "answer": "gout", "answer_idx": "C"}
            for number in numbers
        ]
        return "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    table = pl.DataFrame({"question": [f"What is organ {number} for?" for number in numbers]})
    if source.repository == "cais/mmlu":
        table = table.with_columns(
            subject=pl.lit(source.file.partition("/")[0]),
            choices=pl.lit(["breath", "sight", "taste", "nothing"]),
            answer=pl.int_range(pl.len()) % 4,
        )
    else:
        options = {name: pl.lit(f"{name} it is") for name in ("opa", "opb", "opc", "opd")}
        table = table.with_columns(cop=pl.int_range(pl.len()) % 4, **options)
    file = io.BytesIO()
    table.write_parquet(file)
    return file.getvalue()


def _archive(items: int) -> bytes:
    """As the authors' split has it: half to test on, the other half in two parts; beside it a shadow."""
    whole = {
        str(20_000_000 + number): {
            "QUESTION": f"Does drug {number} help?",
            "CONTEXTS": ["It was given to many.", "Some got better."],
            "LABELS": ["METHODS", "RESULTS"],
            "MESHES": ["Humans", "Female"],
            "YEAR": "2011",
            "reasoning_required_pred": "yes",
            "reasoning_free_pred": "yes",
            "final_decision": ("yes", "no", "maybe")[number % 3],
            "LONG_ANSWER": "It does.",
        }
        for number in range(items)
    }
    pmids = [*whole]
    half, most = items // 2, items * 19 // 20
    parts = {
        "pqal_test_set.json": pmids[:half],
        "pqal_fold0/train_set.json": pmids[half:most],
        "pqal_fold0/dev_set.json": pmids[most:],
        "pqal_fold1/train_set.json": pmids[half + 1 :],
    }
    file = io.BytesIO()
    with ZipFile(file, "w") as archive:
        archive.writestr("__MACOSX/._pqal_test_set.json", b"\0\5\26\7")
        for name, chosen in parts.items():
            archive.writestr(name, json.dumps({pmid: whole[pmid] for pmid in chosen}))
    return file.getvalue()


def _quiet(_: str) -> None: ...


def _said(folder: Path) -> list[str]:
    said: list[str] = []
    fetch(folder, INVENTED, said.append)
    return [line.partition(": ")[2] for line in said]


def test_all_benchmarks_can_be_asked_and_kept_out_of_the_corpus(hub: HubServer, tmp_path: Path) -> None:
    benchmarks = fetch(tmp_path / "new" / "folder", INVENTED, _quiet)
    measured = measured_items(benchmarks)
    counts = dict(measured.table["benchmark"].value_counts().iter_rows())
    assert counts == {
        "ori_pqal": 500,
        "multiple_choice/medqa_test": 1_273,
        "multiple_choice/medmcqa_validation": 4_183,
        "multiple_choice/anatomy_test": 135,
        "multiple_choice/clinical_knowledge_test": 265,
        "multiple_choice/college_biology_test": 144,
        "multiple_choice/college_medicine_test": 173,
        "multiple_choice/medical_genetics_test": 100,
        "multiple_choice/professional_medicine_test": 272,
    }
    ((what, cause),) = measured.skipped.items()  # the half that is not tested on
    assert "500 items" in f"{what} {cause}"
    assert "test_ground_truth.json" in cause
    assert measured.table["kind"].unique().sort().to_list() == ["medmcqa", "medqa", "mmlu", "pubmedqa"]
    assert set(measured.table["subject"].drop_nulls()) == set(fetching._MMLU)
    # None of the thousand may be trained on, measured or not.
    assert benchmark_items(benchmarks).table.filter(benchmark="ori_pqal").height == 1_000


def test_pubmedqa_keeps_its_years_and_measures_what_its_authors_test_on(
    hub: HubServer, tmp_path: Path
) -> None:
    (source,) = (source for source in INVENTED if source.to.startswith("pubmedqa"))
    benchmarks = fetch(tmp_path, [source], _quiet)
    items = measured_items(BenchmarkFiles(pubmedqa=benchmarks.pubmedqa, retrieval="")).table
    assert items["pmid"].to_list() == [*range(20_000_000, 20_000_500)]
    assert items["year"].unique().to_list() == [2011]
    assert items["gold"].head(3).to_list() == ["yes", "no", "maybe"]


def test_the_listing_says_where_each_file_is_from(hub: HubServer, tmp_path: Path) -> None:
    fetch(tmp_path, INVENTED, _quiet)
    listed = json.loads((tmp_path / LISTING).read_text())
    assert [(entry["repository"], entry["commit"], entry["path"]) for entry in listed] == [
        (source.repository, source.commit, source.file) for source in SOURCES
    ]
    assert all(entry["sha256"] == sha256(tmp_path / entry["file"]) for entry in listed)
    assert all(entry["licence"] for entry in listed)
    assert not (tmp_path / ".downloads").exists()


def test_what_is_there_is_not_fetched_again_and_what_was_changed_is(hub: HubServer, tmp_path: Path) -> None:
    fetch(tmp_path, INVENTED, _quiet)
    hub.requests.clear()
    assert _said(tmp_path) == ["is there"] * len(SOURCES)
    assert not hub.requests
    (tmp_path / SOURCES[1].to).write_text("{}")
    assert _said(tmp_path).count("is there") == len(SOURCES) - 1
    assert {request.split("/resolve/")[0] for request in hub.requests} == {
        f"{command} /datasets/{SOURCES[1].repository}" for command in ("HEAD", "GET")
    }
    assert measured_items(BenchmarkFiles(pubmedqa=str(tmp_path / SOURCES[1].to), retrieval="")).table.height


def test_after_a_failure_the_next_run_goes_on(hub: HubServer, tmp_path: Path) -> None:
    failing = SOURCES[2]
    hub.faults[f"HEAD /datasets/{failing.repository}"] = [refuse(403, "Access to this dataset is closed")]
    with pytest.raises(NotFetched, match=f"^{failing.repository}: .*closed.*HF_ENDPOINT.*run this again$"):
        fetch(tmp_path, INVENTED, _quiet)
    assert _said(tmp_path)[:3] == [
        "is there",
        "is there",
        f"from {failing.repository} at {failing.commit[:8]}, {failing.licence}",
    ]
    assert measured_items(fetch(tmp_path, INVENTED, _quiet)).table.height


@pytest.mark.parametrize(
    ("to", "body", "found"),
    [
        ("pubmedqa", b"<html>busy</html>", "it is no archive with pqal_test_set.json"),
        ("pubmedqa", _archive(998), "it has 998 items in place of 1,000"),
        ("multiple_choice/medqa", b"<html>busy</html>", "it holds no benchmark"),
        ("multiple_choice/medmcqa", _body(replace(SOURCES[3], items=7)), "it has 7 items in place of 4,183"),
    ],
    ids=["no archive", "too few", "no benchmark", "another"],
)
def test_a_mirror_that_serves_something_else_is_told_of(
    hub: HubServer, tmp_path: Path, to: str, body: bytes, found: str
) -> None:
    (source,) = (source for source in INVENTED if source.to.startswith(to))
    repository = hub.repositories[source.repository]
    repository.commits.append(other := Commit("other", {source.file: body}))
    repository.tags[source.commit] = other.oid
    with pytest.raises(NotFetched, match=f"{source.commit}: {found}.*; {hub.url} serves another"):
        fetch(tmp_path, [source], _quiet)
    assert not (tmp_path / LISTING).exists()


def test_a_file_with_another_hash_is_not_taken(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(NotFetched, match=f"its SHA-256 is .* in place of {SOURCES[1].sha256}; {hub.url}"):
        fetch(tmp_path, SOURCES[1:2], _quiet)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_real_medqa_has_the_hash_that_is_asked_for(real_data: Path) -> None:
    file = real_data / "benchmarks" / "medqa" / "phrases_no_exclude_test.jsonl"
    assert sha256(file) == SOURCES[1].sha256
    assert len(file.read_text().splitlines()) == SOURCES[1].items


def test_without_a_network_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub.utils import _http

    _ask("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)  # between five attempts
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "disabled", True)
    assert main([str(tmp_path / "benchmarks")]) == 1
    told = capsys.readouterr().err
    assert told.startswith("bigbio/pubmed_qa: pqal.zip was not fetched: ")
    assert "see to that, the network" in told
    assert "Traceback" not in told


def test_a_listing_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / LISTING).write_text('{"something": "else"}')
    with pytest.raises(NotFetched, match="is not what this command wrote"):
        fetch(tmp_path, INVENTED, _quiet)
    assert (tmp_path / LISTING).read_text() == '{"something": "else"}'


def test_the_command_tells_what_to_set(
    hub: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(fetching, "SOURCES", INVENTED)
    folder = tmp_path / "my benchmarks"
    assert main([str(folder)]) == 0
    told = capsys.readouterr().out
    assert f"export MKAILIN_PUBMEDQA='{folder}/pubmedqa/ori_pqal.json'\n" in told
    assert f"export MKAILIN_BENCHMARKS='{folder}/multiple_choice'\n" in told
    assert "ori_pqal: models are asked 500 items" in told
    assert "BioASQ" in told
