"""Verifying a release: whatever is wrong with it is found and named, though its hashes are right again."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_tables import current, qa
from small_release import (
    ANSWERER,
    BENCHMARK_QUESTION,
    example,
    small_facts,
    small_release,
    small_reports,
    training_examples,
)

from mkailin_assets.corpus.assembly import split_of
from mkailin_assets.release.croissant import croissant
from mkailin_assets.release.facts import MANIFEST, Form, ReleaseFacts
from mkailin_assets.release.findings import Finding, What
from mkailin_assets.release.layout import SUMS, TAKEN_BACK, write_sums
from mkailin_assets.release.verify import ROWS_AT_ONCE, checks, main, taken_back_at, verify
from mkailin_resources.storage import Storage

TRAIN = "data/instruction/train-00000-of-00001.parquet"
TEXTS = "data/pretraining/train-00000-of-00001.parquet"
HELD_OUT = next(pmid for pmid in range(1, 100) if split_of(pmid) == "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_release(tmp_path_factory.mktemp("made"))


@pytest.fixture
def release(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "release")


def only(release: Path, what: What, newer: pl.DataFrame | None = None) -> Finding:
    """The one finding of a release, which must be of this check; rows are not read for one of the first."""
    order = list(What)
    found: list[Finding] = []
    for check in checks(release, newer):
        found += check.findings
        if check.what == What.COLUMNS and order.index(what) < order.index(What.COLUMNS):
            break
    assert [finding.what for finding in found] == [what], found
    return found[0]


def changed(pmid: int, **changes: Any) -> pl.DataFrame:
    """The small release's rows, one of them changed after its texts were put together."""
    rows = training_examples()
    is_it = pl.col("pmid") == pmid
    new = {name: pl.lit(value, rows.schema[name]) for name, value in changes.items()}
    return rows.with_columns(
        **{name: pl.when(is_it).then(value).otherwise(name) for name, value in new.items()}
    )


def resigned(release: Path) -> Path:
    """The release with Croissant metadata and hashes that agree with what lies in it."""
    metadata = croissant(ReleaseFacts.read(release), release)
    (release / "croissant.json").write_text(metadata, encoding="utf-8")
    write_sums(release)
    return release


@pytest.mark.parametrize("form", ["full", "pmids"])
def test_a_release_as_it_was_made_is_all_right(tmp_path: Path, form: Form) -> None:
    release = small_release(tmp_path, facts=small_facts(form=form))
    made = list(checks(release))
    assert [check.what for check in made] == list(What), "a check was left out"
    assert not [finding for check in made for finding in check.findings]


def test_a_byte_changed_in_any_file_is_found_in_that_file(release: Path) -> None:
    for path in [path for path in release.rglob("*") if path.is_file() and path.name != SUMS]:
        kept = path.read_bytes()
        middle = len(kept) // 2
        path.write_bytes(kept[:middle] + bytes([kept[middle] ^ 1]) + kept[middle + 1 :])
        check = next(checks(release))
        assert [finding.file for finding in check.findings] == [path.relative_to(release).as_posix()]
        assert "has been changed" in check.findings[0].found
        path.write_bytes(kept)
    assert not verify(release)


def test_a_file_more_or_less_is_found(release: Path) -> None:
    (release / "reports" / "coverage.png").rename(release / "reports" / "more.png")
    found = {(finding.file, finding.found) for finding in verify(release) if finding.what == What.HASHES}
    assert found == {
        ("reports/coverage.png", "is in SHA256SUMS and not in the folder"),
        ("reports/more.png", "is in the folder and not in SHA256SUMS"),
    }


def test_what_the_hub_adds_to_a_folder_is_no_fault(release: Path) -> None:
    (release / ".gitattributes").write_text("*.parquet filter=lfs\n")
    (release / ".cache" / "huggingface").mkdir(parents=True)
    (release / ".cache" / "huggingface" / "CACHEDIR.TAG").write_text("Signature")
    assert not verify(release)


@pytest.mark.parametrize("name", ["../outside", "{outside}", "./README.md", "reports/../../outside"])
def test_a_sum_of_a_file_outside_the_folder_is_found_and_the_file_not_opened(
    release: Path, name: str
) -> None:
    outside = release.parent / "outside"
    os.mkfifo(outside)  # whoever opens it waits for ever
    with (release / SUMS).open("a") as sums:
        sums.write(f"{'0' * 64}  {name.format(outside=outside)}\n")
    assert "is no place in the folder; it was not opened" in only(release, What.HASHES).found


def test_a_link_out_of_the_folder_is_found_and_not_followed(release: Path) -> None:
    outside = release.parent / "outside"
    outside.mkdir()
    (release / "LICENSE").rename(outside / "LICENSE")
    (release / "LICENSE").symlink_to(outside / "LICENSE")
    (release / "more").symlink_to(outside)
    os.mkfifo(release / "pipe")
    found = {finding.file: finding.found for finding in verify(release) if "not opened" in finding.found}
    assert {name: told.split(";")[0] for name, told in found.items()} == {
        "LICENSE": "is a symbolic link",
        "more": "is a symbolic link",
        "pipe": "is no plain file",
    }


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "it is not there"),
        (b"\xff\xfe", "can't decode byte 0xff"),
        (b"no sum\n", "line 1 is not SHA-256 and name: no sum"),
        (b"\x1b[31mred\n", r"\x1b[31mred"),
    ],
)
def test_sums_that_cannot_be_read_are_a_finding(release: Path, content: bytes | None, told: str) -> None:
    (release / SUMS).write_bytes(content) if content else (release / SUMS).unlink()
    assert any(told in finding.found for finding in verify(release) if finding.file == SUMS)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: None, "is not there"),
        (lambda folder: folder.write_text("a file"), "is a file: name the folder of a release"),
        (lambda folder: folder.mkdir(), "holds no file: this is no release"),
    ],
)
def test_what_is_no_folder_of_files_is_a_finding(
    tmp_path: Path, make: Callable[[Path], None], told: str
) -> None:
    make(tmp_path / "release")
    assert only(tmp_path / "release", What.HASHES).found == told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "it is not there"),
        (b"", "Invalid JSON"),
        (b"\xff", "can't decode byte"),
        (b"[" * 100_000, "Invalid JSON"),
        (b'{"format": "2"}', "format: Input should be '1'"),
    ],
)
def test_without_a_manifest_there_is_one_finding_that_says_so(
    release: Path, content: bytes | None, told: str
) -> None:
    (release / MANIFEST).write_bytes(content) if content is not None else (release / MANIFEST).unlink()
    write_sums(release)
    found = only(release, What.MANIFEST).found
    assert told in found
    assert "nothing else was checked" in found


@pytest.mark.parametrize("name", ["LICENSE", "NOTICE", "reports/coverage.png", "reports/coverage.parquet"])
def test_a_file_that_every_release_has_is_missed(release: Path, name: str) -> None:
    (release / name).unlink()
    finding = only(resigned(release), What.LAYOUT)
    assert (finding.file, finding.found) == (name, "is not there")


def test_texts_in_a_release_without_texts_are_found(tmp_path: Path) -> None:
    release = small_release(tmp_path / "release", facts=small_facts(form="pmids"))
    whole = small_release(tmp_path / "whole")
    (whole / "data" / "pretraining").rename(release / "data" / "pretraining")
    write_sums(release)
    findings = verify(release)
    assert {finding.what for finding in findings} == {What.LAYOUT}
    assert {finding.file for finding in findings} >= {TEXTS}


def test_a_data_file_that_is_missing_or_misnamed_is_found(release: Path) -> None:
    data = (release / TRAIN).rename(release / TRAIN.replace("00000-of-00001", "00001-of-00002"))
    assert f"should have {TRAIN}" in only(resigned(release), What.LAYOUT).found
    data.unlink()
    assert f"has no file of train, and should have {TRAIN}" in only(resigned(release), What.LAYOUT).found


def test_template_text_in_the_card_is_found(release: Path) -> None:
    card = release / "README.md"
    left = ["{{ facts.name }}", "[More Information Needed]", "TODO: write", "{% for split in splits %}"]
    lines = card.read_text().count("\n")
    card.write_text(card.read_text() + "\n".join(left))
    write_sums(release)
    marks = ["{{", "[More Information Needed]", "TODO", "{%"]
    assert [finding.found for finding in verify(release)] == [
        f"line {number} has {mark}" for number, mark in enumerate(marks, lines + 1)
    ]


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("README.md", b"config_name: pretraining", b"config_name: other", "no config pretraining"),
        ("README.md", b"mkailin-small-0123abcd", b"another", "does not say 'mkailin-small-0123abcd'"),
        ("README.md", b"---", b"\xff---", "cannot be read"),
        ("LICENSE", b"mkailin-small-0123abcd", b"another", "does not say 'mkailin-small-0123abcd'"),
        ("NOTICE", b"Not for clinical use.", b"", "does not say 'Not for clinical use.'"),
        ("NOTICE", b"U.S.", b"", "does not say 'courtesy of the U.S. National Library of Medicine'"),
    ],
)
def test_a_card_licence_or_notice_of_something_else_is_found(
    release: Path, name: str, old: bytes, new: bytes, told: str
) -> None:
    text = (release / name).read_bytes()
    assert old in text
    (release / name).write_bytes(text.replace(old, new))
    write_sums(release)
    finding = only(release, What.CARD)
    assert finding.file == name
    assert told in finding.found


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read"),
        ("[]", "has no distribution"),
        ('{"distribution": [1]}', "has no distribution"),
        ("[" * 100_000, "cannot be read"),
        (
            json.dumps({"distribution": [{"contentUrl": "gone", "sha256": ""}]}),
            "lists gone, which is not in the folder",
        ),
        (
            json.dumps({"distribution": [{"contentUrl": TRAIN, "sha256": "0"}]}),
            f"has another SHA-256 of {TRAIN} than the file",
        ),
    ],
)
def test_croissant_metadata_of_other_files_are_found(release: Path, content: str, told: str) -> None:
    (release / "croissant.json").write_text(content)
    write_sums(release)
    assert told in only(release, What.CROISSANT).found


@pytest.mark.parametrize("may_train", ["no", "ask"])
def test_text_of_a_model_without_licence_is_found_unless_an_exception_is_stated(
    tmp_path: Path, may_train: str
) -> None:
    questioner, *others = small_facts().models
    model = questioner.model_copy(update={"may_train": may_train})
    refused = small_facts(models=[model, *others])
    found = only(small_release(tmp_path / "refused", facts=refused), What.LICENCES).found
    assert model.name in found
    allowed = small_facts(models=[model.model_copy(update={"exception": "we asked"}), *others])
    assert not verify(small_release(tmp_path / "allowed", facts=allowed))


@pytest.mark.parametrize("change", [{"answerer": "a stranger"}, {"generator": ANSWERER}])
def test_a_model_that_wrote_and_is_not_in_the_manifest_for_it_is_found(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    ((_, model),) = change.items()
    assert f"by {model}" in only(small_release(tmp_path, changed(1, **change)), What.WRITERS).found


@pytest.mark.parametrize(
    ("name", "edit", "told"),
    [
        (TRAIN, lambda rows: rows.drop("language"), "language is absent"),
        (TRAIN, lambda rows: rows.with_columns(more=1), "more is none of its columns"),
        (TRAIN, lambda rows: rows.with_columns(pl.col("pmid").cast(pl.Int32)), "pmid is int32, not int64"),
        ("reports/taken_back.parquet", lambda rows: rows.drop("state"), "state is absent"),
        (
            "reports/coverage.parquet",
            lambda rows: rows.with_columns(pl.lit(1).alias("place")),
            "place is int32",
        ),
    ],
)
def test_a_table_with_other_columns_is_found(
    release: Path, name: str, edit: Callable[[pl.DataFrame], pl.DataFrame], told: str
) -> None:
    rows = edit(pl.read_parquet(release / name))
    pq.write_table(rows.to_arrow(), release / name, store_schema=False)
    finding = only(resigned(release), What.COLUMNS)
    assert finding.file == name
    assert told in finding.found


def test_the_order_of_columns_is_no_matter(release: Path) -> None:
    for name in (TRAIN, TEXTS, "reports/taken_back.parquet", "reports/exclusions.parquet"):
        table = pl.read_parquet(release / name)
        pq.write_table(table.select(reversed(table.columns)).to_arrow(), release / name, store_schema=False)
    assert not verify(resigned(release))


@pytest.mark.parametrize("name", [TRAIN, "reports/taken_back.parquet"])
@pytest.mark.parametrize("length", [0, 0.5, -1])
def test_a_table_cut_short_is_found(release: Path, name: str, length: float) -> None:
    kept = (release / name).read_bytes()
    (release / name).write_bytes(kept[: int(length * len(kept)) if length == 0.5 else int(length)])
    finding = only(resigned(release), What.COLUMNS)
    assert finding.file == name
    assert "is no Parquet file, or a damaged one" in finding.found


def test_text_that_is_no_utf_8_is_found(release: Path) -> None:
    table = pq.read_table(release / TRAIN)
    branches = pa.array([b"\xff\xfe"] * table.num_rows).view(pa.string())
    place = table.schema.get_field_index("branch")
    pq.write_table(table.set_column(place, "branch", branches), release / TRAIN, store_schema=False)
    finding = only(resigned(release), What.VALUES)
    assert finding.file == TRAIN
    assert "Invalid UTF8" in finding.found


def test_no_damage_to_a_table_is_more_than_a_finding(release: Path) -> None:
    generator = random.Random(0)
    for name in [TRAIN, TEXTS, "reports/exclusions.parquet", "reports/taken_back.parquet"]:
        kept = (release / name).read_bytes()
        for _ in range(3):
            damaged = bytearray(kept)
            for _ in range(generator.choice((1, 3, 30))):
                damaged[generator.randrange(len(kept))] = generator.randrange(256)
            (release / name).write_bytes(damaged)
            assert any(finding.file == name for finding in verify(release))
        (release / name).write_bytes(kept)
    assert not verify(release)


def test_reports_that_are_not_what_the_manifest_counts_are_found(tmp_path: Path) -> None:
    reports = small_reports()
    less = {
        "exclusions": reports["exclusions"].head(2),
        "decontamination": reports["decontamination"].clear(),
        "taken_back": reports["taken_back"].head(1),
        "benchmark_runs": reports["benchmark_runs"].clear(),
    }
    told = {
        "exclusions": "excluded: manifest.json says {'duplicate': {'asks the same as another PMID': 1}}, "
        "here is {}",
        "decontamination": "removed for benchmarks: manifest.json says {'a-benchmark.json': 1}, here is {}",
        "taken_back": "taken_back_citations: manifest.json says 2, here is 1",
        "benchmark_runs": "has no row, so that no leak of a benchmark can be found",
    }
    assert verify(small_release(tmp_path, **less)) == [
        Finding(What.REPORTS, f"reports/{name}.parquet", told[name]) for name in less
    ]


@pytest.mark.parametrize("change", [{"decision": "perhaps"}, {"toxicity": 1.5}, {"question": None}])
def test_a_value_that_is_none_is_found(tmp_path: Path, change: dict[str, Any]) -> None:
    (name,) = change
    assert (
        f"{name} is null or out of range"
        in only(small_release(tmp_path, changed(1, **change)), What.VALUES).found
    )


def test_an_example_that_is_there_twice_is_found(tmp_path: Path) -> None:
    twice = training_examples()["example_id"][0]
    assert twice in only(small_release(tmp_path, changed(30, example_id=twice)), What.KEYS).found


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"long_answer": "Another answer."}, "texts that the example_hash is not of"),
        ({"pretraining_text": "Another text."}, "texts that the example_hash is not of"),
        (
            {"messages": [{"role": "user", "content": "Anything"}]},
            "messages that do not follow from the texts",
        ),
    ],
)
def test_texts_that_are_not_those_of_the_example_are_found(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    findings = verify(small_release(tmp_path, changed(1, **change)))
    assert {finding.what for finding in findings} == {What.TEXTS}
    assert told in {finding.found.split(":")[0] for finding in findings}


@pytest.mark.parametrize(
    "edit",
    [
        lambda rows: rows.reverse(),
        lambda rows: rows.head(4),
        lambda rows: pl.concat([rows, rows.head(1)]),
    ],
)
def test_texts_to_pretrain_on_that_are_not_of_the_same_examples_are_found(
    release: Path, edit: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    rows = edit(pl.read_parquet(release / TEXTS))
    pq.write_table(rows.to_arrow(), release / TEXTS, store_schema=False)
    assert only(resigned(release), What.TEXTS).file == "data/pretraining/train"


def test_an_example_in_another_split_than_its_citation_is_found(tmp_path: Path) -> None:
    rows = training_examples(*(example(pmid) for pmid in (1, 2, 5)), example(7, split="validation"))
    finding = only(small_release(tmp_path, rows), What.SPLITS)
    assert finding.file == "data/instruction/validation-00000-of-00001.parquet"
    assert finding.found.endswith("of PMID 7 belongs to test")


def test_a_held_out_citation_shown_in_training_is_found(tmp_path: Path) -> None:
    rows = training_examples(example(1, context_pmids=[HELD_OUT]), example(5, context_pmids=[HELD_OUT]))
    finding = only(small_release(tmp_path, rows), What.HELD_OUT)
    assert finding.file == TRAIN
    assert finding.found.endswith(f"shows PMID {HELD_OUT} of test")


@pytest.mark.parametrize(
    "change",
    [
        {"question": BENCHMARK_QUESTION.lower()},
        {"context_pmids": [900_001]},
        {"made_of": [{"use": "context", "pmid": 900_001, "content_hash": "read by the answerer alone"}]},
        {"source_context": f"We asked ourselves: {BENCHMARK_QUESTION} It was not clear."},
    ],
)
def test_an_example_that_gives_a_benchmark_away_is_found(tmp_path: Path, change: dict[str, Any]) -> None:
    rows = training_examples(example(1), example(5, **change))
    found = only(small_release(tmp_path, rows), What.BENCHMARKS).found
    assert "of a-benchmark.json, item 17" in found


TAKEN = pl.DataFrame([(5003, "retracted", "pubmed26n1335")], schema=TAKEN_BACK, orient="row")


@pytest.mark.parametrize(
    "pmid", [1, pytest.param(5003, id="context"), pytest.param(77, id="read by the answerer alone")]
)
def test_a_retracted_source_or_context_is_found(tmp_path: Path, pmid: int) -> None:
    made_of = [{"use": "context", "pmid": 77, "content_hash": "a"}]
    rows = training_examples(example(1, context_pmids=[5003], made_of=made_of), example(5))
    taken_back = TAKEN.with_columns(pmid=pl.lit(pmid, pl.Int64))
    release = small_release(tmp_path, rows, small_facts(rows, taken_back_citations=1), taken_back=taken_back)
    told = f"rests on PMID {pmid}, retracted by pubmed26n1335"
    assert told in only(release, What.RETRACTIONS).found


def test_a_retraction_after_the_release_is_found_with_a_newer_state(release: Path) -> None:
    newer = TAKEN.with_columns(pmid=pl.lit(1, pl.Int64))
    assert "rests on PMID 1, retracted" in only(release, What.RETRACTIONS, newer).found


def test_a_manifest_that_counts_otherwise_is_found(tmp_path: Path) -> None:
    otherwise: dict[str, Any] = {
        "rows": 10,
        "by_split": {"train": 5, "validation": 1, "test": 3},
        "by_decision": {"yes": 9},
        "by_branch": {"C04": 9},
        "citations": 8,
        "context_citations": 5,
        "corpus": "another",
        "copied_answers": 1,
        "signals": {},
    }
    release = small_release(tmp_path, facts=small_facts().model_copy(update=otherwise))
    findings = verify(release)
    assert {(finding.what, finding.file) for finding in findings} == {(What.COUNTS, MANIFEST)}
    assert sorted(finding.found.split(":")[0] for finding in findings) == sorted(otherwise)


def test_many_faults_of_a_kind_are_one_finding_that_counts_them(tmp_path: Path) -> None:
    rows = training_examples().with_columns(split=pl.lit("test"))
    found = only(small_release(tmp_path, rows), What.SPLITS).found
    assert found.count("belongs to") == 3
    assert found.endswith("; and 4 more")


def test_examples_of_more_than_one_batch_are_all_looked_at(tmp_path: Path) -> None:
    one = training_examples(example(1))
    ids = [f"{at:032x}" for at in range(4500)]
    rows = pl.concat([one] * len(ids)).with_columns(example_id=pl.Series(ids))
    last = pl.col("example_id") == ids[-1]
    rows = rows.with_columns(long_answer=pl.when(last).then(pl.lit("Other.")).otherwise("long_answer"))
    findings = verify(small_release(tmp_path, rows))
    assert {finding.what for finding in findings} == {What.TEXTS}
    assert {finding.found.split(": ")[1] for finding in findings} == {ids[-1]}


def test_texts_that_go_on_after_the_last_example_are_found(tmp_path: Path) -> None:
    rows = pl.concat([training_examples(example(1))] * ROWS_AT_ONCE)
    rows = rows.with_columns(example_id=pl.Series([f"{at:032x}" for at in range(rows.height)]))
    release = small_release(tmp_path, rows)
    texts = pl.read_parquet(release / TEXTS)
    more = pl.concat([texts, texts.head(1)]).to_arrow()
    pq.write_table(more, release / TEXTS, store_schema=False)
    assert only(resigned(release), What.TEXTS).found == "has more examples than instruction"


def test_newer_states_are_read_from_a_storage_a_folder_or_a_file(tmp_path: Path) -> None:
    states = current(qa(1), qa(2, state="retracted"), qa(3, state="deleted"))
    Storage(root=str(tmp_path)).write_table(states, "current_citations")
    for path in (tmp_path, tmp_path / "tables", tmp_path / "tables" / "current_citations.parquet"):
        assert taken_back_at(path).rows() == [
            (2, "retracted", "pubmed26n0001"),
            (3, "deleted", "pubmed26n0001"),
        ]


def test_the_command_says_what_it_looked_at(release: Path) -> None:
    command = [sys.executable, "-m", "mkailin_assets.release.verify", str(release)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *made, verdict = done.stdout.splitlines()
    assert [line.split(": ")[0] for line in made] == [f"ok    {what}" for what in What]
    assert verdict == f"{release}: all right"


def test_the_command_names_what_is_wrong_and_fails(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (release / "NOTICE").open("a") as notice:
        notice.write("More.\n")
    assert main([str(release)]) == 1
    told = capsys.readouterr().out
    assert "WRONG files are as SHA256SUMS says" in told
    assert "      NOTICE: has been changed" in told
    assert "1 finding; do not train on it" in told


@pytest.mark.parametrize(
    "arguments", [[], ["--current", "gone", "RELEASE"], ["--current", "RELEASE", "RELEASE"], ["a", "b"]]
)
def test_a_wrong_call_is_told_from_a_wrong_release(
    release: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(release) if one == "RELEASE" else one for one in arguments]
    try:
        status: Any = main(given)
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert capsys.readouterr().err
