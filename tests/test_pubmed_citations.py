"""Reading PubMed files: every shape NLM published, and every way a file or a record can be broken."""

import gzip
import io
from pathlib import Path

import polars as pl
import pytest

from mkailin_assets.pubmed.citations import read_pubmed_file
from mkailin_assets.pubmed.columns import citation_columns
from mkailin_assets.pubmed.elements import plainly
from mkailin_assets.pubmed.records import UnreadablePubmedFile, records
from mkailin_assets.pubmed.tables import PubmedRecord

DOCTYPE = '<!DOCTYPE PubmedArticleSet SYSTEM "http://127.0.0.1:9/pubmed.dtd">'


def article(pmid: int, body: str = "", title: str = "A title.", data: str = "") -> str:
    return (
        f'<PubmedArticle><MedlineCitation Status="MEDLINE"><PMID Version="1">{pmid}</PMID><Article>'
        "<Journal><JournalIssue><PubDate><Year>2020</Year></PubDate></JournalIssue><Title>Journal</Title>"
        f"</Journal><ArticleTitle>{title}</ArticleTitle>{body}</Article></MedlineCitation>"
        f"<PubmedData>{data}</PubmedData></PubmedArticle>"
    )


def article_set(*records: str, root: str = "PubmedArticleSet", prolog: str = DOCTYPE) -> bytes:
    opening = f'<?xml version="1.0" encoding="utf-8"?>\n{prolog}\n<{root}>\n'
    return f"{opening}{''.join(records)}\n</{root}>\n".encode()


def read(content: bytes, name: str = "pubmed26n0001") -> pl.DataFrame:
    return PubmedRecord.validate(pl.concat(read_pubmed_file(io.BytesIO(content), name)))


def one(*records: str) -> dict[str, object]:
    return read(article_set(*records)).row(0, named=True)


def cited(inside: str) -> str:
    """A record with this beside its article."""
    return article(7).replace("</Article></MedlineCitation>", f"</Article>{inside}</MedlineCitation>")


EVERYTHING = """<PubmedArticle>
<MedlineCitation Status="MEDLINE" Owner="NLM">
 <PMID Version="2">7</PMID>
 <DateCompleted><Year>2021</Year><Month>03</Month><Day>9</Day></DateCompleted>
 <DateRevised><Year>2022</Year><Month>12</Month><Day>31</Day></DateRevised>
 <Article PubModel="Print-Electronic">
  <Journal><ISSN IssnType="Print">0000-0001</ISSN><JournalIssue CitedMedium="Internet"><Volume>12</Volume>
   <Issue>3 Suppl</Issue><PubDate><Year>2020</Year><Month>Dec</Month></PubDate></JournalIssue>
   <Title>Journal of Fruit</Title><ISOAbbreviation>J. Fruit</ISOAbbreviation></Journal>
  <ArticleTitle>A title.</ArticleTitle>
  <Pagination><StartPage>112</StartPage><EndPage>116</EndPage><MedlinePgn>112-6</MedlinePgn></Pagination>
  <ELocationID EIdType="pii" ValidYN="Y">S1</ELocationID>
  <ELocationID EIdType="doi" ValidYN="N">10.1/wrong</ELocationID>
  <ELocationID EIdType="doi" ValidYN="Y">10.1/right</ELocationID>
  <Abstract><AbstractText Label="AIM" NlmCategory="OBJECTIVE">Why.</AbstractText>
   <AbstractText>That.</AbstractText><CopyrightInformation>Nobody.</CopyrightInformation></Abstract>
  <AuthorList CompleteYN="Y">
   <Author ValidYN="Y"><LastName>Nobody &amp; Sons</LastName><ForeName>Ann B</ForeName><Initials>AB</Initials>
    <Suffix>Jr</Suffix><Identifier Source="ORCID">http://orcid.org/000000021825009x</Identifier>
    <AffiliationInfo><Affiliation>Orchard, Peru.</Affiliation></AffiliationInfo>
    <AffiliationInfo><Affiliation>Cellar, Peru.</Affiliation></AffiliationInfo></Author>
   <Author ValidYN="Y"><CollectiveName>The Fruit Group</CollectiveName></Author></AuthorList>
  <Language>spa</Language><Language>eng</Language>
  <GrantList CompleteYN="Y"><Grant><GrantID>G1</GrantID><Acronym>F</Acronym><Agency>Fruit Fund</Agency>
   <Country>Peru</Country></Grant><Grant><Agency>Pear Fund</Agency><Country/></Grant></GrantList>
  <PublicationTypeList><PublicationType UI="D016428">Journal Article</PublicationType></PublicationTypeList>
  <VernacularTitle>Un título.</VernacularTitle>
  <ArticleDate DateType="Electronic"><Year>2020</Year><Month>11</Month><Day>02</Day></ArticleDate>
 </Article>
 <MedlineJournalInfo><Country>Peru</Country><MedlineTA>J Fruit</MedlineTA><NlmUniqueID>0123456</NlmUniqueID>
  <ISSNLinking>0000-0002</ISSNLinking></MedlineJournalInfo>
 <ChemicalList><Chemical><RegistryNumber>0</RegistryNumber>
  <NameOfSubstance UI="D000003">Pectins</NameOfSubstance></Chemical></ChemicalList>
 <CommentsCorrectionsList><CommentsCorrections RefType="ErratumIn"><RefSource>J Fruit. 2021;1:1</RefSource>
  <PMID Version="1">99</PMID></CommentsCorrections></CommentsCorrectionsList>
 <MeshHeadingList>
  <MeshHeading><DescriptorName UI="D000001" MajorTopicYN="N">Apples &amp; Pears</DescriptorName>
   <QualifierName UI="Q000001" MajorTopicYN="Y">therapy</QualifierName>
   <QualifierName UI="Q000002" MajorTopicYN="N">economics</QualifierName></MeshHeading>
  <MeshHeading><DescriptorName UI="D000002" MajorTopicYN="N" Type="Geographic">Peru</DescriptorName>
  </MeshHeading></MeshHeadingList>
 <OtherID Source="NLM">PMC5</OtherID>
 <OtherAbstract Type="Publisher" Language="spa">
  <AbstractText Label="META">Por qué.</AbstractText></OtherAbstract>
 <KeywordList Owner="NLM"><Keyword>not the authors'</Keyword></KeywordList>
 <KeywordList Owner="NOTNLM"><Keyword MajorTopicYN="N">fruit</Keyword></KeywordList>
</MedlineCitation>
<PubmedData><ArticleIdList><ArticleId IdType="doi">10.1/other</ArticleId></ArticleIdList>
 <ReferenceList><Reference><ArticleIdList><ArticleId IdType="pmc">PMC6</ArticleId></ArticleIdList></Reference>
 </ReferenceList></PubmedData></PubmedArticle>"""


def test_all_columns_of_a_citation_are_read() -> None:
    row = one(EVERYTHING)
    assert len(str(row.pop("content_hash"))) == 16
    nameless = {"last_name": None, "fore_name": None, "initials": None, "suffix": None, "orcid": None}
    assert row == {
        "record": "citation",
        "position": 0,
        "pmid": 7,
        "version": 2,
        "pubmed_file": "pubmed26n0001",
        "status": "MEDLINE",
        "title": "A title.",
        "vernacular_title": "Un título.",
        "abstract": [
            {"label": "AIM", "category": "OBJECTIVE", "text": "Why."},
            {"label": None, "category": None, "text": "That."},
        ],
        "other_abstracts": [
            {"type": "Publisher", "language": "spa", "label": "META", "category": None, "text": "Por qué."}
        ],
        "language": ["spa", "eng"],
        "publication_types": [{"ui": "D016428", "name": "Journal Article"}],
        "year": 2020,
        "published": "2020-12",
        "medline_date": None,
        "electronic": "2020-11-02",
        "completed": "2021-03-09",
        "revised": "2022-12-31",
        "journal": "Journal of Fruit",
        "journal_abbreviation": "J Fruit",
        "nlm_unique_id": "0123456",
        "issn": "0000-0002",
        "volume": "12",
        "issue": "3 Suppl",
        "pages": "112-6",
        "authors": [
            {
                "last_name": "Nobody & Sons",
                "fore_name": "Ann B",
                "initials": "AB",
                "suffix": "Jr",
                "collective_name": None,
                "orcid": "0000-0002-1825-009X",
                "affiliations": ["Orchard, Peru.", "Cellar, Peru."],
            },
            {**nameless, "collective_name": "The Fruit Group", "affiliations": []},
        ],
        "grants": [
            {"id": "G1", "agency": "Fruit Fund", "country": "Peru"},
            {"id": None, "agency": "Pear Fund", "country": None},
        ],
        "chemicals": [{"ui": "D000003", "registry_number": "0", "name": "Pectins"}],
        "headings": [
            {
                "ui": "D000001",
                "name": "Apples & Pears",
                "major": True,
                "qualifiers": ["therapy", "economics"],
            },
            {"ui": "D000002", "name": "Peru", "major": False, "qualifiers": []},
        ],
        "keywords": ["fruit"],
        "doi": "10.1/right",
        "pmc": "PMC5",
        "comments_corrections": [{"ref_type": "ErratumIn", "pmid": 99, "source": "J Fruit. 2021;1:1"}],
        "retracted": False,
        "cause": None,
        "raw": None,
    }


@pytest.mark.parametrize(
    ("written", "reads"),
    [
        ("H<sub>2</sub>O at 10<sup>-6</sup> M", "H2O at 10^-6 M"),
        ("the 18<sup>th</sup> century", "the 18th century"),
        ("Ca<sup>2+</sup> in <i>E. <b>coli</b></i> rose", "Ca2+ in E. coli rose"),
        ("a &lt; b &amp; c", "a < b & c"),
        ("one\n        line", "one line"),
        ("a <!-- aside -->b<?pi?>", "a b"),
        ("<![CDATA[x < y]]>", "x < y"),
        ("<m:math xmlns:m='M'><m:mfrac><m:mn>1</m:mn><m:mn>2</m:mn></m:mfrac></m:math>", "1/2"),
        (
            "<m:math xmlns:m='M'><m:mmultiscripts><m:mi>Xe</m:mi><m:mprescripts/><m:none/><m:mn>129</m:mn>"
            "</m:mmultiscripts><m:mtext> MRI</m:mtext></m:math>",
            "129Xe MRI",
        ),
    ],
)
def test_markup_reads_as_it_is_meant(written: str, reads: str) -> None:
    assert one(article(7, title=written))["title"] == reads


def test_of_a_span_of_years_the_first_counts() -> None:
    record = article(7).replace("<Year>2020</Year>", "<MedlineDate>1998 Dec-1999 Jan</MedlineDate>")
    assert one(record)["year"] == 1998


@pytest.mark.parametrize(
    "record",
    [
        cited(
            '<CommentsCorrectionsList><CommentsCorrections RefType="RetractionIn"><RefSource>x</RefSource>'
            "</CommentsCorrections></CommentsCorrectionsList>"
        ),
        cited(
            "<CommentsCorrections><RetractionIn><RefSource>x</RefSource><PMID>9</PMID></RetractionIn>"
            "</CommentsCorrections>"
        ),
        article(
            7,
            "<PublicationTypeList><PublicationType>Retracted Publication</PublicationType>"
            "</PublicationTypeList>",
        ),
    ],
)
def test_a_retraction_is_noticed_however_it_is_marked(record: str) -> None:
    assert one(record)["retracted"] is True


def test_the_content_hash_tells_what_distillation_reads() -> None:
    body = "<Abstract><AbstractText>That.</AbstractText></Abstract>"
    same = one(article(8, body + "<Language>eng</Language>"))["content_hash"]
    assert one(article(7, body))["content_hash"] == same
    assert one(article(7, body, title="Another."))["content_hash"] != same
    assert one(article(7, body.replace("That", "This")))["content_hash"] != same
    assert one(article(7, body.replace("<AbstractText>", '<AbstractText Label="A">')))["content_hash"] != same


def test_a_citation_with_a_vernacular_title_alone_is_kept() -> None:
    row = one(article(7, "<VernacularTitle>Ein Titel</VernacularTitle>", title=""))
    assert (row["record"], row["title"], row["vernacular_title"]) == ("citation", None, "Ein Titel")


def test_deleted_pmids_are_rows() -> None:
    deletion = '<DeleteCitation><PMID Version="1">8</PMID><PMID Version="2">9</PMID></DeleteCitation>'
    table = read(article_set(article(7), deletion))
    assert table["record"].to_list() == ["citation", "deleted", "deleted"]
    assert table["position"].to_list() == [0, 1, 2]
    assert table["pmid"].to_list() == [7, 8, 9]


@pytest.mark.parametrize(
    ("broken", "cause", "pmid"),
    [
        (article(8).replace("</ArticleTitle>", ""), "malformed XML", 8),
        (article(8).replace("</Article>", "</Artikel>"), "malformed XML", 8),
        (article(8, title="a & b"), "malformed XML", 8),
        (article(8, title="&bomb;"), "malformed XML", 8),
        (article(8, title="\x07"), "malformed XML", 8),
        (article(8).replace("</PubmedArticle>", ""), "malformed XML", 8),
        (
            article(8, "<AuthorList><Author><LastName>A & B</LastName></Author></AuthorList>"),
            "malformed XML",
            8,
        ),
        (article(8, "<AuthorList><Author><LastName>A</Author></AuthorList>"), "malformed XML", 8),
        (
            cited("<MeshHeadingList><MeshHeading><DescriptorName>A</MeshHeading></MeshHeadingList>"),
            "malformed XML",
            7,
        ),
        (
            cited("<MeshHeadingList><MeshHeading><DescriptorName>A</Name></MeshHeading></MeshHeadingList>"),
            "malformed XML",
            7,
        ),
        (
            cited(
                "<MeshHeadingList><MeshHeading><QualifierName>A</QualifierName></MeshHeading></MeshHeadingList>"
            ),
            "a MeshHeading without DescriptorName",
            7,
        ),
        (article(8).replace('<PMID Version="1">8</PMID>', ""), "no PMID", None),
        (article(8).replace(">8<", ">eight<"), "the PMID is eight", None),
        (article(8, title=" "), "no title", 8),
        ("<PubmedArticle><Nothing/></PubmedArticle>", "no MedlineCitation", None),
        ("<PubmedBookArticle><BookDocument/></PubmedBookArticle>", "a book", None),
        ("stray text", "between records", None),
        ("<DeleteCitation><PMID>x</PMID></DeleteCitation>", "DeleteCitation: the PMID is x", None),
    ],
)
def test_a_broken_record_is_quarantined_and_the_others_load(
    broken: str, cause: str, pmid: int | None
) -> None:
    table = read(article_set(article(5), broken, article(6)))
    assert table["record"].to_list() == ["citation", "quarantined", "citation"]
    assert table["pmid"].to_list() == [5, pmid, 6]
    quarantined = table.row(1, named=True)
    assert quarantined["position"] == 1
    assert cause in quarantined["cause"]
    assert quarantined["raw"].strip() in broken


def test_bytes_that_are_no_utf8_cost_their_record_alone() -> None:
    content = article_set(article(5), article(6)).replace(b"A title.", b"A \xff title.", 1)
    assert read(content)["record"].to_list() == ["quarantined", "citation"]


def test_an_identifier_of_another_citation_is_not_taken() -> None:
    inside = '<CommentsCorrections RefType="CommentOn"><PMID Version="1">99</PMID></CommentsCorrections>'
    row = one(cited(inside).replace('<PMID Version="1">7</PMID>', ""))
    assert (row["record"], row["pmid"]) == ("quarantined", None)


BOMB = (
    '<!DOCTYPE PubmedArticleSet [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>'
)
FILE_ENTITY = '<!DOCTYPE PubmedArticleSet [<!ENTITY a SYSTEM "file:///etc/hostname">]>'
INTACT = article_set(article(5), article(6))


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "empty"),
        (gzip.compress(b"", mtime=0), "empty"),
        (b" \n", "empty"),
        (b"<!DOCTYPE html><html><body>503</body></html>", "HTML"),
        (gzip.compress(b"<html><body>503</body></html>", mtime=0), "HTML"),
        (b"503 Service Unavailable", "not XML"),
        (b"<DescriptorRecordSet></DescriptorRecordSet>", "root is DescriptorRecordSet"),
        (article_set(article(5, title="&c;"), prolog=BOMB), "internal subset"),
        (article_set(article(5, title="&a;"), prolog=FILE_ENTITY), "internal subset"),
        (INTACT.replace(b"utf-8", b"utf-16"), "encoding is utf-16"),
        (INTACT[:-30], "truncated"),
        (INTACT[: len(INTACT) // 2], "truncated"),
        (gzip.compress(INTACT, mtime=0)[:-9], "truncated"),
        (gzip.compress(INTACT, mtime=0)[:150], "truncated"),
        (gzip.compress(INTACT, mtime=0)[:-8] + b"\0\0\0\0\0\0\0\0", "corrupt"),
        (gzip.compress(INTACT, mtime=0) + b"rubbish", "corrupt"),
        (INTACT + INTACT, "something follows"),
        (b"\xef\xbb\xbf" + b"<!-- a -->" * 5000, "not XML"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_with_its_name_and_cause(content: bytes, cause: str) -> None:
    with pytest.raises(UnreadablePubmedFile, match=rf"pubmed26n0001: .*{cause}"):
        read(content)


def test_a_record_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkailin_assets.pubmed.records._LONGEST_RECORD", 1 << 20)
    endless = gzip.compress(article_set(article(5)).replace(b"</PubmedArticle", b" " * (8 << 20)))
    with pytest.raises(UnreadablePubmedFile, match="more than 1 MB"):
        read(endless)


@pytest.mark.parametrize("root", ["<PubmedArticleSet></PubmedArticleSet>", "<PubmedArticleSet/>"])
def test_a_file_without_records_is_an_empty_table(root: str) -> None:
    assert read(root.encode()).is_empty()


def test_a_gzip_file_of_several_members_is_read_to_its_end() -> None:
    assert read(gzip.compress(INTACT[:200]) + gzip.compress(INTACT[200:])).height == 2


def test_where_the_stream_is_cut_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    content = article_set(article(5), "<!-- <PubmedArticle> -->", "stray", article(6), "<DeleteCitation/>")
    whole = read(content)
    monkeypatch.setattr("mkailin_assets.pubmed.records._HEAD", 200)
    for size in (1, 7, 64):
        monkeypatch.setattr("mkailin_assets.pubmed.records._CHUNK", size)
        assert read(content).equals(whole)


# file: citations, deleted
SAMPLES = {
    "medsamp2006.xml": (88, 0),
    "medsamp2014.xml.gz": (161, 7),
    "medsamp2016.xml": (168, 0),
    "netsynergy_pubmed21n0001.xml.gz": (49, 0),
    "netsynergy_pubmed21n1000.xml.gz": (29, 0),
    "netsynergy_pubmed21n1001.xml.gz": (37, 0),
    "netsynergy_pubmed21n1002.xml.gz": (45, 0),
    "netsynergy_pubmed21n1003.xml.gz": (51, 0),
    "netsynergy_pubmed21n1004.xml.gz": (88, 0),
    "netsynergy_pubmed21n1005.xml.gz": (20, 0),
    "pubmed20n0001_10.xml.gz": (10, 0),
    "pubmed20n0002_10.xml.gz": (10, 0),
    "pubmed20n1016_sample.xml.gz": (26, 262),
    "pubmed20n1203_10.xml.gz": (10, 23),
    "pubmed22n1115_sample.xml.gz": (3, 34),
    "pubmed22n1313_sample.xml.gz": (4, 559),
    "pubmed26n1334_sample.xml.gz": (30, 0),
    "pubmed26n1335_sample.xml.gz": (30, 6),
    "pubmedsample18n0001.xml.gz": (177, 0),
    "pubmedsample_2019.xml.gz": (176, 7),
}
REAL = {
    "baseline/pubmed26n0001": (603, 0),
    "baseline/pubmed26n0002": (603, 0),
    "baseline/pubmed26n0003": (603, 0),
    "baseline/pubmed26n0004": (603, 0),
    "updatefiles/pubmed26n0005": (70, 6),
    "updatefiles/pubmed26n0006": (45, 6),
}


def counted(path: Path) -> tuple[int, int]:
    with path.open("rb") as file:
        table = PubmedRecord.validate(pl.concat(read_pubmed_file(file, path.name)))
    kinds = table["record"].to_list()
    assert "quarantined" not in kinds
    return kinds.count("citation"), kinds.count("deleted")


def test_every_format_of_twenty_years_loads_whole(real_data: Path) -> None:
    folder = real_data / "pubmed_format_samples"
    found = {path.name: counted(path) for path in folder.iterdir() if path.suffix != ".md5"}
    assert found == SAMPLES


def test_the_real_files_load_whole(real_data: Path) -> None:
    assert {name: counted(real_data / f"nlm/pubmed/{name}.xml.gz") for name in REAL} == REAL


def test_old_files_say_what_they_can(real_data: Path) -> None:
    with (real_data / "pubmed_format_samples/medsamp2006.xml").open("rb") as file:
        table = pl.concat(read_pubmed_file(file, "medsamp2006"))
    headings = table["headings"].explode(empty_as_null=False).struct.unnest()
    assert headings["ui"].null_count() == headings.height > 500
    assert headings["name"].null_count() == 0
    assert table["version"].null_count() == table.height
    assert int(table["retracted"].sum()) == 2
    assert table["year"].null_count() == 0


def test_the_scanner_and_a_conforming_parser_read_the_same(real_data: Path) -> None:
    """What the scanner reads by itself is what it reads of the same records as lxml writes them."""
    paths = [*real_data.glob("nlm/pubmed/*/*.xml.gz"), *real_data.glob("pubmed_format_samples/*.gz")]
    assert len(paths) == 24
    for path in paths:
        with path.open("rb") as file:
            texts = [text for tag, text in records(file, path.name) if tag != b"DeleteCitation"]
        scanned, refused = citation_columns(texts)
        rewritten, failed = citation_columns([plainly(text) for text in texts], known_good=True)
        assert not failed.any(), path.name
        if path.parent.parent.name == "pubmed":  # of the older ones, some have lines that end as on Windows
            assert refused.mean() < 0.02, path.name
        accepted = pl.Series(~refused)
        assert scanned.filter(accepted).equals(rewritten.filter(accepted)), path.name
