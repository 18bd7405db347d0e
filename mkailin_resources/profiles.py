"""The named sets of resources, and the one place where environment variables are read."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.embeddings import EncoderSettings
from mkailin_resources.eutils import EUTILS_URL, EntrezQuery
from mkailin_resources.index import ContextStore
from mkailin_resources.models.extractive.agents import (
    ConclusionAnswerer,
    ConclusionQuestioner,
    StatementTitleQuestioner,
)
from mkailin_resources.nlm import NlmServers
from mkailin_resources.sample import NLM_FOLDER, PUBMEDQA_FILE
from mkailin_resources.storage import ParquetTables, Storage

MESH_YEAR = 2026
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
    encoder: str
    pubmedqa: str
    schedule: str
    pubmed_query: str
    eutils_url: str
    email: str

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
        profile = value("PROFILE", "embedded")
        if profile not in PROFILES:
            raise InvalidSetting(f"MKAILIN_PROFILE is {profile!r}; the profiles are: {', '.join(PROFILES)}")
        return cls(
            profile=profile,
            storage=value("STORAGE", str(Path("data") / "pubmed")),
            nlm_url=NLM_URLS.get(nlm_url := value("NLM_URL", "nlm"), nlm_url),
            mesh_year=int(year),
            pubmed_files=value("PUBMED_FILES"),
            branches=tuple(re.findall(r"[^\s,]+", value("BRANCHES").upper())),
            encoder=value("ENCODER", "corpus"),
            pubmedqa=value("PUBMEDQA", str(PUBMEDQA_FILE)),
            schedule=value("SCHEDULE"),
            pubmed_query=value("PUBMED_QUERY"),
            eutils_url=value("EUTILS_URL", EUTILS_URL),
            email=value("EMAIL") or environment.get("NCBI_EMAIL", "").strip(),
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
        "encoder": EncoderSettings(name=settings.encoder),
        "context_store": ContextStore(storage=storage),
        "benchmarks": BenchmarkFiles(pubmedqa=settings.pubmedqa),
        **PROFILES[settings.profile](),
    }


def entrez_query(settings: Settings) -> EntrezQuery:
    """The PubMed query of these settings; the API key is not among them, so that nothing can show it."""
    return EntrezQuery(query=settings.pubmed_query, url=settings.eutils_url, email=settings.email)


def embedded() -> dict[str, Any]:
    """Extractive agents: no model weights, no network."""
    return {
        "domain_model": StatementTitleQuestioner(),
        "general_model": ConclusionQuestioner(),
        "answer_model": ConclusionAnswerer(),
    }


PROFILES: dict[str, Callable[[], dict[str, Any]]] = {"embedded": embedded}
