"""The named sets of resources, and the one place where environment variables are read."""

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.compute import Compute, Tracker
from mkailin_resources.embeddings.interface import LEARNT, EncoderSettings, Pooling
from mkailin_resources.eutils import EUTILS_URL, EntrezQuery
from mkailin_resources.generation import Generation
from mkailin_resources.hub import Hub
from mkailin_resources.index import ContextStore
from mkailin_resources.models.endpoint import Endpoint
from mkailin_resources.models.extractive.agents import (
    ConclusionAnswerer,
    ConclusionQuestioner,
    StatementTitleQuestioner,
)
from mkailin_resources.models.interface import TextGenerator
from mkailin_resources.models.language_model import LanguageModel
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.models.prompted import PromptedGenerator
from mkailin_resources.models.prompting import PromptFile
from mkailin_resources.models.transformers_model import TransformersModel
from mkailin_resources.models.vllm_model import VllmModel
from mkailin_resources.nlm import NlmServers
from mkailin_resources.sample import NLM_FOLDER, PUBMEDQA_FILE
from mkailin_resources.searcher import Retriever
from mkailin_resources.storage import ParquetTables, Storage
from mkailin_resources.trainees import TRAINEES, EvaluatorKind, Trainee, Trainees

MESH_YEAR = 2026
# The one variable that no output may show.
API_KEY = "MKAILIN_API_KEY"
# The agents that models serve, by the key of the resource: the prompt of each.
PROMPTS = {
    "domain_model": "question_domain",
    "general_model": "question_general",
    "answer_model": "answer",
}
# The model that judges pairs of questions, where a model does.
JUDGE = "evaluator_model"
JUDGE_PROMPT = "evaluation"
# The model that judges whether answers follow from what they were written from, where one does.
ENTAILMENT_MODEL = "entailment_model"
ENTAILMENT_PROMPT = "entailment"
# What finds abstracts best. Of 500 questions of PubMedQA, among 2,854 abstracts, words put the one they were
# asked about first for 96%, words and the encoder learnt from the corpus together for 58%.
BEST_RETRIEVERS: dict[str, Retriever] = {LEARNT: "lexical"}
# Names that stand for an address; an empty one is NLM's own two servers.
NLM_URLS = {"nlm": "", "sample": str(NLM_FOLDER)}


class InvalidSetting(ValueError):
    """An environment variable holds what it cannot hold."""


@dataclass(frozen=True)
class Settings:
    """What the environment says; README.md, "Settings", explains each."""

    profile: str
    storage: str
    nlm_url: str
    mesh_year: int
    pubmed_files: str
    branches: tuple[str, ...]
    encoder: EncoderSettings
    retriever: Retriever
    pubmedqa: str
    other_benchmarks: tuple[str, ...]
    retrieval_benchmark: str
    schedule: str
    pubmed_query: str
    eutils_url: str
    email: str
    models: Mapping[str, ModelName]
    endpoint: str
    concurrency: int
    batch_size: int
    temperature: float
    input_characters: int
    vllm: Mapping[str, Any]
    gpu_runs: int
    max_failed_share: float
    prices: Mapping[str, tuple[float, float]]
    trains_agents: bool
    bases: Mapping[Trainee, ModelName | None]
    evaluator: EvaluatorKind
    mesh_rules: Mapping[str, Any]
    quality_rules: Mapping[str, Any]
    corpus_rules: Mapping[str, Any]
    tokenizer: str
    release_form: Literal["pmids", "full"]
    licence_exceptions: Mapping[str, str]
    hub_repository: str
    hub_private: bool
    bioasq: str
    recipe: str | Mapping[str, Any]
    accelerate: str
    tracker: Tracker
    evaluation_rules: Mapping[str, Any]

    @property
    def follows_nlm(self) -> bool:
        """Whether NLM's files are wanted: if some are named, or there is no query."""
        return bool(self.pubmed_files) or not self.pubmed_query

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read `MKAILIN_*`; an unset or empty variable means its default."""
        environment = os.environ if environment is None else environment

        def value(name: str, default: str = "") -> str:
            return environment.get(f"MKAILIN_{name}", "").strip() or default

        year = value("MESH_YEAR", str(MESH_YEAR))
        if not re.fullmatch(r"\d{4}", year):
            raise InvalidSetting(f"MKAILIN_MESH_YEAR is {year!r}; set it to a year, such as {MESH_YEAR}")

        def number(name: str, default: float, least: float, most: float) -> float:
            given = value(name, str(default))
            try:
                read = float(given)
            except ValueError:
                read = float("nan")
            if not least <= read <= most:
                raise InvalidSetting(
                    f"MKAILIN_{name} is {given!r}; set it to a number from {least:g} to {most:g}"
                )
            return read

        def choice(name: str, *choices: str) -> Any:
            given = value(name, choices[0])
            if given not in choices:
                listed = ", ".join(filter(None, dict.fromkeys(choices)))
                raise InvalidSetting(f"MKAILIN_{name} is {given!r}; set it to one of: {listed}")
            return given

        profile = choice("PROFILE", *PROFILES)
        encoder = value("ENCODER", LEARNT)
        common = value("MODEL", DEFAULT_MODELS.get(profile, ""))
        judges_entailment = choice("ENTAILMENT", "no", "yes") == "yes"
        if judges_entailment and profile == "embedded":
            raise InvalidSetting(
                "MKAILIN_ENTAILMENT is 'yes', and the embedded profile has no language model: set "
                "MKAILIN_PROFILE and MKAILIN_MODEL (or MKAILIN_ENTAILMENT_MODEL)"
            )
        judges = (JUDGE, ENTAILMENT_MODEL) if judges_entailment else (JUDGE,)
        endpoint = _endpoint(value("ENDPOINT"))
        models = {
            agent: _model_name(agent.upper(), value(agent.upper(), common), endpoint)
            for agent in ((*PROMPTS, *judges) if common else ())
        }
        # Where no GPU is meant to be, a model of the hub takes days to train.
        trains = choice("TRAIN_AGENTS", *(("no", "yes") if profile == "local" or endpoint else ("yes", "no")))
        bases = {
            trainee: _base(trainee, value(f"{trainee.upper()}_BASE"), models, endpoint)
            for trainee in TRAINEES
        }
        if trains == "yes" and endpoint and None in bases.values():
            raise InvalidSetting(
                "MKAILIN_TRAIN_AGENTS is 'yes', but what stands behind an endpoint cannot be trained: set "
                "MKAILIN_DOMAIN_BASE, MKAILIN_GENERAL_BASE and MKAILIN_EVALUATOR_BASE to the models to train"
            )
        kinds = get_args(EvaluatorKind)
        evaluator = choice("EVALUATOR", *(kinds if trains == "yes" else reversed(kinds)))
        if evaluator == "reward" and trains == "no":
            raise InvalidSetting(
                "MKAILIN_EVALUATOR is 'reward', which is trained, and MKAILIN_TRAIN_AGENTS is 'no': set "
                "that to yes, or the evaluator to judge or cold_start"
            )
        if evaluator == "judge" and not common:
            raise InvalidSetting(
                "MKAILIN_EVALUATOR is 'judge', and the embedded profile has no language model: set "
                "MKAILIN_PROFILE and MKAILIN_MODEL (or MKAILIN_EVALUATOR_MODEL)"
            )
        return cls(
            profile=profile,
            storage=value("STORAGE", str(Path("data") / "pubmed")),
            nlm_url=NLM_URLS.get(nlm_url := value("NLM_URL", "nlm"), nlm_url),
            mesh_year=int(year),
            pubmed_files=value("PUBMED_FILES"),
            branches=tuple(re.findall(r"[^\s,]+", value("BRANCHES").upper())),
            encoder=_encoder(
                EncoderSettings(
                    name=encoder,
                    query_name=value("QUERY_ENCODER"),
                    pooling=choice("POOLING", *get_args(Pooling)),
                    tuning=_tuning(value("TUNE_ENCODER", "no")),
                )
            ),
            retriever=choice("RETRIEVER", BEST_RETRIEVERS.get(encoder, "hybrid"), *get_args(Retriever)),
            pubmedqa=value("PUBMEDQA", str(PUBMEDQA_FILE)),
            other_benchmarks=tuple(filter(None, value("BENCHMARKS").split(os.pathsep))),
            retrieval_benchmark=value("RETRIEVAL_BENCHMARK"),
            schedule=value("SCHEDULE"),
            pubmed_query=value("PUBMED_QUERY"),
            eutils_url=value("EUTILS_URL", EUTILS_URL),
            email=value("EMAIL") or environment.get("NCBI_EMAIL", "").strip(),
            models=models,
            endpoint=endpoint,
            concurrency=int(number("CONCURRENCY", 64, 1, 4096)),
            batch_size=int(number("BATCH_SIZE", 8, 1, 1024)),
            temperature=number("TEMPERATURE", 0, 0, 2),
            input_characters=int(number("INPUT_CHARACTERS", 24_000, 500, 10_000_000)),
            vllm=_vllm_arguments(value("VLLM_ARGUMENTS", "{}")),
            # Rules need no GPU: they run beside one another as all else does.
            gpu_runs=int(number("GPU_RUNS", 1 if common else 2, 1, 1_000)),
            max_failed_share=number("MAX_FAILED_SHARE", 0.2, 0, 1),
            prices=_prices(value("PRICES")),
            trains_agents=trains == "yes",
            bases=bases,
            evaluator=evaluator,
            mesh_rules=_json_object(
                "MESH_RULES", value("MESH_RULES", "{}"), 'a JSON object such as {"mode": "kailin_compat"}'
            ),
            quality_rules=_json_object(
                "QUALITY_RULES", value("QUALITY_RULES", "{}"), 'a JSON object such as {"min_answer_words": 8}'
            ),
            corpus_rules=_json_object(
                "CORPUS_RULES",
                value("CORPUS_RULES", "{}"),
                'a JSON object such as {"branch_balance": "uniform"}',
            ),
            tokenizer=_tokenizer(value("TOKENIZER")),
            release_form=choice("RELEASE_FORM", "pmids", "full"),
            licence_exceptions=_reasons("LICENCE_EXCEPTIONS", value("LICENCE_EXCEPTIONS", "{}")),
            hub_repository=value("HUB_REPOSITORY"),
            hub_private=choice("HUB_VISIBILITY", "private", "public") == "private",
            bioasq=value("BIOASQ"),
            recipe=_recipe(value("RECIPE", "8b" if profile == "gpu" and not endpoint else "embedded")),
            accelerate=value("ACCELERATE"),
            tracker=choice("TRACKER", *get_args(Tracker)),
            evaluation_rules=_json_object(
                "EVALUATION_RULES",
                value("EVALUATION_RULES", "{}"),
                'a JSON object such as {"forms": ["likelihood"]}',
            ),
        )


def resources(settings: Settings) -> dict[str, Any]:
    """Every resource of the code location, by the key that assets ask for."""
    storage = Storage(root=settings.storage)
    return {
        "storage": storage,
        "io_manager": ParquetTables(storage=storage),
        "nlm": NlmServers(
            url=settings.nlm_url, mesh_year=settings.mesh_year, pubmed_files=settings.pubmed_files
        ),
        "entrez": entrez_query(settings),
        "encoder": settings.encoder,
        "context_store": ContextStore(storage=storage, retriever=settings.retriever),
        "benchmarks": BenchmarkFiles(
            pubmedqa=settings.pubmedqa,
            retrieval=settings.retrieval_benchmark,
            others=list(settings.other_benchmarks),
        ),
        "generation": Generation(
            storage=storage,
            max_failed_share=settings.max_failed_share,
            prices={name: list(prices) for name, prices in settings.prices.items()},
        ),
        "trainees": trainees(settings),
        "hub": Hub(repository=settings.hub_repository, private=settings.hub_private),
        "bioasq": settings.bioasq,
        "vllm_arguments": dict(settings.vllm),
        "compute": Compute(accelerate=settings.accelerate, tracker=settings.tracker),
        "tokenizer": settings.tokenizer,
        ENTAILMENT_MODEL: entailment_judge(settings),
        **agents(settings),
    }


def told_of(settings: Settings) -> dict[str, Any]:
    """What a release may say of the settings it was made with: no path, no address and no key."""
    return {
        "profile": settings.profile,
        "pubmed_files": settings.pubmed_files,
        "pubmed_query": settings.pubmed_query,
        "branches": list(settings.branches),
        "encoder": Path(settings.encoder.name).name,
        "retriever": settings.retriever,
        "models": {agent: name.shown for agent, name in settings.models.items()},
        "temperature": settings.temperature,
        "input_characters": settings.input_characters,
        "trains_agents": settings.trains_agents,
        "bases": {trainee: base and base.shown for trainee, base in settings.bases.items()},
        "evaluator": settings.evaluator,
        "bioasq": bool(settings.bioasq),
        "recipe": settings.recipe,
    }


def trainees(settings: Settings) -> Trainees:
    """What the platform trains, on the engine of the profile; the embedded profile's is transformers."""
    engine = _engine(settings)
    judge = _judge(JUDGE, JUDGE_PROMPT, settings) if settings.evaluator == "judge" else None
    return Trainees(
        is_on=settings.trains_agents,
        bases=settings.bases,
        evaluator=settings.evaluator,
        engine=engine,
        judge=judge,
        temperature=settings.temperature,
    )


def agents(settings: Settings) -> dict[str, TextGenerator]:
    """The generators of questions and answers, by the key of their resource."""
    return PROFILES[settings.profile](settings)


def entrez_query(settings: Settings) -> EntrezQuery:
    """The PubMed query of these settings; the API key is not among them, so that nothing can show it."""
    return EntrezQuery(query=settings.pubmed_query, url=settings.eutils_url, email=settings.email)


def embedded(settings: Settings) -> dict[str, TextGenerator]:
    """Extractive agents: no model weights, no network."""
    return {
        "domain_model": StatementTitleQuestioner(),
        "general_model": ConclusionQuestioner(),
        "answer_model": ConclusionAnswerer(),
    }


def local(settings: Settings) -> dict[str, TextGenerator]:
    """Models on this machine through transformers, on its GPU if it has one; or an endpoint."""
    return _agents(settings, _local_engine(settings))


def gpu(settings: Settings) -> dict[str, TextGenerator]:
    """Models on this machine's GPU through vLLM; or an endpoint, such as a vLLM server."""
    return _agents(settings, _gpu_engine(settings))


def entailment_judge(settings: Settings) -> TextGenerator | None:
    """The language model that judges whether answers follow, None where none is to."""
    if ENTAILMENT_MODEL not in settings.models:
        return None
    return _judge(ENTAILMENT_MODEL, ENTAILMENT_PROMPT, settings)


def _judge(key: str, prompt: str, settings: Settings) -> TextGenerator:
    """A model that judges under its prompt; an endpoint goes before the profile's engine."""
    name = settings.models[key]
    model = _served(name, settings) if settings.endpoint else _engine(settings)(name)
    return _prompted(model, prompt, settings)


def _engine(settings: Settings) -> Callable[[ModelName], LanguageModel]:
    return _gpu_engine(settings) if settings.profile == "gpu" else _local_engine(settings)


def _local_engine(settings: Settings) -> Callable[[ModelName], LanguageModel]:
    return lambda name: TransformersModel(model=name, batch_size=settings.batch_size)


def _gpu_engine(settings: Settings) -> Callable[[ModelName], LanguageModel]:
    names = settings.models.values()

    def engine(name: ModelName) -> VllmModel:
        of_base = {
            other.adapter for other in names if (other.name, other.revision) == (name.name, name.revision)
        }
        return VllmModel(
            model=name,
            adapters=tuple(sorted(of_base - {""})),
            engine_arguments=tuple(sorted(settings.vllm.items())),
        )

    return engine


def _agents(settings: Settings, engine: Callable[[ModelName], LanguageModel]) -> dict[str, TextGenerator]:
    """The three agents, each its model under its prompt; an endpoint goes before the profile's engine."""
    return {
        agent: _prompted(
            _served(settings.models[agent], settings)
            if settings.endpoint
            else engine(settings.models[agent]),
            prompt,
            settings,
        )
        for agent, prompt in PROMPTS.items()
    }


def _prompted(model: LanguageModel, prompt: str, settings: Settings) -> TextGenerator:
    return PromptedGenerator(
        model=model,
        prompt=PromptFile.load(prompt),
        temperature=settings.temperature,
        max_characters=settings.input_characters,
    )


def _base(trainee: Trainee, text: str, models: Mapping[str, ModelName], endpoint: str) -> ModelName | None:
    """The base of a trainee: the one that is named, else that of its agent's model if it is run here."""
    if text:
        base = _model_name(f"{trainee.upper()}_BASE", text, "")
        if base.adapter:
            raise InvalidSetting(
                f"MKAILIN_{trainee.upper()}_BASE is {text!r}: a base has no adapter yet; merge it first"
            )
        return base
    agent = None if endpoint else models.get(f"{trainee}_model")
    return agent and ModelName(agent.name, agent.revision)


def _served(name: ModelName, settings: Settings) -> Endpoint:
    return Endpoint(model=name, url=settings.endpoint, concurrency=settings.concurrency, api_key=_api_key)


def _api_key() -> str:
    """Read when a request is made, so that no setting, log or page can show it."""
    return os.environ.get(API_KEY, "").strip()


def _model_name(variable: str, text: str, endpoint: str) -> ModelName:
    try:
        name = ModelName.parse(text)
    except ValueError as error:
        raise InvalidSetting(f"MKAILIN_{variable}: {error}") from error
    if endpoint and name.adapter:
        raise InvalidSetting(
            f"MKAILIN_{variable} is {text!r}, but an endpoint knows an adapter by a name of its own: "
            "serve it there, and set that name"
        )
    return name


def _encoder(encoder: EncoderSettings) -> EncoderSettings:
    """The settings of the encoder, if they fit one another."""
    tuned = encoder.tuning is not None
    if encoder.name == LEARNT and (encoder.query_name or encoder.pooling or tuned):
        raise InvalidSetting(
            "MKAILIN_QUERY_ENCODER, MKAILIN_POOLING and MKAILIN_TUNE_ENCODER are about a transformer: "
            "name one in MKAILIN_ENCODER"
        )
    if encoder.query_name and tuned:
        raise InvalidSetting(
            "MKAILIN_TUNE_ENCODER tunes one model for questions and documents: unset MKAILIN_QUERY_ENCODER"
        )
    for name, model in (("ENCODER", encoder.name), ("QUERY_ENCODER", encoder.query_name)):
        if model and _model_name(name, model, "").adapter:
            raise InvalidSetting(f"MKAILIN_{name} is {model!r}: an encoder takes no adapter; merge it first")
    return encoder


def _tuning(text: str) -> dict[str, Any] | None:
    if text in {"no", "yes"}:
        return {} if text == "yes" else None
    return _json_object("TUNE_ENCODER", text, 'no, yes or a JSON object such as {"max_steps": 200}')


def _json_object(name: str, text: str, expected: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InvalidSetting(f"MKAILIN_{name} is {text!r}; set it to {expected}")
    return value


def _endpoint(url: str) -> str:
    if url and not re.fullmatch(r"https?://[^\s@?#]+", url):
        raise InvalidSetting(
            f"MKAILIN_ENDPOINT is {re.split(r'[?#]', url.rpartition('@')[2])[0]!r}; set it to a URL such as "
            "http://127.0.0.1:8000/v1, and the key, if it needs one, to MKAILIN_API_KEY"
        )
    return url.rstrip("/")


def _tokenizer(text: str) -> str:
    if text and _model_name("TOKENIZER", text, "").adapter:
        raise InvalidSetting(f"MKAILIN_TOKENIZER is {text!r}: a tokenizer has no adapter; leave out +FOLDER")
    return text


def _reasons(name: str, text: str) -> dict[str, str]:
    """A JSON object from the name of a model to the reason why it may be used."""
    expected = (
        'a JSON object from model to reason, such as {"my-model": "its publisher allows it in writing"}'
    )
    value = _json_object(name, text, expected)
    if not all(isinstance(reason, str) and reason.strip() for reason in value.values()):
        raise InvalidSetting(f"MKAILIN_{name} is {text!r}; set it to {expected}")
    return value


def _vllm_arguments(text: str) -> dict[str, Any]:
    example = '{"tensor_parallel_size": 2, "max_model_len": 16384}'
    return _json_object("VLLM_ARGUMENTS", text, f"a JSON object of arguments of vllm.LLM, such as {example}")


def _recipe(text: str) -> str | dict[str, Any]:
    """A recipe's name, or a JSON object with its name and what is to be different."""
    if not text.startswith("{"):
        return text
    return _json_object(
        "RECIPE", text, 'the name of a recipe, or a JSON object such as {"name": "8b", "base": "my-model"}'
    )


def _prices(text: str) -> dict[str, tuple[float, float]]:
    """`MODEL=IN/OUT` for each model: prices of a million tokens read and a million written."""
    prices = {}
    for part in text.split():
        name, _, price = part.rpartition("=")
        try:
            per_million = tuple(float(number) for number in price.split("/"))
        except ValueError:
            per_million = ()
        if not name or len(per_million) != 2 or not all(0 <= price < math.inf for price in per_million):
            raise InvalidSetting(
                f"MKAILIN_PRICES has {part!r}; write MODEL=IN/OUT for each model, such as "
                "my-model=0.15/0.60: what a million tokens read and a million tokens written cost"
            )
        prices[name] = (per_million[0], per_million[1])
    return prices


PROFILES: dict[str, Callable[[Settings], dict[str, TextGenerator]]] = {
    "embedded": embedded,
    "local": local,
    "gpu": gpu,
}
# Open models whose licence lets their outputs train others.
DEFAULT_MODELS = {"local": "Qwen/Qwen2.5-1.5B-Instruct", "gpu": "Qwen/Qwen2.5-7B-Instruct"}
