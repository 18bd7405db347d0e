"""Croissant metadata of a release: mlcroissant finds nothing wrong with it, and reads the rows through it."""

import json
import logging
import socket
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import mlcroissant
import polars as pl
import pytest
from small_release import small_facts, training_examples

from mkailin_assets.release.croissant import CROISSANT, croissant, issues
from mkailin_assets.release.facts import Form, ReleaseFacts, SourceFile
from mkailin_assets.release.forms import configs_of, instruction_rows, pretraining_rows, schema_of
from mkailin_assets.release.layout import write_reports, write_rows

ROWS = training_examples()
# A float of 32 bits or a cut integer would not come back as it was.
ODD = {
    "mesh_score": 0.1 + 0.2,
    "mesh_margin": None,
    "source_rank": None,
    "personal_data": ["e-mail address", "näme|x"],
    "toxicity": 1e-12,
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("nothing is looked up on the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def release(folder: Path, rows: pl.DataFrame, facts: ReleaseFacts, **layout: Any) -> Path:
    write_rows([rows], folder, facts.form, **layout)
    write_reports(folder, {"coverage": pl.DataFrame({"level": ["branch"]})}, b"a picture")
    (folder / CROISSANT).write_text(croissant(facts, folder), encoding="utf-8")
    return folder


def odd_rows() -> pl.DataFrame:
    schema = ROWS.schema
    odd = [pl.Series(name, [value], dtype=schema[name]) for name, value in ODD.items()]
    return pl.concat([ROWS.head(1).with_columns(odd), ROWS.tail(-1)])


@pytest.fixture(scope="module", params=["full", "pmids"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    form: Form = request.param
    return release(tmp_path_factory.mktemp(form), odd_rows(), small_facts(form=form))


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / CROISSANT).read_text(encoding="utf-8"))
    return found


def plain(value: Any) -> Any:
    """What mlcroissant reads as polars has it: there, text is bytes, and parts of structs have long names."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {key.rsplit("/", maxsplit=1)[-1]: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value.item() if hasattr(value, "item") else value


def records(folder: Path, config: str, split: str | None = None) -> Iterator[dict[str, Any]]:
    dataset = mlcroissant.Dataset(jsonld=str(folder / CROISSANT))
    filters = {f"{config}/split": split} if split else None
    return (plain(record) for record in dataset.records(config, filters=filters))


def form_of(folder: Path) -> Form:
    return "full" if (folder / "data" / "pretraining").is_dir() else "pmids"


def test_mlcroissant_finds_no_error_and_no_warning(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert issues(made) == []
    assert caplog.messages == []


def test_mlcroissant_knows_it_for_version_1_1(made: Path) -> None:
    assert mlcroissant.Dataset(jsonld=str(made / CROISSANT)).metadata.ctx.is_v1_1()
    assert document(made)["conformsTo"] == [
        "http://mlcommons.org/croissant/1.1",
        "http://mlcommons.org/croissant/RAI/1.0",
    ]


def test_every_row_is_read_as_it_is_in_parquet(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    form = form_of(made)
    expected = {
        "instruction": instruction_rows(odd_rows(), form),
        "pretraining": pretraining_rows(odd_rows()),
    }
    for config in configs_of(form):
        with caplog.at_level(logging.WARNING):
            found = list(records(made, config))
        rows = expected[config].with_columns(odd_rows()["split"]).to_dicts()
        assert sorted(found, key=lambda row: row["pmid"]) == sorted(rows, key=lambda row: row["pmid"])
    assert caplog.messages == []


def test_a_split_is_read_alone(made: Path) -> None:
    for split in ("train", "test"):
        found = {row["pmid"] for row in records(made, "instruction", split)}
        assert found == set(ROWS.filter(split=split)["pmid"])


def test_fields_are_the_columns_with_their_types(made: Path) -> None:
    form = form_of(made)
    sets = {one["@id"]: one for one in document(made)["recordSet"]}
    assert list(sets) == ["splits", *configs_of(form)]
    for config in configs_of(form):
        split, *fields = sets[config]["field"]
        assert split["references"] == {"field": {"@id": "splits/name"}}
        assert [field["name"] for field in fields] == schema_of(config, form).names()
        for field, kind in zip(fields, schema_of(config, form).dtypes(), strict=True):
            assert field["description"]
            assert field.get("isArray", False) == isinstance(kind, pl.List)
            assert ("subField" in field) == (isinstance(kind, pl.List) and isinstance(kind.inner, pl.Struct))
    pmid = next(field for field in sets["instruction"]["field"] if field["name"] == "pmid")
    assert (pmid["dataType"], pmid["description"]) == ("cr:Int64", "Source citation")
    assert sets["splits"]["dataType"] == "cr:Split"
    assert sets["instruction"]["annotation"]["value"] == ROWS.height


def test_each_file_is_there_with_its_hash_and_size(made: Path) -> None:
    listed = {one["@id"]: one for one in document(made)["distribution"] if one["@type"] == "cr:FileObject"}
    there = {
        path.relative_to(made).as_posix(): path.read_bytes()
        for room in ("data", "reports")
        for path in (made / room).rglob("*")
        if path.is_file()
    }
    assert {name: one["sha256"] for name, one in listed.items()} == {
        name: sha256(content).hexdigest() for name, content in there.items()
    }
    assert {name: one["contentSize"] for name, one in listed.items()} == {
        name: f"{len(content)} B" for name, content in there.items()
    }
    assert {one["encodingFormat"] for one in listed.values()} == {"application/x-parquet", "image/png"}


def test_mlcroissant_understands_all_that_is_said(made: Path) -> None:
    def alike(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: alike(part) for key, part in value.items() if key != "@context"}
        if isinstance(value, list):
            return alike(value[0]) if len(value) == 1 else [alike(part) for part in value]
        return str(value)

    said = document(made)
    read_back = mlcroissant.Dataset(jsonld=str(made / CROISSANT)).metadata.to_json()
    of_said, of_read = alike(said), alike(read_back)
    of_said["datePublished"] = of_read["datePublished"] = of_read["datePublished"].removesuffix("T00:00:00")
    assert of_read == of_said
    assert of_said["datePublished"] == said["datePublished"]


def test_it_says_whose_data_it_is_what_it_is_not_for_and_where_it_comes_from(made: Path) -> None:
    said = document(made)
    facts = small_facts()
    assert "Not for clinical use." in said["description"]
    assert "Not for clinical use." in said["rai:dataUseCases"]
    assert "courtesy of the U.S. National Library of Medicine" in said["citeAs"]
    assert "up to pubmed26n1335 of 2026-11-18" in said["rai:dataCollectionRawData"]
    assert said["prov:wasDerivedFrom"][1]["sha256"] == facts.mesh.digest
    agents = said["prov:wasGeneratedBy"]["prov:wasAssociatedWith"]
    assert [agent["prov:label"].split(" ")[0] for agent in agents] == [model.name for model in facts.models]
    assert said["version"] == f"1.0.0+{facts.corpus}"
    question = next(field for field in said["recordSet"][1]["field"] if field["name"] == "question")
    assert question["annotation"]["equivalentProperty"] == "prov:wasAttributedTo"
    assert question["annotation"]["source"]["extract"] == {"column": "generator"}
    urls = [one if isinstance(one, str) else one["url"] for one in said["license"]]
    cc_by = "https://creativecommons.org/licenses/by/4.0/"
    assert urls == ([cc_by, "LICENSE"] if form_of(made) == "full" else [cc_by])


def test_rows_of_many_files_are_read_from_all(tmp_path: Path) -> None:
    many = pl.concat(
        [
            ROWS.with_columns(pl.format("{}-{}", "example_id", pl.lit(copy)).alias("example_id"))
            for copy in range(250)
        ]
    )
    folder = release(tmp_path, many, small_facts(many), bytes_a_file=100_000)
    assert len(list((folder / "data/pretraining").glob("train-*"))) > 1
    found = [row["example_id"] for row in records(folder, "pretraining")]
    assert sorted(found) == sorted(many["example_id"])


def test_a_split_without_rows_is_not_among_the_splits(tmp_path: Path) -> None:
    rows = ROWS.filter(pl.col("split") != "test")
    folder = release(tmp_path, rows, small_facts(rows))
    assert [one["splits/name"] for one in document(folder)["recordSet"][0]["data"]] == ["train", "validation"]
    assert issues(folder) == []
    assert len(list(records(folder, "instruction"))) == rows.height


def test_whatever_names_hold_is_text(tmp_path: Path) -> None:
    hostile = 'a "b" \\ {x} @id:c\n<d> 😀 | http://example.org/?q=1&r=2'
    facts = small_facts()
    models = [model.model_copy(update={"name": hostile, "licence": hostile}) for model in facts.models]
    mesh = SourceFile(name=hostile, url=hostile, algorithm="sha256", digest="0" * 64)
    changes = {"name": hostile, "models": models, "mesh": mesh, "last_update_file": hostile}
    folder = release(tmp_path, ROWS, facts.model_copy(update=changes))
    assert issues(folder) == []
    assert mlcroissant.Dataset(jsonld=str(folder / CROISSANT)).metadata.name == hostile


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"distribution": []}, "instruction-files"),
        ({"version": "newest"}, "MAJOR.MINOR.PATCH"),
        ({"license": None}, "license"),
    ],
)
def test_what_is_wrong_is_told(made: Path, tmp_path: Path, broken: dict[str, Any], said: str) -> None:
    (tmp_path / CROISSANT).write_text(json.dumps(document(made) | broken), encoding="utf-8")
    assert said in " ".join(issues(tmp_path))
