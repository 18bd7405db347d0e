"""NLM's files arrive whole or not at all: over a real server on loopback that fails as real ones do."""

import gzip
import hashlib
import logging
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import NlmServer, cut, half, instead, nlm_server, once, slowly, status

from mkailin_resources import nlm as nlm_module
from mkailin_resources.nlm import MESH_URL, PUBMED_URL, FetchedFile, NlmError, NlmServers
from mkailin_resources.storage import Storage

LOG = logging.getLogger("test_nlm")
KEY = "pubmed26n0001"
NAME = f"{KEY}.xml.gz"
BODY = gzip.compress(b"".join(hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(60_000)), 1)
MESH = b'<?xml version="1.0"?>\n<DescriptorRecordSet LanguageCode = "eng">' + BODY.hex().encode()
WHOLE_MESH = gzip.compress(MESH + b"</DescriptorRecordSet>\n", 1)
TREES = b"Body Regions;A01\nBreast;A01.236\n"


def place(folder: Path, path: str, body: bytes) -> None:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(body)


def place_pubmed(folder: Path, directory: str, key: str, form: str = "MD5({name})= {md5}\n") -> None:
    name = f"{key}.xml.gz"
    place(folder, f"pubmed/{directory}/{name}", BODY)
    md5 = form.format(name=name, md5=hashlib.md5(BODY).hexdigest())
    place(folder, f"pubmed/{directory}/{name}.md5", md5.encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two baseline files, an update file, and MeSH of 2025, laid out as on NLM's servers."""
    made = tmp_path / "nlm"
    for directory, key in [
        ("baseline", KEY),
        ("baseline", "pubmed26n0002"),
        ("updatefiles", "pubmed26n0003"),
    ]:
        place_pubmed(made, directory, key)
    place(made, "projects/mesh/MESH_FILES/xmlmesh/desc2025.gz", WHOLE_MESH)
    place(made, "projects/mesh/MESH_FILES/meshtrees/mtrees2025.bin", TREES)
    return made


@pytest.fixture
def server(folder: Path) -> Iterator[NlmServer]:
    with nlm_server(folder) as served:
        yield served


@pytest.fixture
def nlm(server: NlmServer) -> NlmServers:
    return NlmServers(url=server.url, mesh_year=2025, retry_wait_s=0.001)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(root=str(tmp_path / "kept"))


def kept(storage: Storage, fetched: FetchedFile) -> bytes:
    with storage.open(fetched.uri) as file:
        return file.read()


def test_files_are_listed_by_year_and_number(folder: Path, nlm: NlmServers, server: NlmServer) -> None:
    place_pubmed(folder, "baseline", "pubmed9n0007")  # not a name NLM gives
    place_pubmed(folder, "updatefiles", "pubmed25n1999")
    place_pubmed(folder, "updatefiles", "pubmed26n10000")
    listed = nlm.list_pubmed_files()
    assert [(file.key, file.directory) for file in listed] == [
        ("pubmed25n1999", "updatefiles"),
        ("pubmed26n0001", "baseline"),
        ("pubmed26n0002", "baseline"),
        ("pubmed26n0003", "updatefiles"),
        ("pubmed26n10000", "updatefiles"),
    ]
    assert listed[1].url == f"{server.url}/pubmed/baseline/{NAME}"
    assert NlmServers(url=str(folder), mesh_year=2025).list_pubmed_files()[0].key == "pubmed25n1999"


def test_while_nlm_swaps_its_years_the_files_of_both_are_listed(folder: Path, nlm: NlmServers) -> None:
    place_pubmed(folder, "baseline", "pubmed27n0001")
    place_pubmed(folder, "updatefiles", "pubmed27n0002")
    assert [(file.key, file.directory) for file in nlm.list_pubmed_files()] == [
        ("pubmed26n0001", "baseline"),
        ("pubmed26n0002", "baseline"),
        ("pubmed26n0003", "updatefiles"),
        ("pubmed27n0001", "baseline"),
        ("pubmed27n0002", "updatefiles"),
    ]


APACHE_INDEX = """<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN">
<html><head><title>Index of /pubmed/baseline</title></head><body><h1>Index of /pubmed/baseline</h1>
<pre>Name                    Last modified      Size  <hr><a href="/pubmed/">Parent Directory</a>        -
<a href="README.txt">README.txt</a>               2026-01-29 14:47  4.8K
<a href="pubmed26n0002.xml.gz">pubmed26n0002.xml.gz</a>     2026-01-29 14:32   19M
<a href="pubmed26n0002.xml.gz.md5">pubmed26n0002.xml.gz.md5</a> 2026-01-29 14:32   60
<a href="pubmed26n0001.xml.gz">pubmed26n0001.xml.gz</a>     2026-01-29 14:32   19M
<hr></pre></body></html>"""


def test_an_apache_index_is_read(server: NlmServer, nlm: NlmServers) -> None:
    server.faults["/baseline/"] = [instead(APACHE_INDEX.encode())]
    server.faults["/updatefiles/"] = [status(404)]
    assert [file.key for file in nlm.list_pubmed_files()] == ["pubmed26n0001", "pubmed26n0002"]


@pytest.mark.parametrize("directory", ["/baseline/", "/updatefiles/"])
def test_a_web_page_in_place_of_an_index_is_refused_and_not_taken_for_an_empty_one(
    server: NlmServer, nlm: NlmServers, directory: str
) -> None:
    server.faults[directory] = [instead(b'<html><title>NLM</title><a href="https://nlm.nih.gov/">Back soon')]
    with pytest.raises(NlmError, match=rf"{directory}: expected an index of files, got '<html>"):
        nlm.list_pubmed_files()


def test_an_index_without_files_is_an_empty_one(folder: Path, nlm: NlmServers) -> None:
    for file in (folder / "pubmed" / "updatefiles").iterdir():
        file.unlink()
    assert [file.key for file in nlm.list_pubmed_files()] == ["pubmed26n0001", "pubmed26n0002"]


@pytest.mark.parametrize(
    ("asked", "keys"),
    [
        ("pubmed26n0002", ["0002"]),
        ("pubmed26n0003.xml.gz, pubmed26n0001", ["0001", "0003"]),
        ("pubmed26n000[12] pubmed27*", ["0001", "0002"]),
        (" ", ["0001", "0002", "0003"]),
    ],
)
def test_only_the_files_asked_for_are_listed(server: NlmServer, asked: str, keys: list[str]) -> None:
    chosen = NlmServers(url=server.url, mesh_year=2025, pubmed_files=asked).list_pubmed_files()
    assert [file.key.removeprefix("pubmed26n") for file in chosen] == keys


@pytest.mark.parametrize("asked", ["pubmed26n0001 pubmed26n0009", "pubmed27*"])
def test_a_name_that_is_not_there_is_told_with_what_there_is(server: NlmServer, asked: str) -> None:
    with pytest.raises(NlmError, match=r"no file matches pubmed2.*3 files, pubmed26n0001 to pubmed26n0003"):
        NlmServers(url=server.url, mesh_year=2025, pubmed_files=asked).list_pubmed_files()


def test_an_address_that_lists_nothing_is_refused(tmp_path: Path, server: NlmServer) -> None:
    with pytest.raises(NlmError, match="neither baseline nor updatefiles lists"):
        NlmServers(url=f"{server.url}/elsewhere", mesh_year=2025).list_pubmed_files()
    with pytest.raises(NlmError, match="there is no such folder"):
        NlmServers(url=str(tmp_path / "gone"), mesh_year=2025).list_pubmed_files()
    with pytest.raises(NlmError, match="ftp is not supported"):
        NlmServers(url="ftp://example.org", mesh_year=2025).list_pubmed_files()


@pytest.mark.parametrize("base", ["http", "folder", "file"])
def test_a_file_is_kept_as_it_came(folder: Path, server: NlmServer, storage: Storage, base: str) -> None:
    url = {"http": server.url + "/", "folder": str(folder), "file": folder.as_uri()}[base]
    fetched = NlmServers(url=url, mesh_year=2025).fetch_pubmed(storage, "pubmed26n0003", LOG)
    assert fetched == FetchedFile(
        name="pubmed26n0003.xml.gz",
        directory="updatefiles",
        url=f"{server.url if base == 'http' else folder.as_uri()}/pubmed/updatefiles/pubmed26n0003.xml.gz",
        uri=str(storage.path("raw", "pubmed", "pubmed26n0003.xml.gz")),
        bytes=len(BODY),
        md5=hashlib.md5(BODY).hexdigest(),
        sha256=hashlib.sha256(BODY).hexdigest(),
    )
    assert kept(storage, fetched) == BODY
    assert list(storage.scratch().iterdir()) == []


def test_requests_say_who_asks(nlm: NlmServers, server: NlmServer, storage: Storage) -> None:
    nlm.fetch_pubmed(storage, KEY, LOG)
    for _, _, headers in server.requests:
        assert headers["User-Agent"].startswith("m-kailin/")
        assert "@" not in headers["User-Agent"]


def test_a_whole_kept_file_is_not_fetched_again(nlm: NlmServers, server: NlmServer, storage: Storage) -> None:
    first = nlm.fetch_pubmed(storage, KEY, LOG)
    mesh = nlm.fetch_mesh(storage, LOG)
    assert nlm.fetch_pubmed(storage, KEY, LOG) == first
    assert nlm.fetch_mesh(storage, LOG) == mesh
    assert len(server.asked(NAME)) == 1
    assert len(server.asked("desc2025.gz")) == 1


def test_a_kept_file_that_was_damaged_is_fetched_again(
    nlm: NlmServers, server: NlmServer, storage: Storage
) -> None:
    for fetch in (lambda: nlm.fetch_pubmed(storage, KEY, LOG), lambda: nlm.fetch_mesh(storage, LOG)):
        fetched = fetch()
        whole = kept(storage, fetched)
        Path(fetched.uri).write_bytes(whole[:5000] + bytes(100) + whole[5100:])
        assert fetch() == fetched
        assert kept(storage, fetched) == whole
    assert len(server.asked(NAME)) == len(server.asked("desc2025.gz")) == 2


def test_a_mesh_file_that_nlm_replaced_is_fetched_again(
    folder: Path, nlm: NlmServers, storage: Storage
) -> None:
    nlm.fetch_mesh(storage, LOG)
    place(
        folder,
        "projects/mesh/MESH_FILES/xmlmesh/desc2025.gz",
        gzip.compress(MESH + b"</DescriptorRecordSet>", 9),
    )
    assert kept(storage, nlm.fetch_mesh(storage, LOG)) != WHOLE_MESH


def test_a_dropped_connection_is_resumed_at_the_byte_reached(
    nlm: NlmServers, server: NlmServer, storage: Storage
) -> None:
    server.faults[NAME] = [cut(700_000), cut(300_000)]
    assert kept(storage, nlm.fetch_pubmed(storage, KEY, LOG)) == BODY
    assert [headers.get("Range") for headers in server.asked(NAME)] == [
        None,
        "bytes=700000-",
        "bytes=1000000-",
    ]


def test_attempts_count_anew_when_the_file_has_grown(
    nlm: NlmServers, server: NlmServer, storage: Storage
) -> None:
    server.faults[NAME] = [cut(100_000)] * 15
    assert kept(storage, nlm.fetch_pubmed(storage, KEY, LOG)) == BODY
    assert len(server.asked(NAME)) == 16


def test_a_server_that_ignores_ranges_is_fetched_from_the_start(
    nlm: NlmServers, server: NlmServer, storage: Storage
) -> None:
    server.takes_ranges = False
    server.faults[NAME] = [cut(700_000), cut(300_000)]
    assert kept(storage, nlm.fetch_pubmed(storage, KEY, LOG)) == BODY
    assert len(server.asked(NAME)) == 3


def test_what_a_failed_run_reached_is_used_by_the_next(
    nlm: NlmServers, server: NlmServer, storage: Storage
) -> None:
    server.faults[NAME] = [cut(700_000), *[cut(0)] * 6]
    with pytest.raises(NlmError, match=rf"{NAME}: .*gave up after 6 attempts.*goes on from what was reached"):
        nlm.fetch_pubmed(storage, KEY, LOG)
    assert len(server.asked(NAME)) == 7
    assert not storage.path("raw").exists()
    assert kept(storage, nlm.fetch_pubmed(storage, KEY, LOG)) == BODY
    assert server.asked(NAME)[-1]["Range"] == "bytes=700000-"


@pytest.mark.parametrize("leftover", [b"\x1f\x8b of another file", BODY + b"more than there is", BODY])
def test_a_leftover_that_does_not_fit_is_replaced(
    nlm: NlmServers, server: NlmServer, storage: Storage, leftover: bytes
) -> None:
    (storage.scratch() / f".{NAME}.part").write_bytes(leftover)
    assert kept(storage, nlm.fetch_pubmed(storage, KEY, LOG)) == BODY
    assert len(server.asked(NAME)) == {BODY: 1}.get(leftover, 2)


def test_busy_answers_are_tried_again(nlm: NlmServers, server: NlmServer, storage: Storage) -> None:
    server.faults[f"{NAME}.md5"] = [status(503)]
    server.faults[NAME] = [status(429), status(500), status(502)]
    server.faults["desc2025.gz"] = [status(503), cut(1000)]
    assert kept(storage, nlm.fetch_pubmed(storage, KEY, LOG)) == BODY
    assert kept(storage, nlm.fetch_mesh(storage, LOG)) == WHOLE_MESH


def test_waits_grow_and_no_two_runs_wait_alike(
    server: NlmServer, storage: Storage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stretched = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr(nlm_module, "_jitter", lambda: next(stretched))
    nlm = NlmServers(url=server.url, mesh_year=2025, retry_wait_s=0.1)
    with caplog.at_level(logging.WARNING):
        server.faults[NAME] = [status(503)] * 3
        nlm.fetch_pubmed(storage, KEY, LOG)
    seconds = [float(text.rpartition(" in ")[2].removesuffix(" s")) for text in caplog.messages]
    assert seconds == [0.1, 0.4, 1.2], "0.1, 0.2 and 0.4, each stretched"
    monkeypatch.undo()
    assert len({nlm_module._jitter() for _ in range(9)}) == 9


def test_retry_after_is_honoured(nlm: NlmServers, server: NlmServer, storage: Storage) -> None:
    server.faults[NAME] = [status(429, retry_after="1")]
    started = time.monotonic()
    nlm.fetch_pubmed(storage, KEY, LOG)
    assert 1 <= time.monotonic() - started < 5


@pytest.mark.parametrize("wait", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_server_that_asks_for_a_long_wait_is_not_waited_for(
    nlm: NlmServers, server: NlmServer, storage: Storage, wait: str
) -> None:
    server.faults[NAME] = [status(503, retry_after=wait)]
    with pytest.raises(NlmError, match=r"503 Service Unavailable and asks to wait \d+ s; run it again then"):
        nlm.fetch_pubmed(storage, KEY, LOG)


def test_a_server_that_stays_busy_is_given_up(nlm: NlmServers, server: NlmServer, storage: Storage) -> None:
    server.faults[NAME] = [status(503)] * 100
    with pytest.raises(NlmError, match=rf"{server.url}.*{NAME}: the server answered 503.*gave up after 6"):
        nlm.fetch_pubmed(storage, KEY, LOG)
    assert len(server.asked(NAME)) == 6


def test_a_server_that_is_not_there_is_named(storage: Storage) -> None:
    with pytest.raises(
        NlmError, match=r"http://127.0.0.1:9/pubmed/baseline/.*check the network and the address"
    ):
        NlmServers(url="http://127.0.0.1:9", mesh_year=2025, retry_wait_s=0.001).list_pubmed_files()


def test_a_refused_request_is_not_tried_again(nlm: NlmServers, server: NlmServer, storage: Storage) -> None:
    server.faults[NAME] = [status(403)]
    with pytest.raises(NlmError, match=rf"{NAME}: the server answered 403 Forbidden; check the address"):
        nlm.fetch_pubmed(storage, KEY, LOG)
    assert len(server.asked(NAME)) == 1


@pytest.mark.parametrize(
    "form", ["MD5({name})= {md5}\n", "MD5 ({name}) = {md5}\n", "{md5}  {name}\n", "{md5} *{name}", "{md5}"]
)
def test_each_published_form_of_an_md5_is_read(
    folder: Path, nlm: NlmServers, storage: Storage, form: str
) -> None:
    place_pubmed(folder, "baseline", KEY, form)
    assert nlm.fetch_pubmed(storage, KEY, LOG).md5 == hashlib.md5(BODY).hexdigest()


@pytest.mark.parametrize("text", [b"<html>busy</html>", b"", b"MD5(pubmed26n0002.xml.gz)= " + b"0" * 32])
def test_an_md5_file_that_is_not_of_this_file_is_refused(
    folder: Path, nlm: NlmServers, storage: Storage, text: bytes
) -> None:
    place(folder, f"pubmed/baseline/{NAME}.md5", text)
    with pytest.raises(NlmError, match=rf"{NAME}.md5: expected the MD5 of {NAME}, got"):
        nlm.fetch_pubmed(storage, KEY, LOG)


@pytest.mark.parametrize("base", ["http", "folder"])
def test_a_file_whose_md5_is_wrong_is_refused_and_the_kept_one_stays(
    folder: Path, server: NlmServer, storage: Storage, base: str
) -> None:
    nlm = NlmServers(url=server.url if base == "http" else str(folder), mesh_year=2025)
    fetched = nlm.fetch_pubmed(storage, KEY, LOG)
    place(folder, f"pubmed/baseline/{NAME}.md5", f"MD5({NAME})= {'0' * 32}".encode())
    message = rf"{NAME}: MD5 is {fetched.md5}, NLM says 0{{32}}; it was thrown away"
    with pytest.raises(NlmError, match=message):
        nlm.fetch_pubmed(storage, KEY, LOG)
    assert kept(storage, fetched) == BODY


def test_half_a_file_that_the_server_calls_whole_is_refused_and_the_next_run_gets_it(
    nlm: NlmServers, server: NlmServer, storage: Storage
) -> None:
    server.faults[NAME] = [half()]
    with pytest.raises(NlmError, match=rf"{NAME}: MD5 is .* it was thrown away"):
        nlm.fetch_pubmed(storage, KEY, LOG)
    assert not storage.path("raw").exists()
    assert kept(storage, nlm.fetch_pubmed(storage, KEY, LOG)) == BODY


@pytest.mark.parametrize("base", ["http", "folder"])
def test_a_web_page_in_place_of_a_file_is_refused(
    folder: Path, server: NlmServer, storage: Storage, base: str
) -> None:
    nlm = NlmServers(url=server.url if base == "http" else str(folder), mesh_year=2025)
    page = b"<!DOCTYPE html><html><body>Under maintenance</body></html>"
    for path in (f"pubmed/baseline/{NAME}", "projects/mesh/MESH_FILES/xmlmesh/desc2025.gz"):
        place(folder, path, page)
    place(folder, "projects/mesh/MESH_FILES/meshtrees/mtrees2025.bin", page)
    with pytest.raises(NlmError, match=rf"{NAME}: expected a gzip file, got b'<!DOCTYPE html>"):
        nlm.fetch_pubmed(storage, KEY, LOG)
    with pytest.raises(NlmError, match=r"desc2025.gz: expected a gzip file, got b'<!DOCTYPE html>"):
        nlm.fetch_mesh(storage, LOG)
    with pytest.raises(NlmError, match=r"mtrees2025.bin: expected lines such as 'Body Regions;A01', got"):
        nlm.fetch_tree_file(storage, LOG)
    assert not storage.path("raw").exists()


def test_a_gz_that_the_server_labels_as_encoded_is_kept_packed(
    nlm: NlmServers, server: NlmServer, storage: Storage
) -> None:
    server.faults[NAME] = [instead(BODY, "text/xml", Content_Encoding="gzip")]
    assert kept(storage, nlm.fetch_pubmed(storage, KEY, LOG)) == BODY


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (WHOLE_MESH[:50_000], "damaged or cut off"),
        (WHOLE_MESH[:50_000] + bytes(100) + WHOLE_MESH[50_100:], "damaged or cut off"),
        (gzip.compress(MESH), "expected one whole XML DescriptorRecordSet"),
        (gzip.compress(b"<html></html>"), "expected one whole XML DescriptorRecordSet"),
        (b"", "expected a gzip file"),
    ],
)
def test_descriptors_that_are_not_whole_are_refused(
    folder: Path, nlm: NlmServers, storage: Storage, body: bytes, reason: str
) -> None:
    place(folder, "projects/mesh/MESH_FILES/xmlmesh/desc2025.gz", body)
    with pytest.raises(NlmError, match=rf"desc2025.gz: .*{reason}"):
        nlm.fetch_mesh(storage, LOG)


def test_a_year_that_is_not_there_is_told_with_those_that_are(
    folder: Path, server: NlmServer, storage: Storage
) -> None:
    place(folder, "projects/mesh/MESH_FILES/xmlmesh/desc2024.gz", WHOLE_MESH)
    absent = NlmServers(url=server.url, mesh_year=1999)
    with pytest.raises(
        NlmError, match=r"there is no desc1999.gz; the years it lists: 2024, 2025; set the MeSH"
    ):
        absent.fetch_mesh(storage, LOG)
    assert absent.fetch_tree_file(storage, LOG) is None


def test_the_tree_file_of_the_year_is_kept(nlm: NlmServers, storage: Storage) -> None:
    fetched = nlm.fetch_tree_file(storage, LOG)
    assert fetched is not None
    assert kept(storage, fetched) == TREES


@pytest.mark.parametrize("key", ["pubmed26n9999", "pubmed26n0001.xml.gz", "../../etc/passwd", ""])
def test_an_unknown_key_is_explained(nlm: NlmServers, storage: Storage, key: str) -> None:
    with pytest.raises(NlmError, match=r"list the files again|keys look like pubmed26n0001"):
        nlm.fetch_pubmed(storage, key, LOG)


def test_files_are_kept_on_an_object_store(
    nlm: NlmServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: NlmServer
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    remote = Storage(root=f"memory://{tmp_path.name}")
    for _ in range(2):
        fetched = nlm.fetch_pubmed(remote, KEY, LOG)
        mesh = nlm.fetch_mesh(remote, LOG)
    assert fetched.uri == f"memory://{tmp_path.name}/raw/pubmed/{NAME}"
    assert (kept(remote, fetched), kept(remote, mesh)) == (BODY, WHOLE_MESH)
    assert len(server.asked(NAME)) == len(server.asked("desc2025.gz")) == 1


FETCH = """
import logging, sys
from mkailin_resources.nlm import NlmServers
from mkailin_resources.storage import Storage

nlm = NlmServers(url=sys.argv[1], mesh_year=2025, retry_wait_s=0.001)
print(nlm.fetch_pubmed(Storage(root=sys.argv[2]), sys.argv[3], logging.getLogger()).sha256)
"""


def test_two_runs_of_one_file_at_once_both_finish_with_one_whole_file(
    server: NlmServer, storage: Storage
) -> None:
    def both_run() -> bool:
        return len(server.asked(f"{NAME}.md5")) == 2

    server.faults[NAME] = [once(both_run, cut(100_000)), *[cut(100_000)] * 9]
    command = [sys.executable, "-c", FETCH, server.url, storage.root, KEY]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert {run.communicate()[0].strip() for run in runs} == {hashlib.sha256(BODY).hexdigest()}
    assert Path(str(storage.path("raw", "pubmed", NAME))).read_bytes() == BODY
    assert len(server.asked(NAME)) == 11


def test_runs_share_the_few_connections_to_a_server(
    folder: Path, server: NlmServer, storage: Storage, tmp_path: Path
) -> None:
    keys = [KEY, "pubmed26n0002", "pubmed26n0003", "pubmed26n0004", "pubmed26n0005"]
    for key in keys[3:]:
        place_pubmed(folder, "updatefiles", key)
    for key in keys:
        server.faults[f"{key}.xml.gz"] = [slowly(1.0)]
    code = FETCH.replace("retry_wait_s=0.001", "connections=2")
    runs = [
        subprocess.Popen([sys.executable, "-c", code, server.url, storage.root, key], stdout=subprocess.PIPE)
        for key in keys
    ]
    assert [run.wait() for run in runs] == [0] * 5
    assert server.most_at_once == 2


def test_a_killed_run_lets_go_of_its_connection(server: NlmServer, storage: Storage) -> None:
    server.faults[NAME] = [slowly(60)]
    code = FETCH.replace("retry_wait_s=0.001", "connections=1")
    run = subprocess.Popen([sys.executable, "-c", code, server.url, storage.root, KEY])
    while not server.at_once:
        time.sleep(0.01)
    run.kill()
    run.wait()
    alone = NlmServers(url=server.url, mesh_year=2025, connections=1)
    assert kept(storage, alone.fetch_pubmed(storage, "pubmed26n0002", LOG)) == BODY


def test_the_log_says_how_far_how_fast_and_how_long(
    nlm: NlmServers,
    server: NlmServer,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(nlm_module, "_PROGRESS_EVERY_S", 0.1)
    server.faults[NAME] = [slowly(1.0)]
    with caplog.at_level(logging.INFO):
        nlm.fetch_pubmed(storage, KEY, LOG)
    told = [
        re.search(r"([\d.]+) of 1\.9 MB, ([\d.]+) MB/s, 0:00:(\d\d) left", text) for text in caplog.messages
    ]
    reached = [float(found[1]) for found in told if found]
    assert len(reached) >= 3
    assert reached == sorted(reached)


@pytest.mark.parametrize(
    ("total", "rate", "line"),
    [
        (19_500_000, 1_200_000.0, "12.3 of 19.5 MB, 1.2 MB/s, 0:00:06 left"),
        (39_300_000_000, 1_000_000.0, "12.3 of 39300.0 MB, 1.0 MB/s, 10:54:48 left"),
        (None, 1_200_000.0, "12.3 MB, 1.2 MB/s"),
    ],
)
def test_progress_reads_like_a_sentence(total: int | None, rate: float, line: str) -> None:
    assert nlm_module._progress(12_300_000, total, rate) == line


def test_nlm_itself_is_asked_by_default() -> None:
    nlm = NlmServers(mesh_year=2025)
    assert nlm._server(PUBMED_URL, LOG).url("pubmed") == "https://ftp.ncbi.nlm.nih.gov/pubmed"
    assert nlm._server(MESH_URL, LOG).url("projects/mesh") == "https://nlmpubs.nlm.nih.gov/projects/mesh"


def test_the_real_files_are_fetched_and_verified(real_data: Path, storage: Storage) -> None:
    with nlm_server(real_data / "nlm") as served:
        nlm = NlmServers(url=served.url, mesh_year=2024)
        fetched = [nlm.fetch_pubmed(storage, file.key, LOG) for file in nlm.list_pubmed_files()]
        assert [(file.name, file.directory) for file in fetched] == [
            *[(f"pubmed26n000{number}.xml.gz", "baseline") for number in (1, 2, 3, 4)],
            *[(f"pubmed26n000{number}.xml.gz", "updatefiles") for number in (5, 6)],
        ]
        assert nlm.fetch_mesh(storage, LOG).bytes == 4_001_345
        assert nlm.fetch_tree_file(storage, LOG) is None
        trees = NlmServers(url=served.url, mesh_year=2021).fetch_tree_file(storage, LOG)
        assert trees is not None
        with pytest.raises(NlmError, match=r"there is no desc2021.gz; the years it lists: 2024;"):
            NlmServers(url=served.url, mesh_year=2021).fetch_mesh(storage, LOG)
