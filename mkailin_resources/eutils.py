"""Citations that a PubMed query finds, through NCBI's E-utilities: a small corpus without NLM's files.

A query is cut into slices by the date its records were added, each slice is kept as one gzipped
PubmedArticleSet, a PubMed file like any other. Biopython makes the requests and holds NCBI's rate limits;
what it lacks is added here: waits between retries, time limits, other addresses, more than one process.
"""

import fcntl
import gzip
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from email.message import Message
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO
from urllib.error import HTTPError
from urllib.parse import quote_plus, urlencode, urlsplit

import dagster as dg
from lxml import etree
from pydantic import Field

from mkailin_resources.nlm import FetchedFile, NlmError, TryAgain, digests, locked, patiently, told_to_wait
from mkailin_resources.storage import Storage
from mkailin_resources.untrusted_xml import PARSER

EUTILS_URL = "https://eutils.ncbi.nlm.nih.gov/entrez/eutils"
API_KEY_VARIABLE = "NCBI_API_KEY"
QUERY_DIRECTORY = "query"

# The manual says 10,000; of a search PubMed serves 9,999 records, the history server's included, and cuts
# a reply that reaches beyond without a word.
MOST_SERVED = 9_999
# Whole powers of two of years, so that cutting in halves always meets the same borders, whatever today is.
_FIRST_DAY, _LAST_DAY = date(1600, 1, 1), date(2111, 12, 31)

_QUERY_KEY = re.compile(r"query-(?P<query>[0-9a-f]{8})-(?P<first>\d{8})-(?P<last>\d{8})")
_DAYS = re.compile(r"\d{4}/\d\d/\d\d:\d{4}/\d\d/\d\d")
_YEARS = re.compile(r"\d{4}(:\d{4})?")
_RECORDS = {"PubmedArticle": "MedlineCitation/PMID", "PubmedBookArticle": "BookDocument/PMID"}
_ROOTS = {"esearch": "eSearchResult", "efetch": "PubmedArticleSet"}
_ERROR = re.compile(rb"<ERROR>(.*?)</ERROR>|^\s*\{\s*\"error\"\s*:\s*\"([^\"]*)", re.DOTALL)
_EXPIRED = re.compile(r"unable to obtain query|webenv|query_key", re.IGNORECASE)

_TIMEOUT_S = 60.0  # to connect, between two bytes
_SEARCHES = 4  # a history lives for hours, a slice takes minutes
_SAID = 200  # characters of an error reply that are told
_SEARCH_FILE = "search.json"
_KEPT_S = 24 * 3600  # older batches of a killed fetch may not be what the query finds now


@dataclass(frozen=True)
class QuerySlice:
    """A part of a query: its partition key, the days on which its records were added, how many there are."""

    key: str
    first: date
    last: date
    records: int


@dataclass(frozen=True)
class FetchedSlice(FetchedFile):
    """A slice as it is kept; `vanished` are PMIDs that were found but could not be had."""

    term: str
    records: int
    books: int
    vanished: tuple[int, ...]


def is_query_key(key: str) -> bool:
    """Whether the key is that of a query's slice, such as query-1a2b3c4d-20190101-20190630."""
    return _QUERY_KEY.fullmatch(key) is not None


class EntrezQuery(dg.ConfigurableResource):
    """A PubMed query and how NCBI is asked for what it finds.

    `query`: a query in PubMed's syntax; or, instead, any of `descriptors` (MeSH, one of them is enough),
    `years` of publication (2019 or 2019:2021) and `publication_types` (one of them is enough).
    `email`: NCBI writes there before it blocks whoever asks too much. An API key is read from NCBI_API_KEY
    when a request is made and kept nowhere.
    `slice_records`: a slice with more is cut in two. `batch_records`: records in one request.
    `retry_wait_s`: seconds before the first retry, doubled for each one after it.
    """

    query: str = ""
    descriptors: list[str] = Field(default=[])
    years: str = ""
    publication_types: list[str] = Field(default=[])
    url: str = EUTILS_URL
    email: str = ""
    tool: str = "m-kailin"
    slice_records: int = Field(default=5_000, ge=1, le=MOST_SERVED)
    batch_records: int = Field(default=500, ge=1, le=MOST_SERVED)
    retry_wait_s: float = 1.0

    def term(self) -> str:
        """The query in PubMed's syntax; raises `NlmError` where there is none or it cannot be meant."""
        composed = [
            _any_of(self.descriptors, "mh"),
            f"{self.years}[dp]" if self.years else "",
            _any_of(self.publication_types, "pt"),
        ]
        written, described = " ".join(self.query.split()), " AND ".join(filter(None, composed))
        term = written or described
        if not term or (written and described):
            raise NlmError(
                f"a PubMed query is needed, but {'two were' if term else 'none was'} given: set "
                "MKAILIN_PUBMED_QUERY, or descriptors, years and publication types instead"
            )
        if self.years and not _YEARS.fullmatch(self.years):
            raise NlmError(f"years are {self.years!r}; set them to one year or a range, such as 2019:2021")
        if term.count("(") != term.count(")") or term.count('"') % 2:
            raise NlmError(f"PubMed query {term}: a parenthesis or quotation mark is left open; close it")
        return term

    def slices(self) -> list[QuerySlice]:
        """The query cut into slices of at most `slice_records`; the same ones while it finds the same.

        They are cut by date, at borders that the calendar gives and not the day of asking. The date is that
        on which a record was added [crdt]: each record has one and keeps it, and new records go to the last
        slice alone. The Entrez date [edat] is set back to that of publication for what is added late, and a
        record may have several dates of publication [dp]. A slice costs two to four requests.
        """
        log = logging.getLogger(__name__)
        server, term = self._server(log), self.term()
        whole = server.search(term)
        doubts = f" ({', '.join(whole.warnings)})" if whole.warnings else ""
        if not whole.count:
            raise NlmError(f"PubMed query {term}: it finds no record{doubts}; correct the query")
        if doubts:
            log.warning(f"PubMed query {term}: PubMed has doubts about it{doubts}")
        found = list(self._cut(server, term, _FIRST_DAY, _LAST_DAY))
        missed = whole.count - sum(part.records for part in found)
        if missed > 0:
            log.warning(
                f"PubMed query {term}: {missed} of {whole.count} records have no date and are left out"
            )
        return found

    def fetch(self, storage: Storage, key: str, log: logging.Logger) -> FetchedSlice:
        """Keep one slice as a gzipped PubmedArticleSet, by PMID: the same records are the same bytes.

        Each batch is put down as it comes; a fetch that was killed goes on with the next. The records of a
        slice are in memory together, some 15 KB each.
        """
        first, last = self._range(key)
        term = _within(self.term(), first, last)
        server = self._server(log)
        target = storage.path("raw", "pubmed", f"{key}.xml.gz")
        part = storage.scratch() / f".{target.name}.part"
        batches = part.with_suffix(".batches")
        with locked(part, log):
            try:
                batches.mkdir(exist_ok=True)
                search, records = self._gather(server, term, batches, log)
            except OSError as error:
                raise NlmError(f"{key}, fetched to {batches}: {error}; mend it and run it again") from error
            storage.publish_file(target, partial(_write_set, list(records.values())))
            shutil.rmtree(batches)
            part.unlink()
        vanished = tuple(sorted(set(search.pmids) - set(records)))
        books = sum(record.startswith(b"<PubmedBookArticle") for record in records.values())
        _tell(key, log, len(records), books, vanished)
        address = f"{server.base}/esearch.fcgi?{urlencode({'db': 'pubmed', 'term': term})}"
        return FetchedSlice(
            target.name,
            QUERY_DIRECTORY,
            address,
            str(target),
            *digests(target),
            term=term,
            records=len(records),
            books=books,
            vanished=vanished,
        )

    def _cut(self, server: "_Server", term: str, first: date, last: date) -> Iterator[QuerySlice]:
        records = server.search(_within(term, first, last)).count
        if records <= self.slice_records or (first == last and records <= MOST_SERVED):
            if records:
                key = f"query-{_fingerprint(term)}-{first:%Y%m%d}-{last:%Y%m%d}"
                yield QuerySlice(key, first, last, records)
        elif first == last:
            raise NlmError(
                f"PubMed query {term}: {records} of its records were added on {first}, and PubMed serves no "
                f"more than {MOST_SERVED}; make the query narrower, or take NLM's files instead "
                "(MKAILIN_PUBMED_FILES)"
            )
        else:
            for start, end in _halves(first, last):
                yield from self._cut(server, term, start, end)

    def _range(self, key: str) -> tuple[date, date]:
        parts = _QUERY_KEY.fullmatch(key)
        try:
            if parts is None:
                raise ValueError("keys look like query-1a2b3c4d-20190101-20190630")
            first, last = date.fromisoformat(parts["first"]), date.fromisoformat(parts["last"])
        except ValueError as error:
            raise NlmError(f"{key!r} is not the key of a PubMed query: {error}") from error
        if parts["query"] != (ours := _fingerprint(self.term())):
            raise NlmError(
                f"{key} is part of another query than {self.term()}, whose keys begin with query-{ours}; set "
                "MKAILIN_PUBMED_QUERY to the query it is of"
            )
        return first, last

    def _gather(
        self, server: "_Server", term: str, batches: Path, log: logging.Logger
    ) -> tuple["_Search", dict[int, bytes]]:
        """A search and its records by PMID; what an earlier run has put down is not fetched again."""
        search = _Search.kept(batches)
        for _ in range(_SEARCHES):
            if search is None or not search.history:
                search = self._search(server, term, batches, search, log)
            try:
                return search, self._records(server, search, batches, log)
            except _Expired as expired:
                log.warning(f"{server.base}: {expired}: NCBI has forgotten the search, searching again")
                search = _Search(search.count, search.pmids)
        raise NlmError(
            f"{server.base}: NCBI forgot each of {_SEARCHES} searches before their records were fetched; run "
            "it again later"
        )

    def _search(
        self, server: "_Server", term: str, batches: Path, earlier: "_Search | None", log: logging.Logger
    ) -> "_Search":
        search = server.search(term, retmax=MOST_SERVED, usehistory="y")
        if search.count > MOST_SERVED:
            raise NlmError(
                f"PubMed query {term}: it finds {search.count} records by now, and PubMed serves no more "
                f"than {MOST_SERVED}; register the query's slices again and materialize those"
            )
        if earlier is None or earlier.pmids != search.pmids:
            if earlier:
                log.warning(f"PubMed query {term}: it finds other records than before, starting anew")
            shutil.rmtree(batches)
            batches.mkdir()
        _put(batches / _SEARCH_FILE, json.dumps(asdict(search)).encode())
        return search

    def _records(
        self, server: "_Server", search: "_Search", batches: Path, log: logging.Logger
    ) -> dict[int, bytes]:
        records: dict[int, bytes] = {}
        for start in range(0, len(search.pmids), self.batch_records):
            file = batches / f"{start}-{self.batch_records}.xml"
            batch = _parsed(file.read_bytes()) if file.exists() else None
            if batch is None:
                batch = server.fetch(**search.history, retstart=start, retmax=self.batch_records)
                _put(file, etree.tostring(batch, encoding="utf-8"))
            records |= _by_pmid(batch)
            log.info(f"{len(records)} of {search.count} records fetched")
        # A reply may lack records without a word: those that are there after all come when asked for by name.
        missing = [pmid for pmid in search.pmids if pmid not in records]
        for start in range(0, len(missing), self.batch_records):
            named = missing[start : start + self.batch_records]
            records |= _by_pmid(server.fetch(id=",".join(map(str, named))))
        found = {pmid: records[pmid] for pmid in sorted(set(search.pmids) & set(records))}
        if search.pmids and not found:
            raise NlmError(
                f"{server.base}: none of the {search.count} records found could be had; run it again later"
            )
        return found

    def _server(self, log: logging.Logger) -> "_Server":
        base = self.url.rstrip("/")
        if urlsplit(base).scheme not in ("http", "https"):
            raise NlmError(f"{base}: the address of the E-utilities is no URL; set one, such as {EUTILS_URL}")
        if not self.email:
            log.info("NCBI asks for an e-mail address to write to before it blocks anyone: set MKAILIN_EMAIL")
        return _Server(base, self.email, self.tool, self.retry_wait_s, log)


@dataclass(frozen=True)
class _Search:
    """What a search found; `history` are the parameters that name it to EFetch, empty once forgotten."""

    count: int
    pmids: list[int]
    web_env: str = ""
    query_key: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def history(self) -> dict[str, str]:
        return {"WebEnv": self.web_env, "query_key": self.query_key} if self.web_env else {}

    @classmethod
    def kept(cls, batches: Path) -> "_Search | None":
        file = batches / _SEARCH_FILE
        is_fresh = file.exists() and time.time() - file.stat().st_mtime < _KEPT_S
        return cls(**json.loads(file.read_bytes())) if is_fresh else None


class _Expired(Exception):
    """NCBI keeps what a search found for some hours, and has forgotten this one."""


@dataclass(frozen=True)
class _Server:
    """NCBI's E-utilities, or a server that speaks as they do, met with bounded retries."""

    base: str
    email: str
    tool: str
    retry_wait_s: float
    log: logging.Logger

    def search(self, term: str, **parameters: str | int) -> _Search:
        """ESearch; raises `NlmError` for a query of which PubMed leaves out a part that it does not know."""
        found = self._ask("esearch", {"term": term, "retmax": 0, **parameters})
        unknown = [said for errors in found.iter("ErrorList") for said in _children(errors)]
        if any(_DAYS.search(said) for said in unknown):
            return _Search(0, [])  # days that are in no record
        if unknown:
            raise NlmError(
                f"PubMed query {term}: PubMed does not know {', '.join(unknown)}; correct the query"
            )
        return _Search(
            int(found.findtext("Count") or 0),
            _ids(found),
            found.findtext("WebEnv") or "",
            found.findtext("QueryKey") or "",
            tuple(said for told in found.iter("WarningList") for said in _children(told)),
        )

    def fetch(self, **parameters: str | int) -> etree._Element:
        """EFetch, a PubmedArticleSet; raises `_Expired` where the search it names is forgotten."""
        return self._ask("efetch", {"retmode": "xml", **parameters})

    def _ask(self, program: str, parameters: Mapping[str, str | int]) -> etree._Element:
        once = partial(self._once, program, parameters)
        return patiently(f"{self.base}/{program}.fcgi", once, self.retry_wait_s, self.log)

    def _once(self, program: str, parameters: Mapping[str, str | int]) -> etree._Element:
        """One request and its reply, judged; no error that leaves here holds the API key."""
        key = os.environ.get(API_KEY_VARIABLE, "").strip()
        address = f"{self.base}/{program}.fcgi"
        given = {"db": "pubmed", "tool": self.tool, "email": self.email or None, "api_key": key or None}
        try:
            status, headers, body = _exchange(address, {**given, **parameters})
        except (OSError, http.client.HTTPException) as broken:
            said = _without(key, str(broken) or type(broken).__name__)
            # The cause may hold what the server repeated, so it is not handed on.
            raise TryAgain(f"the connection broke: {said}") from None
        reply, error = _parsed(body), _without(key, _error_text(body))
        if status == 200 and reply is not None and not error and _is_whole(reply, program):
            return reply
        said = (error or _without(key, body.decode(errors="replace")))[:_SAID]
        answered = f"the server answered {status}, {said!r}"
        if status == 429 or status >= 500:
            raise told_to_wait(address, answered, headers.get("Retry-After", ""))
        if moved := headers.get("Location", "").partition("?")[0]:
            raise NlmError(f"{address}: it has moved to {moved}; set MKAILIN_EUTILS_URL to its new folder")
        if program == "efetch" and "nothing todo" in error:
            return etree.Element(_ROOTS[program])
        if _EXPIRED.search(error):
            raise _Expired(error)
        if "api key" in error.lower():
            raise NlmError(
                f"{address}: {answered}: NCBI refuses the API key; correct {API_KEY_VARIABLE}, or unset it"
            )
        if status == 200 or "backend" in error.lower():
            raise TryAgain(answered)
        raise NlmError(f"{address}: {answered}; check the query and the address")


def _exchange(address: str, parameters: dict[str, str | int | None]) -> tuple[int, Message, bytes]:
    """Status, headers and body of the reply to one request."""
    entrez = _biopython()
    # Biopython's own esearch and efetch go to NCBI alone (1.88). In the body, not in the address, the API key
    # is in no server's log.
    request = entrez._build_request(address, parameters, post=True)
    try:
        with _turn(entrez):
            response = entrez._open(request)
        with response:
            # Plain text comes wrapped for reading as str.
            reply = getattr(response, "buffer", response)
            return reply.status, reply.headers, reply.read()
    except HTTPError as refused:
        with refused:
            return refused.code, refused.headers, refused.read()


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the request would lose its body, and another server would learn the API key."""

    def redirect_request(self, *args: Any) -> None:
        return None


def _biopython() -> ModuleType:
    """`Bio.Entrez`, without its own retries and redirects and with a time limit."""
    from Bio import Entrez

    # Version 1.88 repeats a 429 or 5xx at once, three times, and waits for a silent server for ever.
    Entrez.max_tries = 1
    Entrez.urlopen = partial(urllib.request.build_opener(_Stay).open, timeout=_TIMEOUT_S)
    warnings.filterwarnings("ignore", r"\s*Email address is not specified", UserWarning)
    return Entrez


@contextmanager
def _turn(entrez: ModuleType) -> Iterator[None]:
    """The right to send one request.

    NCBI counts the requests of an address, Biopython those of a process: it is told when any process of this
    user on this machine sent the last one, and waits as long as its limit (3 a second, 10 with a key) wants.
    """
    with open(Path(tempfile.gettempdir()) / f"mkailin-entrez-{os.getuid()}", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        last = max(entrez._open.previous, os.fstat(file.fileno()).st_mtime)
        entrez._open.previous = min(last, time.time())  # a clock that was set back must not stop us
        try:
            yield
        finally:
            os.utime(file.fileno(), times=(entrez._open.previous, entrez._open.previous))


def _without(key: str, text: str) -> str:
    """The text with the API key blotted out, also as it stands in a URL."""
    for secret in filter(None, (key, quote_plus(key))):
        text = text.replace(secret, "***")
    return text


def _error_text(body: bytes) -> str:
    """What an error reply says, in XML or JSON; empty where it is none of these."""
    found = _ERROR.search(body)
    return " ".join((found[1] or found[2] or b"?").decode(errors="replace").split()) if found else ""


def _parsed(body: bytes) -> etree._Element | None:
    try:
        return etree.fromstring(body, PARSER)
    except etree.XMLSyntaxError:
        return None


def _is_whole(reply: etree._Element, program: str) -> bool:
    """Whether a reply is what the program gives, and a search that was to be kept names all it found."""
    if reply.tag != _ROOTS[program]:
        return False
    if reply.findtext("WebEnv") is None:
        return True
    return len(_ids(reply)) == min(int(reply.findtext("Count") or 0), MOST_SERVED)


def _ids(found: etree._Element) -> list[int]:
    return [int(pmid.text or 0) for pmid in found.iterfind("IdList/Id")]


def _children(element: etree._Element) -> list[str]:
    """What a list of errors or warnings says; that nothing was found, the count says."""
    texts = (f"{child.tag} {child.text or ''}" for child in element if child.tag != "OutputMessage")
    return [text.strip() for text in texts]


def _by_pmid(articles: etree._Element) -> dict[int, bytes]:
    """The records of a PubmedArticleSet, books included."""
    records = {}
    for record in articles:
        pmid = (record.findtext(_RECORDS.get(record.tag, "")) or "").strip()
        if pmid.isdecimal():
            records[int(pmid)] = etree.tostring(record, encoding="utf-8", with_tail=False)
    return records


def _write_set(records: Sequence[bytes], file: BinaryIO) -> None:
    # Without time and name the same records are the same bytes.
    with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
        packed.write(b'<?xml version="1.0" encoding="utf-8"?>\n<PubmedArticleSet>\n')
        for record in records:
            packed.write(record + b"\n")
        packed.write(b"</PubmedArticleSet>\n")


def _tell(key: str, log: logging.Logger, records: int, books: int, vanished: Sequence[int]) -> None:
    log.info(f"{key}: {records} records, {books} of them books")
    if books:
        log.warning(
            f"{key}: books go to the quarantine, {books} here; add NOT pmcbook to the query to leave them out"
        )
    if vanished:
        named = ", ".join(map(str, vanished[:10])) + (", ..." if len(vanished) > 10 else "")
        log.warning(f"{key}: of the records found {len(vanished)} are gone: {named}")


def _put(file: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = file.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(file)


def _any_of(names: Sequence[str], field: str) -> str:
    if quoted := [name for name in names if '"' in name or not name.strip()]:
        raise NlmError(f"{quoted[0]!r} is no name that PubMed can search [{field}] for; correct it")
    named = " OR ".join(f'"{name.strip()}"[{field}]' for name in names)
    return f"({named})" if len(names) > 1 else named


def _within(term: str, first: date, last: date) -> str:
    return f"({term}) AND {first:%Y/%m/%d}:{last:%Y/%m/%d}[crdt]"


def _fingerprint(term: str) -> str:
    return hashlib.sha256(term.encode()).hexdigest()[:8]


def _halves(first: date, last: date) -> tuple[tuple[date, date], tuple[date, date]]:
    """A range of days in two, between years if there are several, else between months, else between days."""
    if first.year < last.year:
        middle = date((first.year + last.year) // 2 + 1, 1, 1)
    elif first.month < last.month:
        middle = date(first.year, (first.month + last.month) // 2 + 1, 1)
    else:
        middle = date(first.year, first.month, (first.day + last.day) // 2 + 1)
    return (first, middle - timedelta(days=1)), (middle, last)
