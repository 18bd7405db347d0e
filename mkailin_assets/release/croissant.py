"""Croissant 1.1 metadata of a release, croissant.json (specification of 2026-01-29).

Written as the JSON-LD that the specification shows. mlcroissant's classes say the same in more words, each in
need of a context of version 1.1, and know no provenance; `issues` lets mlcroissant judge what is written.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from mkailin_assets.release.card import column_descriptions, limits, splits_of, summary
from mkailin_assets.release.facts import ReleaseFacts
from mkailin_assets.release.forms import configs_of, schema_of
from mkailin_assets.release.notice import (
    CC_BY,
    COURTESY,
    NOT_CLINICAL,
    file_ranges,
    is_cc_by,
    taken_back_until,
)
from mkailin_resources.training_checkpoints import sha256

CROISSANT = "croissant.json"
CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
# Appendix 1 of the specification; path, repeated, replace and samplingRate, which mlcroissant misses else.
_TERMS = """annotation arrayShape citeAs column containedIn equivalentProperty excludes extract field
    fileObject fileProperty fileSet format includes isArray isLiveDataset jsonPath key md5 parentField path
    readLines recordSet references regex repeated replace samplingRate sdVersion separator source subField
    transform unArchive value""".split()
_CONTEXT = {
    "@language": "en",
    # The specification prints http, mlcroissant and the data sets that are published write https.
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}
_TYPES: dict[type[pl.DataType], str] = {
    pl.Boolean: "sc:Boolean",
    pl.Float64: "cr:Float64",
    pl.Int32: "cr:Int32",
    pl.Int64: "cr:Int64",
    pl.String: "sc:Text",
}
_FORMATS = {".parquet": "application/x-parquet", ".png": "image/png"}
_SPLITS = {"train": "cr:TrainingSplit", "validation": "cr:ValidationSplit", "test": "cr:TestSplit"}
# Which column says, row by row, who wrote another.
_WRITERS = {"question": "generator", "long_answer": "answerer", "answer_parts": "answerer"}


def croissant(facts: ReleaseFacts, folder: Path) -> str:
    """The JSON-LD of a release whose data and reports lie in the folder; hashes them."""
    configs = configs_of(facts.form)
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": facts.name,
        "description": f"{summary(facts)} {NOT_CLINICAL}",
        "conformsTo": CONFORMS_TO,
        "url": "README.md",
        "license": [CC_BY, *([] if is_cc_by(facts) else [_licence_file()])],
        "usageInfo": {"@type": "sc:CreativeWork", "name": NOT_CLINICAL, "url": "README.md"},
        "creator": {"@type": "sc:Organization", "name": "m-KAILIN"},
        "datePublished": facts.made_on,
        # A release is never changed: another one has another name, and the corpus says whether it differs.
        "version": f"1.0.0+{facts.corpus}",
        "inLanguage": "en",
        "keywords": ["biomedical question answering", "PubMed", "MeSH", "synthetic data"],
        "citeAs": f"{facts.name}, {facts.made_on}: corpus {facts.corpus}, made by m-KAILIN (arXiv "
        f"2504.19565) from PubMed and MeSH {facts.mesh_year}, {COURTESY}",
        **_responsible(facts),
        **_provenance(facts),
        "distribution": [*_files(folder), *map(_file_set, configs)],
        "recordSet": [_splits(facts), *(_record_set(config, facts) for config in configs)],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def issues(folder: Path) -> list[str]:
    """What mlcroissant finds wrong with croissant.json of a release, errors before warnings."""
    from mlcroissant import Dataset, ValidationError

    try:
        found = Dataset(jsonld=str(folder / CROISSANT)).metadata.ctx.issues
    except ValidationError as error:
        return [str(error)]
    return [*sorted(found.errors), *sorted(found.warnings)]


def _licence_file() -> dict[str, str]:
    return {"@type": "sc:CreativeWork", "name": "CC BY 4.0 and terms of others", "url": "LICENSE"}


def _responsible(facts: ReleaseFacts) -> dict[str, Any]:
    """What Croissant RAI 1.0 asks about, as far as there is an answer."""
    benchmarks = ", ".join(benchmark.file.name for benchmark in facts.benchmarks)
    return {
        "rai:dataCollection": "Citations with abstracts from PubMed's files; questions and answers written "
        "about them by software, in the steps that README.md has.",
        "rai:dataCollectionType": ["Secondary Data analysis", "Software Collection"],
        "rai:dataCollectionRawData": f"PubMed ({', '.join(file_ranges(facts))}) and MeSH {facts.mesh_year}, "
        f"{COURTESY}. {taken_back_until(facts)}",
        "rai:dataPreprocessingProtocol": [
            "Each question-answer pair is measured, and kept or not by rules; README.md has both.",
            "Near-duplicates over all branches of MeSH are removed.",
            *(
                [f"Pairs that would give these benchmarks away are removed: {benchmarks}."]
                if benchmarks
                else []
            ),
            "The split is decided by the PMID of the source citation.",
        ],
        "rai:dataAnnotationProtocol": "Decisions (yes, no, maybe) and quality signals are given by software: "
        "the column decision, and those that README.md lists as signals.",
        "rai:annotationsPerItem": "No human labels",
        "rai:machineAnnotationTools": sorted({model.name for model in facts.models}),
        "rai:dataUseCases": [
            "Training and studying language models for biomedical question answering: continued "
            "pre-training, instruction tuning, development.",
            NOT_CLINICAL,
        ],
        "rai:dataLimitations": limits(facts),
        "rai:dataBiases": [
            "Over- and under-represents fields of medicine as PubMed, its English abstracts and the branches "
            "chosen do: reports/coverage.parquet compares it with PubMed.",
            "Repeats what abstracts claim, with their bias towards positive findings.",
        ],
        "rai:personalSensitiveInformation": [
            "Published abstracts, which describe patients and may describe single ones. Personal data that "
            "were recognised in questions and answers are named in the column personal_data.",
        ],
        "rai:dataReleaseMaintenancePlan": "A release is never changed. What PubMed retracts after it leaves "
        "the next one, whose reports/recalls.parquet names the rows that it touches.",
    }


def _provenance(facts: ReleaseFacts) -> dict[str, Any]:
    """Where it comes from and what made it, in PROV-O."""
    agents = [
        {
            "@type": "prov:SoftwareAgent",
            "prov:label": f"{model.name} ({'wrote' if model.wrote else 'judged'} {model.role}s, "
            f"{model.licence})",
        }
        for model in facts.models
    ]
    return {
        "prov:wasDerivedFrom": [
            {
                "@type": "prov:Entity",
                "prov:label": f"PubMed, {', '.join(file_ranges(facts))}",
                "url": "https://pubmed.ncbi.nlm.nih.gov/",
            },
            {
                "@type": "prov:Entity",
                "prov:label": f"MeSH {facts.mesh_year}, {facts.mesh.name}",
                "sha256": facts.mesh.digest,
                "url": facts.mesh.url or "https://www.nlm.nih.gov/mesh/",
            },
        ],
        "prov:wasGeneratedBy": {
            "@type": "prov:Activity",
            "prov:label": f"m-KAILIN, corpus {facts.corpus}: see manifest.json",
            "prov:wasAssociatedWith": agents,
        },
    }


def _files(folder: Path) -> Iterator[dict[str, str]]:
    """The data and report files that there are, with their hashes."""
    for path in sorted(path for room in ("data", "reports") for path in (folder / room).rglob("*")):
        if path.suffix in _FORMATS:
            name = path.relative_to(folder).as_posix()
            yield {
                "@type": "cr:FileObject",
                "@id": name,
                "name": path.name,
                "contentUrl": name,
                "contentSize": f"{path.stat().st_size} B",
                "encodingFormat": _FORMATS[path.suffix],
                "sha256": sha256(path),
            }


def _file_set(config: str) -> dict[str, str]:
    """All files of a config: mlcroissant reads records from a set, one file or many."""
    return {
        "@type": "cr:FileSet",
        "@id": _set_of(config),
        "name": _set_of(config),
        "description": f"Parquet files of the config {config}",
        "encodingFormat": _FORMATS[".parquet"],
        "includes": f"data/{config}/*.parquet",
    }


def _splits(facts: ReleaseFacts) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": "Splits, by the PMID of the source citation",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            {"@type": "cr:Field", "@id": "splits/name", "name": "name", "dataType": "sc:Text"},
            {"@type": "cr:Field", "@id": "splits/url", "name": "url", "dataType": "sc:URL"},
        ],
        "data": [{"splits/name": name, "splits/url": _SPLITS[name]} for name in splits_of(facts)],
    }


def _record_set(config: str, facts: ReleaseFacts) -> dict[str, Any]:
    described = column_descriptions(config, facts.form)
    kinds = schema_of(config, facts.form)
    return {
        "@type": "cr:RecordSet",
        "@id": config,
        "name": config,
        "description": f"Rows of the config {config}",
        "key": {"@id": f"{config}/example_id"},
        "annotation": {
            "@type": "cr:Field",
            "@id": f"{config}/count",
            "name": "count",
            "description": "Number of rows",
            "dataType": ["sc:Integer", "http://www.wikidata.org/entity/Q4049983"],
            "value": facts.rows,
        },
        "field": [
            _split_field(config),
            *(_field(config, name, kinds[name], described) for name in kinds),
        ],
    }


def _split_field(config: str) -> dict[str, Any]:
    """The split, which stands in the name of the file."""
    return {
        "@type": "cr:Field",
        "@id": f"{config}/split",
        "name": "split",
        "description": "Split, from the name of the file",
        "dataType": "sc:Text",
        "references": {"field": {"@id": "splits/name"}},
        "source": {
            "fileSet": {"@id": _set_of(config)},
            "extract": {"fileProperty": "fullpath"},
            # The second time mlcroissant asks, it asks what was found the first time.
            "transform": {"regex": rf"^(?:data/{config}/)?({'|'.join(_SPLITS)})(?:-.*)?$"},
        },
    }


def _field(config: str, name: str, kind: Any, described: Mapping[str, str]) -> dict[str, Any]:
    """A column: a list is an array, a struct has sub-fields."""
    field: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{config}/{name}",
        "name": name,
        "description": described[name],
    }
    if isinstance(kind, pl.List):
        field["isArray"] = True
        kind = kind.inner
    if isinstance(kind, pl.Struct):
        field["subField"] = [
            {
                "@type": "cr:Field",
                "@id": f"{config}/{name}/{part.name}",
                "name": part.name,
                **_typed(config, name, part.dtype),
            }
            for part in kind.fields
        ]
        for part in field["subField"]:
            part["source"]["transform"] = {"jsonPath": part["name"]}
    else:
        field |= _typed(config, name, kind)
    if writer := _WRITERS.get(name):
        field["annotation"] = {
            "@type": "cr:Field",
            "@id": f"{config}/{name}/writer",
            "name": "writer",
            "description": described[writer],
            "equivalentProperty": "prov:wasAttributedTo",
            **_typed(config, writer, pl.String()),
        }
    return field


def _typed(config: str, column: str, kind: Any) -> dict[str, Any]:
    source = {"fileSet": {"@id": _set_of(config)}, "extract": {"column": column}}
    return {"dataType": _TYPES[kind.base_type()], "source": source}


def _set_of(config: str) -> str:
    return f"{config}-files"
