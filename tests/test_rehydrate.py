"""The texts of a release come back from PubMed's own files as they were, or it says what is missing."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
from asking import Writer, unpaid
from small_release import small_facts, small_release

from mkailin_assets.corpus.answers import generated_qa
from mkailin_assets.corpus.assembly import CorpusRules, assemble, examples
from mkailin_assets.corpus.decontamination import benchmark_questions
from mkailin_assets.corpus.recalls import corpus_fingerprint
from mkailin_assets.corpus.tables import DistilledContexts, DistilledQuestion, EvaluatedQA
from mkailin_assets.pubmed.citations import read_pubmed_file
from mkailin_assets.questions.candidates import candidate_questions
from mkailin_assets.release.facts import Form, ReleaseFacts
from mkailin_assets.release.gathering import facts_of_rows, models_of
from mkailin_assets.release.rehydrate import (
    ABSENT,
    MISSING,
    OTHERWISE,
    REVISED,
    Rehydrated,
    main,
    rehydrate,
)
from mkailin_assets.release.verify import verify
from mkailin_assets.retrieval.update import text
from mkailin_resources.models.extractive import (
    ConclusionAnswerer,
    ConclusionQuestioner,
    StatementTitleQuestioner,
)
from mkailin_resources.models.interface import GenerationRequest, GenerationResult


class Folders(NamedTuple):
    """What is rehydrated: a release, PubMed files, and where it is to go."""

    release: Path
    pubmed: Path
    to: Path


PAIRS, CONTEXTS = 48, 3
LACKING, UPDATES = "pubmed26n0002", ("pubmed26n0005", "pubmed26n0006")
RULES = CorpusRules(max_context_characters=3_000, min_duplicate_similarity=1, max_decision_share=1)


@pytest.fixture(scope="module")
def nlm(real_data: Path) -> Path:
    """NLM's server: baseline and update files."""
    return real_data / "nlm" / "pubmed"


@pytest.fixture(scope="module")
def records(nlm: Path) -> dict[str, pl.DataFrame]:
    """Each PubMed file by its key, as the platform parses it."""
    return {path.name.removesuffix(".xml.gz"): parsed(path) for path in sorted(nlm.glob("*/*.xml.gz"))}


@pytest.fixture(scope="module")
def corpus(nlm: Path, records: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Examples as the platform makes them of the baseline; many of their citations were revised since."""
    baseline = pl.concat(rows for key, rows in records.items() if key < "pubmed26n0005")
    revised = [int(pmid) for pmid in expected(nlm)["revised_once"]]
    readable = baseline.filter(pl.col("abstract").list.len() > 0).unique("pmid")
    citations = readable.sort(~pl.col("pmid").is_in(revised), pl.col("pmid") % 1009, "pmid").head(3 * PAIRS)
    asked = questions_of(citations).gather_every(2).head(PAIRS)
    sources = citations.join(asked, on="pmid", how="semi").sort("pmid")
    contexts = contexts_of(asked, citations)
    # As `Searcher.texts` has them.
    shown = citations.select("pmid", pl.col("title").fill_null(""), text())
    shown = shown.with_columns(pl.col("text").str.slice(pl.col("title").str.len_chars() + 1))
    answerers = {"C04": ConclusionAnswerer(), "F03": Writer(speak)}
    evaluated: dict[str, pl.LazyFrame] = {}
    for number, (branch, answerer) in enumerate(answerers.items()):
        some = sources.gather_every(2, number)
        pairs = generated_qa(asked, contexts, some, shown, answerer, branch, unpaid)
        evaluated[branch] = (
            unmeasured(pairs.filter(pl.col("failure").is_null())).with_columns(kept=True).lazy()
        )
    home = {pmid: branch for branch, rows in evaluated.items() for pmid in rows.collect()["pmid"]}
    current = citations.select(
        "pmid",
        "content_hash",
        "pubmed_file",
        state=pl.lit("current"),
        home_branch=pl.col("pmid").replace_strict(home, default=None, return_dtype=pl.String),
    )
    assembly = assemble(evaluated, current, benchmark_questions([]), RULES)
    assert assembly.kept.height == len(home)
    return pl.concat(examples(evaluated, assembly.kept, RULES))


def parsed(path: Path) -> pl.DataFrame:
    with path.open("rb") as file:
        return pl.concat(read_pubmed_file(file, path.name.removesuffix(".xml.gz")))


def expected(nlm: Path) -> dict[str, list[str]]:
    return json.loads((nlm / "expected_changes.json").read_text())


def questions_of(citations: pl.DataFrame) -> pl.DataFrame:
    """`DistilledQuestion` of the citations of which an agent finds something to ask."""
    askers = {"domain": StatementTitleQuestioner(), "general": ConclusionQuestioner()}
    candidates = candidate_questions(citations, askers, "C04", unpaid)
    chosen = candidates.filter(pl.col("question").is_not_null()).unique(
        "pmid", keep="first", maintain_order=True
    )
    return chosen.with_columns(chosen_by=pl.lit("mesh")).select(DistilledQuestion.create_empty().columns)


def contexts_of(asked: pl.DataFrame, citations: pl.DataFrame) -> pl.DataFrame:
    """`DistilledContexts`: to each question some citations, never its own."""
    rows = []
    for place, (pmid, question) in enumerate(asked.select("pmid", "question").iter_rows()):
        others = citations.filter(pl.col("pmid") != pmid).select("pmid", "content_hash").rows()
        found = [others[(7 * place + step) % len(others)] for step in range(CONTEXTS)]
        contexts = [
            {"rank": rank, "pmid": one, "content_hash": hashed} for rank, (one, hashed) in enumerate(found, 1)
        ]
        rows.append({"pmid": pmid, "question": question, "contexts": contexts})
    schema = DistilledContexts.create_empty().schema
    return pl.DataFrame([dict.fromkeys(schema) | row for row in rows], schema=schema)


def speak(request: GenerationRequest) -> GenerationResult:
    """An answer in own words that quotes a context, the abstract and the question."""
    context = request.contexts[-1]
    abstract = request.document.sections[-1].text
    said = f"On \u201c{request.question}\u201d: {context[-90:]} \U0001f9ec Also, {abstract[:60]}!"
    answer = {"long_answer": said, "decision": "maybe", "evidence": [request.contexts[0]]}
    return GenerationResult(request.key, text=json.dumps(answer))


def unmeasured(pairs: pl.DataFrame) -> pl.DataFrame:
    """`EvaluatedQA` rows of pairs of which nothing was measured."""
    missing = {
        name: kind for name, kind in EvaluatedQA.create_empty().schema.items() if name not in pairs.columns
    }
    needed = {name: column for name, column in EvaluatedQA.columns().items() if not column.nullable}
    values = {
        name: pl.lit(([] if isinstance(kind, pl.List) else 0) if name in needed else None, dtype=kind)
        for name, kind in missing.items()
    }
    return pairs.with_columns(**values).select(EvaluatedQA.create_empty().columns)


def released(corpus: pl.DataFrame, folder: Path, form: Form) -> Path:
    """A release of the corpus in this form."""
    told = {
        "form": form,
        "rules": {"corpus": RULES.model_dump()},
        "models": models_of(corpus, {"scripted": "It is ours."}),
    }
    return small_release(folder, corpus, small_facts().model_copy(update=told | facts_of_rows(corpus)))


@pytest.fixture(scope="module")
def bare(corpus: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release without texts."""
    return released(corpus, tmp_path_factory.mktemp("bare") / "corpus", "pmids")


@pytest.fixture(scope="module")
def partly(bare: Path, nlm: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rehydrated]:
    """What comes back without the second file of the baseline."""
    folder = tmp_path_factory.mktemp("partly")
    some = folder / "pubmed"
    some.mkdir()
    (some / "updatefiles").symlink_to(nlm / "updatefiles")
    for path in nlm.glob("baseline/*.xml.gz"):
        if path.name != f"{LACKING}.xml.gz":
            (some / path.name).symlink_to(path)
    return folder / "back", rehydrate(bare, some, folder / "back", print)


def test_every_example_comes_back_byte_for_byte(
    corpus: pl.DataFrame, bare: Path, nlm: Path, tmp_path: Path
) -> None:
    full, back = released(corpus, tmp_path / "full", "full"), tmp_path / "back"
    assert rehydrate(bare, nlm, back, print) == Rehydrated(corpus.height, 0)
    files = sorted(path.relative_to(full) for path in full.glob("data/*/*.parquet"))
    assert len(files) == 6
    for file in files:
        assert (back / file).read_bytes() == (full / file).read_bytes(), file
    assert not (back / MISSING).exists()
    made, was = ReleaseFacts.read(back), ReleaseFacts.read(full)
    assert made == was.model_copy(update={"name": f"{was.name}-rehydrated"})
    assert {path.name for path in back.iterdir()} == {path.name for path in full.iterdir()}


def test_the_release_without_texts_holds_the_answers_of_agents_as_places(
    corpus: pl.DataFrame, bare: Path
) -> None:
    rows = pl.read_parquet(bare / "data" / "instruction" / "*.parquet")
    own = rows.with_columns(own=pl.col("answer_parts").list.eval(pl.element().struct["text"]).list.join(""))
    quoting, speaking = (own.filter(answerer=name) for name in ("extractive-conclusion-answer", "scripted"))
    assert quoting.height + speaking.height == corpus.height
    # A conclusion of fewer characters than a quotation has stays.
    assert quoting.filter(pl.col("own") == "").height > 0.9 * quoting.height
    assert speaking["own"].str.starts_with("On \u201c").all()
    assert speaking["own"].str.contains("\U0001f9ec", literal=True).all()


def test_a_citation_that_was_revised_is_found_in_its_older_version(
    corpus: pl.DataFrame, records: dict[str, pl.DataFrame], partly: tuple[Path, Rehydrated]
) -> None:
    latest = (
        pl.concat(records.values()).filter(record="citation").unique("pmid", keep="last", maintain_order=True)
    )
    cited = pl.concat(pl.read_parquet(path) for path in (partly[0] / "data" / "instruction").glob("*"))
    hashes = cited["made_of"].explode().struct.unnest().join(latest, on="pmid")
    assert hashes.filter(pl.col("content_hash") != pl.col("content_hash_right")).height > 20


def test_examples_of_a_file_that_is_not_there_are_named_with_the_reason(
    corpus: pl.DataFrame, records: dict[str, pl.DataFrame], partly: tuple[Path, Rehydrated]
) -> None:
    back, done = partly
    missing = pl.read_parquet(back / MISSING)
    lacking = set(records[LACKING]["pmid"])
    needed = corpus.select("example_id", cited=pl.concat_list("pmid", "context_pmids")).explode("cited")
    lost = needed.filter(pl.col("cited").is_in(lacking))
    assert set(missing.select("example_id", "cited_pmid").rows()) == set(lost.rows())
    assert done == Rehydrated(corpus.height - lost["example_id"].n_unique(), lost["example_id"].n_unique())
    updated = {pmid for key in UPDATES for pmid in records[key].filter(record="citation")["pmid"]}
    for pmid, cause in missing.select("cited_pmid", "cause").rows():
        assert cause == (REVISED if pmid in updated else ABSENT)
    assert set(missing["cause"]) == {REVISED, ABSENT}
    assert set(missing.filter(use="source").select("pmid", "cited_pmid").rows()) == {
        (pmid, pmid) for pmid in missing.filter(use="source")["pmid"]
    }
    there = corpus.join(missing, on="example_id", how="anti")
    assert facts_match(ReleaseFacts.read(back), there)


def facts_match(facts: ReleaseFacts, rows: pl.DataFrame) -> bool:
    return (
        facts.form == "full"
        and facts.rows == sum(facts.by_split.values()) == rows.height
        and facts.by_split == dict(rows["split"].value_counts().rows())
        and facts.corpus == corpus_fingerprint(rows)
    )


def test_a_release_that_came_back_in_part_is_verified(partly: tuple[Path, Rehydrated]) -> None:
    assert verify(partly[0]) == []


def test_an_example_that_comes_out_otherwise_is_missing(
    corpus: pl.DataFrame, nlm: Path, tmp_path: Path
) -> None:
    """Of another version of the rules, say: nobody would see it in the text."""
    first = corpus["example_id"][0]
    is_first = pl.col("example_id") == first
    another = pl.when(is_first).then(pl.lit("0" * 32)).otherwise("example_hash").alias("example_hash")
    bare = released(corpus.with_columns(another), tmp_path / "bare", "pmids")
    assert rehydrate(bare, nlm, tmp_path / "back", print) == Rehydrated(corpus.height - 1, 1)
    missing = pl.read_parquet(tmp_path / "back" / MISSING)
    assert missing.select("example_id", "cause").rows() == [(first, OTHERWISE)]


def test_the_tables_of_the_platform_will_do(
    corpus: pl.DataFrame,
    bare: Path,
    records: dict[str, pl.DataFrame],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables = tmp_path / "storage" / "tables" / "pubmed_citations"
    tables.mkdir(parents=True)
    for key, rows in records.items():
        rows.write_parquet(tables / f"{key}.parquet")
    assert main([str(bare), "--pubmed", str(tmp_path / "storage"), "--to", str(tmp_path / "back")]) == 0
    assert f"{corpus.height} examples have their texts again" in capsys.readouterr().out


def test_a_damaged_file_is_named_and_the_others_are_read(
    corpus: pl.DataFrame, bare: Path, nlm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pubmed = tmp_path / "pubmed"
    shutil.copytree(nlm / "baseline", pubmed)
    damaged = pubmed / f"{LACKING}.xml.gz"
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    assert main([str(bare), "--pubmed", str(pubmed), "--to", str(tmp_path / "back")]) == 1
    said = capsys.readouterr().out
    assert f"{damaged}: could not be read to its end, fetch it again: the gzip stream breaks off" in said
    assert f"not read to their end: {damaged}" in said
    missing = pl.read_parquet(tmp_path / "back" / MISSING)
    assert set(missing["cause"]) == {ABSENT}
    assert f"{missing['example_id'].n_unique()} examples are missing" in said
    assert ReleaseFacts.read(tmp_path / "back").rows == corpus.height - missing["example_id"].n_unique() > 0


def test_no_file_is_read_when_all_is_found(
    corpus: pl.DataFrame, bare: Path, nlm: Path, tmp_path: Path
) -> None:
    shutil.copytree(nlm / "baseline", tmp_path / "pubmed")
    (tmp_path / "pubmed" / "pubmed99n0001.xml.gz").write_bytes(b"no gzip")
    said: list[str] = []
    done = rehydrate(bare, tmp_path / "pubmed", tmp_path / "back", said.append)
    assert done == Rehydrated(corpus.height, 0)
    assert said[-1] == "all is found: 4 of 5 files were enough"


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """A release that nothing is wrong with, of invented citations; PubMed files; and where it is to go."""
    pubmed = tmp_path / "pubmed"
    pubmed.mkdir()
    with gzip.open(pubmed / "pubmed26n0001.xml.gz", "w") as file:
        file.write(b"<PubmedArticleSet></PubmedArticleSet>")
    bare = small_release(tmp_path / "bare", facts=small_facts(form="pmids"))
    return Folders(bare, pubmed, tmp_path / "made" / "back")


def no_release(folders: Folders) -> Folders:
    return folders._replace(release=folders.pubmed)


def no_folder(folders: Folders) -> Folders:
    return folders._replace(release=folders.release / "absent")


def with_texts(folders: Folders) -> Folders:
    return folders._replace(release=small_release(folders.release.with_name("full")))


def damaged(folders: Folders) -> Folders:
    (folders.release / "NOTICE").write_text("Another.")
    return folders


def no_rules(folders: Folders) -> Folders:
    facts = small_facts(form="pmids", rules={})
    return folders._replace(release=small_release(folders.release.with_name("ruleless"), facts=facts))


def no_pubmed(folders: Folders) -> Folders:
    return folders._replace(pubmed=folders.pubmed / "absent")


def no_pubmed_file(folders: Folders) -> Folders:
    (folders.pubmed / "pubmed26n0001.xml.gz").rename(folders.pubmed / "abstracts.xml.gz")
    return folders


def target_with_files(folders: Folders) -> Folders:
    return folders._replace(to=folders.pubmed)


def target_is_a_file(folders: Folders) -> Folders:
    return folders._replace(to=folders.release / "NOTICE")


def nothing(folders: Folders) -> Folders:
    return folders


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (no_release, "pubmed: is no release as it was published, fetch it again: "),
        (no_folder, "absent: is no release as it was published, fetch it again: "),
        (with_texts, "full: is of form full: its texts are there"),
        (damaged, "fetch it again: NOTICE: has been changed"),
        (no_rules, "manifest.json: rules.corpus.max_context_characters is None"),
        (no_pubmed, "absent: is no folder"),
        (no_pubmed_file, "pubmed: neither it nor any folder below has a PubMed file"),
        (target_with_files, "pubmed: is there and no empty folder"),
        (target_is_a_file, "NOTICE: is there and no empty folder"),
        (nothing, f"no example could be put back from {{pubmed}}: {ABSENT}"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason_and_leaves_nothing(
    wrong: Callable[[Folders], Folders],
    told: str,
    folders: Folders,
    capsys: pytest.CaptureFixture[str],
) -> None:
    release, pubmed, to = wrong(folders)
    before = sorted(folders.release.parent.rglob("*"))
    assert main([str(release), "--pubmed", str(pubmed), "--to", str(to)]) == 2
    assert told.format(pubmed=pubmed) in capsys.readouterr().err
    assert [
        path for path in sorted(folders.release.parent.rglob("*")) if path not in (*before, to.parent)
    ] == []


def test_a_run_that_is_broken_off_leaves_nothing(folders: Folders) -> None:
    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rehydrate(*folders, stop)
    assert list(folders.to.parent.iterdir()) == []
