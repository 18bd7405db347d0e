"""What a PubMed query finds arrives whole: over a real server on loopback that speaks and fails as NCBI's."""

import gzip
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import polars as pl
import pytest
from Bio import Entrez
from lxml import etree
from servers import serving

from mkailin_assets.distill import register_files
from mkailin_assets.partitions import PUBMED_FILES
from mkailin_assets.pubmed import assets, checks
from mkailin_assets.pubmed.citations import read_pubmed_file
from mkailin_assets.pubmed.current import file_order
from mkailin_resources import eutils
from mkailin_resources.eutils import EntrezQuery, FetchedSlice, QuerySlice, is_query_key
from mkailin_resources.nlm import NlmError, NlmServers
from mkailin_resources.profiles import Settings, resources
from mkailin_resources.sample import NLM_FOLDER
from mkailin_resources.storage import ParquetTables, Storage

LOG = logging.getLogger("test_eutils")
KEY = "0123456789abcdefNotARealKey456789"
QUERY = '"Alzheimer Disease"[mh]'
MOST_SERVED = 9_999


@dataclass(frozen=True)
class Record:
    """What the server knows of a citation: PMID, the day it was added, its XML."""

    pmid: int
    added: date
    xml: bytes

    def is_found_by(self, term: str) -> bool:
        if term == "all[sb]":
            return True
        heading = re.fullmatch(r'"([^"]+)"\[mh\]', term)
        return heading is not None and f">{heading[1]}</DescriptorName>".encode() in self.xml


Fault = Callable[["_Handler"], None]


@dataclass
class EntrezServer:
    """ESearch and EFetch over `records`; `faults` are spent one a request, by program."""

    records: list[Record]
    url: str = ""
    requests: list[tuple[float, str, dict[str, str]]] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    histories: dict[str, list[Record]] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    before_fetch: Callable[[], None] = lambda: None

    def asked(self, program: str) -> list[dict[str, str]]:
        """Parameters of the requests for a program."""
        return [parameters for _, asked, parameters in self.requests if asked == program]

    def answer(self, program: str, given: dict[str, str]) -> tuple[int, str]:
        return self.search(given) if program == "esearch" else self.fetch(given)

    def search(self, given: dict[str, str]) -> tuple[int, str]:
        within = re.fullmatch(
            r"\((?P<term>.*)\) AND (?P<first>\d{4}/\d\d/\d\d):(?P<last>\d{4}/\d\d/\d\d)\[crdt\]",
            given["term"],
        )
        term = within["term"] if within else given["term"]
        if "Alzhiemer" in term:
            said = "<ErrorList><PhraseNotFound>Alzhiemer[mh]</PhraseNotFound></ErrorList>"
            return 200, f"<eSearchResult><Count>0</Count><RetMax>0</RetMax><IdList/>{said}</eSearchResult>"
        found = [record for record in self.records if record.is_found_by(term)]
        if within:
            first, last = (date.fromisoformat(within[name].replace("/", "-")) for name in ("first", "last"))
            found = [record for record in found if first <= record.added <= last]
        found.sort(key=lambda record: (record.added, record.pmid), reverse=True)
        listed = found[: min(int(given.get("retmax", "20")), MOST_SERVED)]
        history = ""
        if given.get("usehistory") == "y":
            web_env = f"MCID_{len(self.histories)}"
            self.histories[web_env] = found
            history = f"<QueryKey>1</QueryKey><WebEnv>{web_env}</WebEnv>"
        ids = "".join(f"<Id>{record.pmid}</Id>" for record in listed)
        nothing = "<WarningList><OutputMessage>No items found.</OutputMessage></WarningList>"
        return 200, (
            '<?xml version="1.0" encoding="UTF-8" ?>\n'
            '<!DOCTYPE eSearchResult PUBLIC "-//NLM//DTD esearch 20060628//EN" '
            '"https://eutils.ncbi.nlm.nih.gov/eutils/dtd/20060628/esearch.dtd">\n'
            f"<eSearchResult><Count>{len(found)}</Count><RetMax>{len(listed)}</RetMax><RetStart>0</RetStart>"
            f"{history}<IdList>{ids}</IdList><TranslationSet/><QueryTranslation>{len(term)}</QueryTranslation>"
            f"{'' if found else nothing}</eSearchResult>"
        )

    def fetch(self, given: dict[str, str]) -> tuple[int, str]:
        self.before_fetch()
        if "id" in given:
            pmids = set(map(int, given["id"].split(",")))
            found = [record for record in self.records if record.pmid in pmids]
        elif given["WebEnv"] not in self.histories:
            return 400, "<eFetchResult>\n\t<ERROR>Unable to obtain query #1</ERROR>\n</eFetchResult>"
        elif int(given["retstart"]) >= MOST_SERVED:
            return 400, "<eFetchResult><ERROR>'retstart' cannot be larger than 9998.</ERROR></eFetchResult>"
        else:
            start = int(given["retstart"])
            found = self.histories[given["WebEnv"]][start : min(start + int(given["retmax"]), MOST_SERVED)]
        kept = [record.xml.decode() for record in found if record.pmid not in self.gone]
        return 200, (
            '<?xml version="1.0" ?>\n'
            '<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle, 1st January 2025//EN" '
            '"https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">\n<PubmedArticleSet>\n'
            + "\n".join(kept)
            + "</PubmedArticleSet>"
        )


class _Handler(BaseHTTPRequestHandler):
    server_of: EntrezServer

    def do_GET(self) -> None:
        self.reply(urlsplit(self.path).query)

    def do_POST(self) -> None:
        self.reply(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def reply(self, query: str) -> None:
        program = urlsplit(self.path).path.rpartition("/")[2].removesuffix(".fcgi")
        self.given = {name: values[0] for name, values in parse_qs(query).items()}
        self.program = program
        self.server_of.requests.append((time.monotonic(), program, self.given))
        faults = self.server_of.faults[program]
        if faults:
            faults.pop(0)(self)
        else:
            status, text = self.server_of.answer(program, self.given)
            self.send(status, text.encode(), "text/xml; charset=UTF-8")

    def send(self, status: int, body: bytes, kind: str, promised: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(promised or len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are kept in `EntrezServer.requests`, not printed."""


@contextmanager
def entrez_server(records: list[Record]) -> Iterator[EntrezServer]:
    served = EntrezServer(records)

    class Handler(_Handler):
        server_of = served

    with serving(Handler) as address:
        served.url = f"{address}/entrez/eutils"
        yield served


def too_many(handler: _Handler) -> None:
    """As NCBI answers who asks too often, and whose key it is."""
    body = {"error": "API rate limit exceeded", "api-key": handler.given.get("api_key", "127.0.0.1")}
    said = json.dumps({**body, "count": "4", "limit": "3"}).encode()
    handler.send(429, said, "application/json", Retry_After="0")


def too_many_with_status_200(handler: _Handler) -> None:
    handler.send(200, b'{"error":"API rate limit exceeded","count":"11"}', "text/plain")


def bad_key(handler: _Handler) -> None:
    said = {"error": "API key invalid", "api-key": handler.given["api_key"], "type": "invalid"}
    handler.send(400, json.dumps(said).encode(), "application/json")


def unavailable(handler: _Handler) -> None:
    handler.send(503, b"<html><body>Service Unavailable</body></html>", "text/html")


def hung_up(handler: _Handler) -> None:
    handler.close_connection = True


def cut_off(handler: _Handler) -> None:
    body = handler.server_of.answer(handler.program, handler.given)[1].encode()
    handler.send(200, body[: len(body) // 2], "text/xml", promised=len(body))


def cut_short(handler: _Handler) -> None:
    """The half of a reply as if it were the whole: what a proxy makes of a lost connection."""
    body = handler.server_of.answer(handler.program, handler.given)[1].encode()
    handler.send(200, body[: len(body) // 2], "text/xml")


def page(handler: _Handler) -> None:
    handler.send(200, b"<html><head><title>Maintenance</title></head><body/></html>", "text/html")


def backend_error(handler: _Handler) -> None:
    root = {"esearch": "eSearchResult", "efetch": "eFetchResult"}[handler.program]
    handler.send(200, f"<{root}><ERROR>Search Backend failed: timeout</ERROR></{root}>".encode(), "text/xml")


def broken_set(handler: _Handler) -> None:
    handler.send(
        200, b"<PubmedArticleSet><ERROR>Search Backend failed</ERROR></PubmedArticleSet>", "text/xml"
    )


TRANSIENT = [
    too_many,
    too_many_with_status_200,
    unavailable,
    hung_up,
    cut_off,
    cut_short,
    page,
    backend_error,
]


def nlm_files() -> list[Path]:
    """Baseline files of real citations, where there are some, else of the sample."""
    real = os.environ.get("MKAILIN_REAL_DATA")
    folder = Path(real) / "nlm" if real else NLM_FOLDER
    return sorted((folder / "pubmed" / "baseline").glob("*.xml.gz"))


def read_records(file: Path) -> list[Record]:
    articles = etree.fromstring(gzip.decompress(file.read_bytes()))
    records = []
    for article in articles:
        pmid = article.findtext("MedlineCitation/PMID") or ""
        if not pmid.isdecimal():  # the sample has one that is to be quarantined
            continue
        entered = article.find("PubmedData/History/PubMedPubDate[@PubStatus='entrez']")
        entered = article.find("PubmedData/History/PubMedPubDate") if entered is None else entered
        assert entered is not None
        year, month, day = (int(entered.findtext(name) or 1) for name in ("Year", "Month", "Day"))
        xml = etree.tostring(article, encoding="utf-8", with_tail=False)
        records.append(Record(int(pmid), date(year, month, day), xml))
    return records


def citation(pmid: int, added: date, heading: str = "Alzheimer Disease") -> Record:
    name = f"<MeshHeading><DescriptorName>{heading}</DescriptorName></MeshHeading>"
    article = "<Article><ArticleTitle>A title.</ArticleTitle></Article>"
    whole = f"<PMID>{pmid}</PMID>{article}<MeshHeadingList>{name}</MeshHeadingList>"
    body = f"<MedlineCitation>{whole}</MedlineCitation>"
    return Record(pmid, added, f"<PubmedArticle>{body}</PubmedArticle>".encode())


FEW = [citation(pmid, date(2019, 1, 1) + timedelta(days=pmid)) for pmid in range(1, 26)]


@pytest.fixture
def server() -> Iterator[EntrezServer]:
    with entrez_server(list(FEW)) as served:
        yield served


@pytest.fixture(scope="module")
def real_records() -> list[Record]:
    return read_records(nlm_files()[0])


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(root=str(tmp_path / "kept"))


@pytest.fixture
def biopython_waits() -> None:
    """For the tests that are about the waits between requests."""


@pytest.fixture(autouse=True)
def environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, no request before the test's own; Biopython does not wait, unless the test is about that."""
    monkeypatch.delenv(eutils.API_KEY_VARIABLE, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(Entrez._open, "previous", 0)
    if "biopython_waits" not in request.fixturenames:
        monkeypatch.setattr(Entrez, "time", SimpleNamespace(time=time.time, sleep=lambda seconds: None))


def query(server: EntrezServer, term: str = QUERY, **changed: object) -> EntrezQuery:
    given = {"query": term, "url": server.url, "email": "someone@example.org", "retry_wait_s": 0.001}
    return EntrezQuery(**{**given, **changed})


def fetch_all(entrez: EntrezQuery, storage: Storage) -> list[FetchedSlice]:
    return [entrez.fetch(storage, part.key, LOG) for part in entrez.slices()]


def kept_pmids(fetched: FetchedSlice) -> list[int]:
    articles = etree.fromstring(gzip.decompress(Path(fetched.uri).read_bytes()))
    assert articles.tag == "PubmedArticleSet"
    return [int(pmid.text or 0) for pmid in articles.iterfind("*/*/PMID")]


def only_slice(entrez: EntrezQuery) -> QuerySlice:
    (part,) = entrez.slices()
    return part


@pytest.mark.parametrize("limit", [1, 7, 40, 5_000])
def test_slices_cover_the_query_exactly_once(
    real_records: list[Record], storage: Storage, limit: int
) -> None:
    with entrez_server(real_records) as server:
        entrez = query(server, "all[sb]", slice_records=limit)
        if limit == 1:
            days = {record.added for record in real_records[:30]}
            server.records = [record for record in real_records if record.added in days]
        parts = entrez.slices()
        for earlier, later in pairwise(parts):
            assert earlier.last < later.first
        for part in parts:
            held = [record for record in server.records if part.first <= record.added <= part.last]
            assert len(held) == part.records
            assert part.records <= limit or part.first == part.last
        assert sum(part.records for part in parts) == len(server.records)
        if limit == 40:
            fetched = [pmid for part in fetch_all(entrez, storage) for pmid in kept_pmids(part)]
            assert sorted(fetched) == sorted(record.pmid for record in server.records)


def test_slices_have_the_same_names_whenever_they_are_asked_for(server: EntrezServer) -> None:
    entrez = query(server, slice_records=10)
    keys = [part.key for part in entrez.slices()]
    assert [key[-17:] for key in keys] == ["20190101-20190108", "20190109-20190116", "20190117-20190131"]
    server.records.append(citation(99, date(2031, 5, 5)))
    again = [part.key for part in entrez.slices()]
    assert again[: len(keys)] == keys
    assert [part.key for part in query(server, f"  {QUERY}\n", slice_records=10).slices()] == again
    other = query(server, "all[sb]", slice_records=10).slices()
    assert not set(again) & {part.key for part in other}


def test_a_slice_can_be_a_partition_and_a_file_and_is_none_of_nlms(server: EntrezServer) -> None:
    part = only_slice(query(server))
    assert re.fullmatch(r"[a-z0-9-]+", part.key)
    assert is_query_key(part.key)
    assert not is_query_key("pubmed26n0001")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(PUBMED_FILES, [part.key, "pubmed26n0001"])
        assert part.key in instance.get_dynamic_partitions(PUBMED_FILES)


def test_files_of_a_query_come_before_nlms_and_later_days_after_earlier_ones() -> None:
    keys = [
        "query-ffffffff-20180101-20191231",
        "query-00000000-20180101-20181231",
        "query-0000000f-20190101-20191231",
        "query-f0000000-20190101-20191231",
        "query-00000000-20200101-20271231",
        "pubmed25n1500",
        "pubmed26n0001",
    ]
    assert sorted(reversed(keys), key=file_order) == keys
    with pytest.raises(ValueError, match="is no key of a PubMed file"):
        file_order("query-2019")


def test_a_day_of_more_records_than_pubmed_serves_is_told(server: EntrezServer) -> None:
    crowd = [citation(pmid, date(1975, 1, 1)) for pmid in range(100, 100 + MOST_SERVED)]
    server.records += crowd
    (day, rest) = query(server).slices()
    assert (day.first, day.last, day.records) == (date(1975, 1, 1), date(1975, 1, 1), MOST_SERVED)
    assert rest.records == len(FEW)
    server.records.append(citation(99, date(1975, 1, 1)))
    with pytest.raises(
        NlmError, match=r"10000 of its records were added on 1975-01-01.*make the query narrower"
    ):
        query(server).slices()


def test_a_query_is_composed_of_descriptors_years_and_types() -> None:
    entrez = EntrezQuery(descriptors=["Alzheimer Disease"], years="2019:2021", publication_types=["Review"])
    assert entrez.term() == '"Alzheimer Disease"[mh] AND 2019:2021[dp] AND "Review"[pt]'
    entrez = EntrezQuery(descriptors=["Aged", "Dementia"], years="2019")
    assert entrez.term() == '("Aged"[mh] OR "Dementia"[mh]) AND 2019[dp]'


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "none was given: set MKAILIN_PUBMED_QUERY"),
        ({"query": "x", "years": "2019"}, "two were given"),
        ({"years": "since 2019"}, "years are 'since 2019'"),
        ({"query": "a) OR (b OR (c"}, "a parenthesis or quotation mark is left open"),
        ({"query": '"Aged[mh]'}, "a parenthesis or quotation mark is left open"),
        ({"descriptors": ['"Aged']}, "is no name that PubMed can search"),
        ({"query": "x", "url": "eutils"}, "is no URL; set one, such as https://eutils.ncbi"),
    ],
)
def test_a_query_that_cannot_be_meant_is_refused(given: dict[str, object], reason: str) -> None:
    with pytest.raises(NlmError, match=reason):
        EntrezQuery(**given).slices()


def test_a_query_that_pubmed_does_not_know_is_refused_and_not_widened(server: EntrezServer) -> None:
    with pytest.raises(
        NlmError, match=r"PubMed does not know PhraseNotFound Alzhiemer\[mh\]; correct the query"
    ):
        query(server, "Alzhiemer[mh]").slices()
    with pytest.raises(NlmError, match="it finds no record"):
        query(server, '"Fishes"[mh]').slices()


def test_a_slice_of_another_query_is_refused(server: EntrezServer, storage: Storage) -> None:
    part = only_slice(query(server))
    with pytest.raises(
        NlmError, match=rf"{part.key} is part of another query than all\[sb\].*set MKAILIN_PUBMED"
    ):
        query(server, "all[sb]").fetch(storage, part.key, LOG)
    for key in ("pubmed26n0001", "query-1", part.key.replace("0101", "0231")):
        with pytest.raises(NlmError, match="is not the key of a PubMed query"):
            query(server).fetch(storage, key, LOG)


def test_a_slice_is_kept_as_a_pubmed_file(server: EntrezServer, storage: Storage) -> None:
    part = only_slice(query(server))
    fetched = query(server, batch_records=10).fetch(storage, part.key, LOG)
    assert fetched.name == f"{part.key}.xml.gz"
    assert fetched.directory == "query"
    assert fetched.uri == str(storage.path("raw", "pubmed", fetched.name))
    assert (fetched.records, fetched.vanished) == (25, ())
    assert kept_pmids(fetched) == list(range(1, 26))
    (search,) = [given for given in server.asked("esearch") if given.get("usehistory")]
    assert search["term"].startswith(f"({QUERY}) AND ")
    assert [given["retstart"] for given in server.asked("efetch")] == ["0", "10", "20"]
    assert {(given["WebEnv"], given["query_key"], given["retmode"]) for given in server.asked("efetch")} == {
        ("MCID_0", "1", "xml")
    }
    assert list(storage.scratch().iterdir()) == []


def test_the_kept_file_parses_to_the_citations_of_nlms_file(storage: Storage) -> None:
    file = nlm_files()[0]
    records = read_records(file)
    with entrez_server(records) as server:
        entrez = query(server, "all[sb]", slice_records=len(records) // 2, batch_records=len(records) // 5)
        fetched = fetch_all(entrez, storage)
    assert len(fetched) > 1
    parts = []
    for part in fetched:
        with Path(part.uri).open("rb") as kept:
            parts += list(read_pubmed_file(kept, part.name))
    with file.open("rb") as published:
        expected = pl.concat(read_pubmed_file(published, file.name))
    expected = expected.filter(pl.col("record") == "citation")
    found = pl.concat(parts).drop("position", "pubmed_file").sort("pmid")
    assert found.height > 100
    assert found.equals(expected.drop("position", "pubmed_file").sort("pmid"))


def test_the_same_records_are_the_same_bytes(server: EntrezServer, storage: Storage) -> None:
    part = only_slice(query(server))
    first = query(server).fetch(storage, part.key, LOG)
    written = Path(first.uri).stat().st_mtime_ns
    assert Path(first.uri).read_bytes()[4:8] == bytes(4), "gzip has written the time"
    assert query(server, batch_records=4).fetch(storage, part.key, LOG) == first
    assert Path(first.uri).stat().st_mtime_ns == written
    server.records[3] = citation(
        4, server.records[3].added, "Alzheimer Disease</DescriptorName><DescriptorName>Aged"
    )
    assert query(server).fetch(storage, part.key, LOG).md5 != first.md5


@pytest.mark.parametrize("fault", [*TRANSIENT, broken_set])
def test_a_reply_that_fails_is_asked_for_again(server: EntrezServer, storage: Storage, fault: Fault) -> None:
    server.faults["efetch"] = [fault, fault]
    if fault is not broken_set:
        server.faults["esearch"] = [fault]
    part = only_slice(query(server))
    if fault is not broken_set:
        server.faults["esearch"] = [fault]
    assert kept_pmids(query(server).fetch(storage, part.key, LOG)) == list(range(1, 26))
    assert len(server.asked("efetch")) == 3


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_server_that_goes_on_failing_is_given_up(server: EntrezServer, fault: Fault) -> None:
    server.faults["esearch"] = [fault] * 100
    with pytest.raises(NlmError, match=rf"{server.url}/esearch.fcgi: .*gave up after 6 attempts"):
        query(server).slices()
    assert len(server.requests) == 6


def test_a_server_that_asks_for_a_long_wait_is_not_waited_for(server: EntrezServer) -> None:
    def later(handler: _Handler) -> None:
        handler.send(429, b"{}", "application/json", Retry_After="3600")

    server.faults["esearch"] = [later]
    with pytest.raises(NlmError, match="asks to wait 3600 s; run it again then"):
        query(server).slices()


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(NlmError, match=r"http://127.0.0.1:9/esearch.fcgi: the connection broke"):
        EntrezQuery(query="x", url="http://127.0.0.1:9", retry_wait_s=0.001).slices()


def test_a_refused_request_is_not_repeated(server: EntrezServer) -> None:
    def forbidden(handler: _Handler) -> None:
        handler.send(403, b"<html>Forbidden</html>", "text/html")

    server.faults["esearch"] = [forbidden]
    with pytest.raises(
        NlmError, match=r"answered 403, '<html>Forbidden</html>'; check the query and the address"
    ):
        query(server).slices()
    assert len(server.requests) == 1


def test_a_server_that_has_moved_is_not_followed(server: EntrezServer) -> None:
    def moved(handler: _Handler) -> None:
        handler.send(301, b"", "text/html", Location=f"{server.url}/new/esearch.fcgi?api_key={KEY}")

    server.faults["esearch"] = [moved]
    with pytest.raises(NlmError, match=r"it has moved to .*/new/esearch.fcgi; set MKAILIN_EUTILS_URL"):
        query(server).slices()
    assert len(server.requests) == 1


def test_a_fetch_that_failed_goes_on_with_the_next_batch(server: EntrezServer, storage: Storage) -> None:
    entrez = query(server, batch_records=10)
    part = only_slice(entrez)
    server.before_fetch = lambda: (
        server.faults["efetch"].extend([unavailable] * 6) if len(server.asked("efetch")) == 2 else None
    )
    with pytest.raises(NlmError, match="gave up after 6 attempts"):
        entrez.fetch(storage, part.key, LOG)
    assert not storage.path("raw").exists()
    server.requests.clear()
    server.before_fetch = lambda: None
    fetched = entrez.fetch(storage, part.key, LOG)
    assert [given["retstart"] for given in server.asked("efetch")] == ["20"]
    assert server.asked("esearch") == []
    assert kept_pmids(fetched) == list(range(1, 26))


FETCH = """
import logging, sys
from mkailin_resources.eutils import EntrezQuery
from mkailin_resources.storage import Storage

logging.basicConfig(level=logging.INFO)
url, root, term, key = sys.argv[1:]
entrez = EntrezQuery(query=term, url=url, batch_records=10, retry_wait_s=0.001)
entrez.fetch(Storage(root=root), key, logging.getLogger())
"""


def in_a_process(server: EntrezServer, storage: Storage, key: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", FETCH, server.url, storage.root, QUERY, key])


def test_a_killed_fetch_asks_only_for_what_is_missing(server: EntrezServer, storage: Storage) -> None:
    part = only_slice(query(server))
    reached, go_on = threading.Event(), threading.Event()

    def hang(handler: _Handler) -> None:
        reached.set()
        go_on.wait(60)
        handler.close_connection = True

    server.before_fetch = lambda: server.faults["efetch"].append(hang) if not reached.is_set() else None
    running = in_a_process(server, storage, part.key)
    assert reached.wait(60)
    running.kill()
    running.wait()
    go_on.set()
    server.before_fetch = lambda: None
    server.faults.clear()
    server.requests.clear()
    fetched = query(server, batch_records=10).fetch(storage, part.key, LOG)
    assert [given["retstart"] for given in server.asked("efetch")] == ["10", "20"]
    assert server.asked("esearch") == []
    assert kept_pmids(fetched) == list(range(1, 26))
    assert list(storage.scratch().iterdir()) == []


def test_two_runs_of_one_slice_at_once_both_finish_with_one_whole_file(
    server: EntrezServer, storage: Storage
) -> None:
    part = only_slice(query(server))
    runs = [in_a_process(server, storage, part.key) for _ in range(2)]
    assert [run.wait(60) for run in runs] == [0, 0]
    kept = Path(str(storage.path("raw", "pubmed", f"{part.key}.xml.gz"))).read_bytes()
    assert len(etree.fromstring(gzip.decompress(kept))) == 25
    assert list(storage.scratch().iterdir()) == []


def test_a_search_that_ncbi_forgot_is_repeated_and_its_batches_are_kept(
    server: EntrezServer, storage: Storage
) -> None:
    part = only_slice(query(server))
    server.before_fetch = lambda: server.histories.clear() if len(server.asked("efetch")) == 2 else None
    server.requests.clear()
    fetched = query(server, batch_records=10).fetch(storage, part.key, LOG)
    assert kept_pmids(fetched) == list(range(1, 26))
    assert [given["retstart"] for given in server.asked("efetch")] == ["0", "10", "10", "20"]
    assert len(server.asked("esearch")) == 2


def test_a_search_that_finds_others_by_then_starts_anew(server: EntrezServer, storage: Storage) -> None:
    part = only_slice(query(server))

    def index_another() -> None:
        if len(server.asked("efetch")) == 2:
            server.histories.clear()
            server.records.append(citation(26, part.last))

    server.before_fetch = index_another
    fetched = query(server, batch_records=10).fetch(storage, part.key, LOG)
    assert kept_pmids(fetched) == list(range(1, 27))
    assert [given["retstart"] for given in server.asked("efetch")] == ["0", "10", "0", "10", "20"]


def test_searches_that_are_forgotten_each_time_are_given_up(server: EntrezServer, storage: Storage) -> None:
    part = only_slice(query(server))
    server.before_fetch = server.histories.clear
    with pytest.raises(NlmError, match="NCBI forgot each of 4 searches"):
        query(server).fetch(storage, part.key, LOG)


def test_records_that_vanish_are_asked_for_by_name_and_told(
    server: EntrezServer, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    part = only_slice(query(server))
    server.gone = {3, 7}

    def one_comes_back() -> None:
        if "id" in server.requests[-1][2]:
            server.gone = {7}

    server.before_fetch = one_comes_back
    fetched = query(server).fetch(storage, part.key, LOG)
    assert server.asked("efetch")[-1]["id"] == "7,3"
    assert (fetched.records, fetched.vanished) == (24, (7,))
    assert "of the records found 1 are gone: 7" in caplog.text
    server.gone, server.before_fetch = set(range(100)), lambda: None
    with pytest.raises(NlmError, match="none of the 25 records found could be had"):
        query(server).fetch(storage, part.key, LOG)


def test_a_slice_that_grew_beyond_what_pubmed_serves_is_told(server: EntrezServer, storage: Storage) -> None:
    part = only_slice(query(server))
    server.records += [citation(pmid, part.last) for pmid in range(100, 100 + MOST_SERVED)]
    with pytest.raises(NlmError, match=r"it finds 10024 records by now.*register the query's slices again"):
        query(server).fetch(storage, part.key, LOG)


def test_a_book_is_kept_and_told(
    server: EntrezServer, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    heading = b"<DescriptorName>Alzheimer Disease</DescriptorName>"
    book = (
        b"<PubmedBookArticle><BookDocument><PMID>30</PMID>" + heading + b"</BookDocument></PubmedBookArticle>"
    )
    server.records.append(Record(30, date(2019, 1, 9), book))
    fetched = query(server).fetch(storage, only_slice(query(server)).key, LOG)
    assert (fetched.records, fetched.books) == (26, 1)
    assert "books go to the quarantine, 1 here; add NOT pmcbook to the query" in caplog.text


def test_requests_say_who_asks(server: EntrezServer, storage: Storage) -> None:
    fetch_all(query(server), storage)
    for _, _, given in server.requests:
        assert given["db"] == "pubmed"
        assert given["tool"] == "m-kailin"
        assert given["email"] == "someone@example.org"
        assert "api_key" not in given


def test_an_unknown_entity_is_neither_looked_up_nor_expanded(server: EntrezServer, storage: Storage) -> None:
    part = only_slice(query(server))

    def bomb(handler: _Handler) -> None:
        entities = '<!ENTITY a "ha"><!ENTITY b SYSTEM "file:///etc/hostname">'
        text = server.answer("efetch", handler.given)[1].partition("<PubmedArticleSet>")[2]
        text = text.replace("A title.", "&a;&b;", 1)
        body = f"<!DOCTYPE PubmedArticleSet [{entities}]><PubmedArticleSet>{text}"
        handler.send(200, body.encode(), "text/xml")

    server.faults["efetch"] = [bomb]
    fetched = query(server).fetch(storage, part.key, LOG)
    with Path(fetched.uri).open("rb") as kept:
        records = pl.concat(read_pubmed_file(kept, part.key))
    assert records.filter(pl.col("record") == "quarantined").height == 1
    assert records.filter(pl.col("record") == "citation").height == 24


class Stage:
    """raw_pubmed and pubmed_citations over a server."""

    def __init__(self, root: Path, server: EntrezServer) -> None:
        self.storage = Storage(root=str(root / "storage"))
        self.instance = dg.DagsterInstance.ephemeral()
        self.entrez = query(server, batch_records=100)

    def materialize(self, key: str) -> dg.ExecuteInProcessResult:
        self.instance.add_dynamic_partitions(PUBMED_FILES, [key])
        return dg.materialize(
            [
                *dg.load_assets_from_modules([assets]),
                *dg.load_asset_checks_from_modules([checks]),
                dg.AssetSpec("mesh_descriptors"),
            ],
            selection=["raw_pubmed", "pubmed_citations"],
            partition_key=key,
            resources={
                "storage": self.storage,
                "io_manager": ParquetTables(storage=self.storage),
                "nlm": NlmServers(mesh_year=1999, **NLM_FIELDS),
                "entrez": self.entrez,
            },
            instance=self.instance,
            raise_on_error=False,
        )

    def told(self, result: dg.ExecuteInProcessResult) -> str:
        """Every word that the instance keeps of a run: events, metadata, errors, run config."""
        entries = self.instance.all_logs(result.run_id)
        run = self.instance.get_run_by_id(result.run_id)
        return "\n".join([*(entry.to_json() for entry in entries), str(run)])


# A field that some versions of NlmServers want.
NLM_FIELDS = {"connections": 2} if "connections" in NlmServers.model_fields else {}


def test_a_slice_is_a_partition_of_the_lineage_like_any_other(
    real_records: list[Record], tmp_path: Path
) -> None:
    heading = "Alzheimer Disease" if os.environ.get("MKAILIN_REAL_DATA") else "Humans"
    with entrez_server(real_records) as server:
        stage = Stage(tmp_path, server)
        stage.entrez = query(server, f'"{heading}"[mh]', batch_records=100)
        part = only_slice(stage.entrez)
        result = stage.materialize(part.key)
    assert result.success
    assert [check.check_name for check in result.get_asset_check_evaluations() if not check.passed] == []
    raw = stage.storage.read_table("raw_pubmed", part.key)
    citations = stage.storage.read_table("pubmed_citations", part.key)
    assert raw is not None
    assert raw.select("pubmed_file", "directory").row(0) == (part.key, "query")
    assert citations is not None
    wanted = {record.pmid for record in real_records if record.is_found_by(f'"{heading}"[mh]')}
    assert set(citations["pmid"]) == wanted
    assert set(citations["record"]) == {"citation"}
    metadata = result.asset_materializations_for_node("raw_pubmed")[0].metadata
    assert metadata["records"].value == len(wanted) == part.records
    assert metadata["vanished"].value == []


def test_the_key_is_in_requests_but_never_told(
    server: EntrezServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(eutils.API_KEY_VARIABLE, KEY)
    caplog.set_level(logging.DEBUG)
    stage = Stage(tmp_path, server)
    part = only_slice(stage.entrez)

    def echo(handler: _Handler) -> None:
        handler.send(500, f"no luck, {handler.given['api_key']}".encode(), "text/plain")

    server.faults["esearch"] = [too_many, echo]
    server.faults["efetch"] = [too_many, cut_off]
    good = stage.materialize(part.key)
    assert good.success
    server.faults["esearch"] = [echo] * 6
    given_up = stage.materialize(part.key)
    server.faults["esearch"] = [bad_key]
    refused = stage.materialize(part.key)
    assert not given_up.success
    assert not refused.success
    assert "NCBI refuses the API key; correct NCBI_API_KEY" in stage.told(refused)
    assert "no luck, ***" in stage.told(given_up)

    assert {given["api_key"] for _, _, given in server.requests} == {KEY}
    kept = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert kept
    for text in (*map(stage.told, (good, given_up, refused)), caplog.text, repr(stage.entrez)):
        assert KEY not in text
    for file in kept:
        assert KEY.encode() not in file.read_bytes()


def test_the_key_is_in_no_address(
    server: EntrezServer, monkeypatch: pytest.MonkeyPatch, storage: Storage
) -> None:
    monkeypatch.setenv(eutils.API_KEY_VARIABLE, KEY)
    paths = []
    monkeypatch.setattr(_Handler, "log_message", lambda handler, *args: paths.append(handler.path))
    fetched = fetch_all(query(server), storage)
    assert paths
    assert not any(KEY in path for path in paths)
    assert KEY not in fetched[0].url


def most_at_once(server: EntrezServer) -> int:
    """Requests that came within a second, less what one may be late on a busy machine."""
    times = sorted(at for at, _, _ in server.requests)
    return max(sum(1 for other in times if at <= other < at + 0.8) for at in times)


@pytest.mark.usefixtures("biopython_waits")
def test_three_requests_a_second_are_made_without_a_key(server: EntrezServer) -> None:
    server.faults["esearch"] = [too_many, unavailable]
    started = time.monotonic()
    for _ in range(3):
        query(server).slices()
    assert len(server.requests) == 8
    assert most_at_once(server) <= 3
    assert time.monotonic() - started < 8


@pytest.mark.usefixtures("biopython_waits")
def test_ten_requests_a_second_are_made_with_a_key(
    server: EntrezServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(eutils.API_KEY_VARIABLE, KEY)
    for _ in range(10):
        query(server).slices()
    assert len(server.requests) == 20
    assert 3 < most_at_once(server) <= 10


def test_runs_at_the_same_time_share_the_limit(
    server: EntrezServer, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    keys = [part.key for part in query(server, slice_records=10).slices()]
    server.requests.clear()
    # Here Biopython does not wait; in processes of their own it does.
    runs = [in_a_process(server, storage, key) for key in keys]
    assert {run.wait(60) for run in runs} == {0}
    assert len(server.requests) >= 2 * len(keys)
    assert most_at_once(server) <= 3


def test_settings_name_the_query_and_nothing_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "MKAILIN_PUBMED_QUERY": QUERY,
        "MKAILIN_EUTILS_URL": "http://127.0.0.1:9",
        "NCBI_EMAIL": "someone@example.org",
        eutils.API_KEY_VARIABLE: KEY,
    }
    settings = Settings.from_environment(given)
    entrez = resources(settings)["entrez"]
    assert (entrez.query, entrez.url, entrez.email) == (QUERY, "http://127.0.0.1:9", "someone@example.org")
    assert Settings.from_environment({**given, "MKAILIN_EMAIL": "a@b.org"}).email == "a@b.org"
    assert Settings.from_environment({}).eutils_url == eutils.EUTILS_URL
    assert KEY not in f"{settings} {entrez}"


@pytest.mark.parametrize(
    ("asked_for", "files", "slices"),
    [
        ({}, 2, 0),
        ({"MKAILIN_PUBMED_QUERY": QUERY}, 0, 1),
        ({"MKAILIN_PUBMED_QUERY": QUERY, "MKAILIN_PUBMED_FILES": "pubmed26n0001"}, 1, 1),
    ],
)
def test_what_is_asked_for_is_registered(
    server: EntrezServer, tmp_path: Path, asked_for: dict[str, str], files: int, slices: int
) -> None:
    for number in (1, 2):
        folder = tmp_path / "nlm" / "pubmed" / "baseline"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"pubmed26n000{number}.xml.gz").write_bytes(b"")
    settings = Settings.from_environment(
        {"MKAILIN_NLM_URL": str(tmp_path / "nlm"), "MKAILIN_EUTILS_URL": server.url, **asked_for}
    )
    with dg.DagsterInstance.ephemeral() as instance:
        keys = register_files(instance, settings)
        assert sorted(instance.get_dynamic_partitions(PUBMED_FILES)) == sorted(keys)
    assert sum(map(is_query_key, keys)) == slices
    assert len(keys) == files + slices
    assert keys == sorted(keys, key=file_order)
