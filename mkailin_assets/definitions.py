"""The code location: every asset, check, job and resource of m-KAILIN."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
from pydantic import BaseModel, ValidationError

from mkailin_assets.ablation import assets as ablation_assets
from mkailin_assets.ablation import checks as ablation_checks
from mkailin_assets.automation import daily, fill_thinnest_branches, jobs
from mkailin_assets.corpus import assets as corpus_assets
from mkailin_assets.corpus import checks as corpus_checks
from mkailin_assets.corpus.assembly import CorpusRules
from mkailin_assets.corpus.quality import QualityRules
from mkailin_assets.evaluation import assets as evaluation_assets
from mkailin_assets.evaluation import checks as evaluation_checks
from mkailin_assets.evaluation.judgements import BEIR_FILES
from mkailin_assets.evaluation.rules import EvaluationRules
from mkailin_assets.generations import prune_generations
from mkailin_assets.mesh import assets as mesh_assets
from mkailin_assets.mesh import checks as mesh_checks
from mkailin_assets.preferences import assets as preference_assets
from mkailin_assets.preferences import checks as preference_checks
from mkailin_assets.preferences.cold_start import ColdStartRules
from mkailin_assets.progress import progress_logger
from mkailin_assets.pubmed import assets as pubmed_assets
from mkailin_assets.pubmed import checks as pubmed_checks
from mkailin_assets.questions import assets as question_assets
from mkailin_assets.questions import checks as question_checks
from mkailin_assets.release import assets as release_assets
from mkailin_assets.release import checks as release_checks
from mkailin_assets.release.gathering import Publication
from mkailin_assets.release.publishing import publish_release
from mkailin_assets.retrieval import assets as retrieval_assets
from mkailin_assets.retrieval import checks as retrieval_checks
from mkailin_assets.training import assets as training_assets
from mkailin_assets.training import checks as training_checks
from mkailin_assets.training.recipes import NoRecipe, Recipe, recipe_of
from mkailin_resources.embeddings.interface import EncoderSettings
from mkailin_resources.models.interface import TextGenerator
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.profiles import ENTAILMENT_MODEL, InvalidSetting, Settings, resources, told_of
from mkailin_resources.trainees import Trainees

ASSET_MODULES = [
    mesh_assets,
    pubmed_assets,
    retrieval_assets,
    question_assets,
    preference_assets,
    corpus_assets,
    release_assets,
    training_assets,
    evaluation_assets,
    ablation_assets,
]
CHECK_MODULES = [
    mesh_checks,
    pubmed_checks,
    retrieval_checks,
    question_checks,
    preference_checks,
    corpus_checks,
    release_checks,
    training_checks,
    evaluation_checks,
    ablation_checks,
]


def code_versions(settings: Settings, handed_in: Mapping[str, Any]) -> dict[str, str]:
    """What settings add to an asset's code version, so that a changed setting shows as out of date."""
    pubmedqa = f"benchmark={_content(settings.pubmedqa)}"
    others = map(_files, (settings.retrieval_benchmark, *settings.other_benchmarks))
    benchmark = " ".join([pubmedqa, *filter(None, others)])
    answerer = _model("answer_model", handed_in)
    trainees: Trainees = handed_in["trainees"]
    judge: TextGenerator | None = handed_in[ENTAILMENT_MODEL]
    tokenizer = ModelName.parse(settings.tokenizer).version() if settings.tokenizer else "corpus"
    exceptions = json.dumps(dict(settings.licence_exceptions), sort_keys=True)
    judged_by = judge.version if judge else "no judge"
    rules: ColdStartRules = handed_in["mesh_rules"]
    recipe = f"recipe={json.dumps(handed_in['recipe'].model_dump(), sort_keys=True)}"
    scored = f"mesh={rules.score_version()}"
    taught = f"mesh={rules.version()}"
    found = f"{scored} retriever={settings.retriever}"
    generators = f"{trainees.version('domain')} {trainees.version('general')}"
    judged = f"retrieval={_judgements(settings.retrieval_benchmark)}"
    kept_out = "" if settings.encoder.tuning is None else f" {benchmark} {judged}"
    return {
        "mesh_release": f"mesh={settings.mesh_year} nlm={settings.nlm_url}",
        "raw_pubmed": f"nlm={settings.nlm_url}",
        "retriever_checkpoint": f"encoder={_encoder(settings.encoder)}{kept_out}",
        "candidate_contexts": f"retriever={settings.retriever}",
        "question_exemplars": f"{benchmark} bioasq={_files(settings.bioasq)}",
        "domain_generator": f"{trainees.version('domain')} {_model('domain_model', handed_in)} {scored}",
        "general_generator": f"{trainees.version('general')} {_model('general_model', handed_in)} {scored}",
        "candidate_questions": f"{_model('domain_model', handed_in)} {_model('general_model', handed_in)}",
        "cold_start_preferences": taught,
        "evaluator_checkpoint": f"{trainees.evaluator_version()} {taught} {benchmark}",
        "preferred_generator": f"{generators} {taught} {benchmark}",
        "question_champion": f"{generators} {scored}",
        "distilled_contexts": found,
        "evaluator_audit": f"{pubmedqa} {trainees.evaluator_version()} {found}",
        "generated_qa": answerer,
        "evaluated_qa": f"{_told(handed_in['quality_rules'])} {scored} {judged_by}",
        "training_corpus": f"{benchmark} {_told(handed_in['corpus_rules'])}",
        "corpus_exclusions": f"{benchmark} {_told(handed_in['corpus_rules'])}",
        "corpus_lengths": f"tokenizer={tokenizer}",
        "corpus_release": f"form={settings.release_form} exceptions={exceptions}",
        "retrieval_report": f"{pubmedqa} {judged} retriever={settings.retriever}",
        "pretrained_checkpoint": recipe,
        "finetuned_checkpoint": recipe,
        "benchmark_answers": f"{benchmark} {answerer} {_asking(handed_in)}",
        "benchmark_report": benchmark,
        "benchmark_comparisons": benchmark,
        "ablated_corpus": f"{benchmark} {answerer} {_told(handed_in['corpus_rules'])} "
        f"{_told(handed_in['quality_rules'])} {scored} {judged_by}",
        "ablated_checkpoint": recipe,
        "ablation_report": f"{benchmark} {_asking(handed_in)}",
    }


Rules = TypeVar("Rules", bound=BaseModel)


def _rules(kind: type[Rules], variable: str, given: Mapping[str, Any]) -> Rules:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        fault = error.errors()[0]
        raise InvalidSetting(
            f"MKAILIN_{variable}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}; it may set "
            f"{', '.join(kind.model_fields)}"
        ) from error


def _all_rules(settings: Settings) -> dict[str, BaseModel]:
    """What a person may set of how questions are scored, pairs judged, corpus assembled and models asked."""
    return {
        "mesh_rules": _rules(ColdStartRules, "MESH_RULES", settings.mesh_rules),
        "quality_rules": _rules(QualityRules, "QUALITY_RULES", settings.quality_rules),
        "corpus_rules": _rules(CorpusRules, "CORPUS_RULES", settings.corpus_rules),
        "evaluation_rules": _rules(EvaluationRules, "EVALUATION_RULES", settings.evaluation_rules),
    }


def _recipe(settings: Settings) -> Recipe:
    try:
        return recipe_of(settings.recipe)
    except NoRecipe as error:
        raise InvalidSetting(f"MKAILIN_RECIPE: {error}") from error


def _told(rules: BaseModel) -> str:
    """Rules as far as they are not the defaults."""
    changed = rules.model_dump(exclude_defaults=True)
    return f"rules={json.dumps(changed, sort_keys=True)}"


def _asking(handed_in: Mapping[str, Any]) -> str:
    """How models are asked the questions of benchmarks."""
    rules: EvaluationRules = handed_in["evaluation_rules"]
    arguments = handed_in["vllm_arguments"] if rules.engine == "vllm" else {}
    return " ".join([_told(rules), *(json.dumps(one, sort_keys=True) for one in [arguments] if one)])


def _encoder(encoder: EncoderSettings) -> str:
    tuning = "" if encoder.tuning is None else f"tuned {json.dumps(encoder.tuning, sort_keys=True)}"
    return "/".join(filter(None, (encoder.name, encoder.query_name, encoder.pooling, tuning)))


def _judgements(folder: str) -> str:
    return _files(folder, *(Path(folder, name) for name in BEIR_FILES))


def _files(place: str, *files: Path) -> str:
    """The place, with sizes and times of its files: changes when they do; reads none."""
    if not place:  # which would be the folder that the process runs in
        return ""
    files = files or (Path(place), *sorted(Path(place).rglob("*")))
    facts = [(path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.is_file()]
    return f"{place} {hashlib.sha256(repr(facts).encode()).hexdigest()[:12]}"


def _model(key: str, handed_in: Mapping[str, Any]) -> str:
    model: TextGenerator = handed_in[key]
    return model.version


def _content(path: str) -> str:
    file = Path(path)
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.is_file() else path


def definitions(settings: Settings) -> dg.Definitions:
    """The code location under these settings."""
    rules = _all_rules(settings)
    publication = Publication(
        form=settings.release_form,
        exceptions=settings.licence_exceptions,
        rules={name.removesuffix("_rules"): one.model_dump(mode="json") for name, one in rules.items()},
        settings=told_of(settings),
    )
    handed_in = {
        **resources(settings),
        **rules,
        "publication": publication,
        "recipe": _recipe(settings),
    }
    added = code_versions(settings, handed_in)

    assets = [
        asset
        for asset in dg.load_assets_from_modules(ASSET_MODULES)
        if isinstance(asset, dg.AssetsDefinition)
    ]

    def with_settings(spec: dg.AssetSpec) -> dg.AssetSpec:
        name = spec.key.to_user_string()
        if name not in added:
            return spec
        return spec.replace_attributes(code_version=f"{spec.code_version} {added[name]}")

    sensors, schedules = daily(settings.schedule, follows_nlm=settings.follows_nlm)
    return dg.Definitions(
        assets=dg.map_asset_specs(with_settings, assets),
        asset_checks=dg.load_asset_checks_from_modules(CHECK_MODULES),
        jobs=[*jobs, prune_generations, publish_release],
        sensors=[*sensors, fill_thinnest_branches],
        schedules=schedules,
        resources=handed_in,
        loggers={"progress": progress_logger},
        executor=dg.in_process_executor,
    )


defs = definitions(Settings.from_environment())
