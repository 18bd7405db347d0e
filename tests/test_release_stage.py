"""The release stage as a whole: what it gathers, what it must not tell, and what is recalled of it."""

from pathlib import Path

import polars as pl
import pytest
from small_release import BENCHMARK_QUESTION, training_examples

from mkailin_assets.corpus.decontamination import benchmark_questions, fingerprints_of
from mkailin_assets.corpus.recalls import corpus_fingerprint, ledger, trained_on
from mkailin_assets.corpus.tables import CorpusExclusion, CorpusRecall
from mkailin_assets.release.gathering import without_benchmark_text
from mkailin_assets.release.publishing import NoSuchRelease, release_uri
from mkailin_assets.release.recalls import checkpoints_of, release_recalls
from mkailin_assets.release.sources import sources_of
from mkailin_assets.release.tables import CorpusRelease, ReleaseRecall
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.storage import Storage

CORPUS = training_examples()
NAME = corpus_fingerprint(CORPUS)
KNOWN = fingerprints_of(benchmark_questions([(77, BENCHMARK_QUESTION)]))


def releases(*names: str) -> pl.DataFrame:
    rows = [
        {
            **{
                "name": name,
                "uri": f"/releases/{name}",
                "form": "pmids",
                "corpus": NAME,
                "rows": CORPUS.height,
            },
            **{"made_on": "2026-01-02", "last_update_file": "pubmed26n0001", "sums_sha256": "0" * 64},
            "is_current": name == names[-1],
        }
        for name in names
    ]
    return CorpusRelease.validate(pl.DataFrame(rows, schema=CorpusRelease.create_empty().schema))


def test_reports_hold_no_question_of_a_benchmark_whatever_kept_its_row_out() -> None:
    asked = ["Does tea help?", BENCHMARK_QUESTION, f"Well: {BENCHMARK_QUESTION.lower()}", "Is it so?"]
    rows = pl.DataFrame(
        {
            "pmid": range(1, 5),
            "branch": ["C04"] * 4,
            "question": asked,
            "stage": ["evaluation", "evaluation", "source", "contamination"],
            "reason": ["why"] * 4,
            "evidence": [None, None, None, "eight words of it"],
        }
    )
    excluded = pl.concat([CorpusExclusion.create_empty(), rows], how="diagonal")
    told = without_benchmark_text(excluded, KNOWN)
    assert told["question"].to_list() == ["Does tea help?", None, None, None]
    assert told["evidence"].to_list() == [None] * 4
    recalled = pl.DataFrame({"example_id": ["a", "b"], "question": [BENCHMARK_QUESTION, "Does tea help?"]})
    assert without_benchmark_text(recalled, KNOWN)["question"].to_list() == [None, "Does tea help?"]


def test_addresses_of_copies_and_files_not_yet_parsed_are_not_in_the_sources() -> None:
    mesh = pl.DataFrame(
        {"year": [2026], "name": ["desc2026.gz"], "url": ["file:///home/a/desc2026.gz"], "sha256": ["0" * 64]}
    )
    urls = {
        "pubmed26n0001": "https://ftp.ncbi.nlm.nih.gov/pubmed/baseline/pubmed26n0001.xml.gz?x=1",
        "pubmed26n0002": "https://me:secret@mirror.example/pubmed26n0002.xml.gz",
        "pubmed26n0003": "https://ftp.ncbi.nlm.nih.gov/pubmed/baseline/pubmed26n0003.xml.gz",
    }
    raw = {
        key: pl.DataFrame({"pubmed_file": [key], "url": [url], "md5": ["0" * 32]})
        for key, url in urls.items()
    }
    parsed = {key: pl.LazyFrame({"revised": ["2026-01-02", "2025-12", None]}) for key in list(urls)[:2]}
    current = pl.LazyFrame(
        {"pmid": [1, 2], "state": ["current", "retracted"], "pubmed_file": ["pubmed26n0001", "pubmed26n0002"]}
    )
    sources = sources_of(mesh, raw, parsed, current)
    assert sources.mesh.url is None
    assert [file.url for file in sources.pubmed_files] == [urls["pubmed26n0001"].partition("?")[0], None]
    assert (sources.last_update_file, sources.retraction_cutoff) == ("pubmed26n0002", "2026-01-02")
    assert sources.taken_back.rows() == [(2, "retracted", "pubmed26n0002")]


def test_a_folder_that_is_there_is_a_name_whatever_its_path_has(tmp_path: Path) -> None:
    folder = tmp_path / "run+1 of a@b" / "my model"
    folder.mkdir(parents=True)
    assert ModelName.parse(str(folder)) == ModelName(str(folder))
    for text in ("", " ", "~nobody-of-this-name/a b", "a" * 300 + " b"):
        with pytest.raises(ValueError, match="names no model"):
            ModelName.parse(text)


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("/home/a/models/mine@2+/home/a/adapters/best", "mine@2+best"),
        ("~/models/mine", "mine"),
        ("org/model@abc", "org/model@abc"),
    ],
)
def test_a_model_in_a_folder_is_called_by_its_name_alone(asked: str, shown: str) -> None:
    assert ModelName.parse(asked).shown == shown


def test_a_recalled_row_names_each_release_that_holds_it_and_what_trained_on_it(tmp_path: Path) -> None:
    storage = Storage(root=str(tmp_path))
    ledgers = {NAME: ledger(CORPUS).lazy()}
    for name, data in (("one", trained_on(ledgers[NAME])), ("other", "another corpus")):
        folder = tmp_path / "checkpoints" / "finetuned" / name
        folder.mkdir(parents=True)
        (folder / "training.json").write_text(f'{{"data_fingerprint": "{data}"}}')
    row = CORPUS.group_by("split", maintain_order=True).first()
    recalled = pl.concat(
        [
            CorpusRecall.create_empty(),
            row.select("example_id", "pmid", "branch", "split", "question").with_columns(
                corpus=pl.lit(NAME),
                cited_pmid="pmid",
                reason=pl.lit("source retracted"),
                pubmed_file=pl.lit("pubmed26n0009"),
            ),
        ],
        how="diagonal",
    )
    found = ReleaseRecall.validate(
        release_recalls(releases("first", "second"), recalled, ledgers, checkpoints_of(storage))
    )
    assert found.height == 2 * row.height
    rows = found.select("release", "split", "trained_on").rows()
    by_split = {(release, split): names for release, split, names in rows}
    for release in ("first", "second"):
        assert by_split[release, "train"] == by_split[release, "validation"] == ["finetuned/one"]
        assert by_split[release, "test"] == [], "nothing trains on the test split"
    assert release_recalls(releases("first"), recalled.clear(), ledgers, {}).is_empty()


def test_the_release_to_publish_is_the_current_one_or_the_one_that_is_named(tmp_path: Path) -> None:
    storage = Storage(root=str(tmp_path))
    with pytest.raises(NoSuchRelease, match="make release"):
        release_uri(storage, "")
    storage.write_table(releases("first", "second"), "corpus_release")
    assert release_uri(storage, "") == "/releases/second"
    assert release_uri(storage, "first") == "/releases/first"
    with pytest.raises(NoSuchRelease, match="there are first, second"):
        release_uri(storage, "third")
