"""NLM's servers: what they list, fetched, resumed, verified and kept."""

import logging
from dataclasses import dataclass

import dagster as dg

from mkailin_resources.storage import Storage


class NlmError(RuntimeError):
    """A file could not be had from NLM; the message names the URL, what was expected and what to do."""


@dataclass(frozen=True)
class PubmedFile:
    """A PubMed file on the server: key (`pubmed26n0001`), directory (`baseline`, `updatefiles`), URL."""

    key: str
    directory: str
    url: str


@dataclass(frozen=True)
class FetchedFile:
    """A file as it is kept; `directory` for PubMed files only, `bytes` its size, digests hexadecimal."""

    name: str
    directory: str | None
    url: str
    uri: str
    bytes: int
    md5: str
    sha256: str


class NlmServers(dg.ConfigurableResource):
    """NLM's public files, from NLM, a mirror or a folder laid out like both."""

    url: str = ""
    mesh_year: int
    pubmed_files: str = ""
    retry_wait_s: float = 1.0

    def list_pubmed_files(self) -> list[PubmedFile]:
        """Files on the server that `pubmed_files` asks for, by year and number."""
        raise NotImplementedError

    def fetch_pubmed(self, storage: Storage, key: str, log: logging.Logger) -> FetchedFile:
        """Keep one PubMed file, its MD5 equal to the published one."""
        raise NotImplementedError

    def fetch_mesh(self, storage: Storage, log: logging.Logger) -> FetchedFile:
        """Keep the MeSH descriptors of the year."""
        raise NotImplementedError

    def fetch_tree_file(self, storage: Storage, log: logging.Logger) -> FetchedFile | None:
        """Keep the MeSH tree file of the year; None where the server has none."""
        raise NotImplementedError
