"""PubMed-format files of any size, from a seed: what the parsing benchmarks read.

Words are made of syllables, so the files hold no text of anyone; their shape (authors, headings, sections,
references, bytes a citation) follows NLM's baseline.
"""

import gzip
import random
from collections.abc import Iterator
from pathlib import Path

_PROLOG = (
    '<?xml version="1.0" encoding="utf-8"?>\n'
    '<!DOCTYPE PubmedArticleSet SYSTEM "http://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">\n'
    "<PubmedArticleSet>\n"
)
_SYLLABLES = (
    "al an ar be bo car chi co cy da de di do el en ep er fi ga gen ge he hi hy in io ka ki la le li lo lu ma "
    "me mi mo na ne ni no o ol pa pe phy pi ra re ri ro sa se si so sta ta te ti to tri tu u va ve vi xa zo"
).split()
_SECTIONS = ("BACKGROUND", "METHODS", "RESULTS", "CONCLUSIONS")
_TYPES = (
    ("D016428", "Journal Article"),
    ("D016454", "Review"),
    ("D002363", "Case Reports"),
    ("D016449", "Randomized Controlled Trial"),
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class _Words:
    """A vocabulary in which few words are frequent, as in any language."""

    def __init__(self, chance: random.Random, size: int = 6000) -> None:
        self._chance = chance
        self._words = sorted(
            {"".join(chance.choices(_SYLLABLES, k=chance.randint(1, 5))) for _ in range(size)}
        )
        chance.shuffle(self._words)
        total, self._weights = 0.0, []
        for rank in range(len(self._words)):
            total += 1 / (rank + 10)
            self._weights.append(total)

    def some(self, count: int) -> list[str]:
        return self._chance.choices(self._words, cum_weights=self._weights, k=count)

    def name(self, count: int = 1) -> str:
        return " ".join(word.capitalize() for word in self.some(count))

    def sentence(self, count: int) -> str:
        words = self.some(count)
        if self._chance.random() < 0.3:
            words[-1] += f" (n={self._chance.randint(5, 900)}, P &lt; 0.0{self._chance.randint(1, 9)})"
        return " ".join(words).capitalize() + "."

    def passage(self, characters: int) -> str:
        sentences = [self.sentence(self._chance.randint(8, 26)) for _ in range(max(1, characters // 125))]
        if self._chance.random() < 0.15:
            sentences.append("H<sub>2</sub>O at 10<sup>-6</sup> M in <i>Vibrio fictus</i>.")
        return " ".join(sentences)


def write_pubmed_file(path: Path, citations: int, seed: int, first_pmid: int = 1) -> int:
    """Write a gzipped PubmedArticleSet; the same arguments give the same bytes. Returns its size in bytes
    before compression, about 7,000 a citation."""
    size = 0
    with gzip.GzipFile(path, "wb", compresslevel=6, mtime=0) as file:
        for text in _parts(citations, random.Random(seed), first_pmid):
            size += file.write(text.encode())
    return size


def _parts(citations: int, chance: random.Random, first_pmid: int) -> Iterator[str]:
    words = _Words(chance)
    headings = [(f"D{number:06d}", words.name(chance.randint(1, 3))) for number in range(1, 4001)]
    qualifiers = [(f"Q{number:06d}", " ".join(words.some(2))) for number in range(1, 81)]
    yield _PROLOG
    for pmid in range(first_pmid, first_pmid + citations):
        yield _citation(pmid, chance, words, headings, qualifiers)
    deleted = "".join(
        f'<PMID Version="1">{first_pmid + citations + n}</PMID>\n' for n in range(citations // 200)
    )
    yield f"<DeleteCitation>\n{deleted}</DeleteCitation>\n" if deleted else ""
    yield "</PubmedArticleSet>\n"


def _citation(
    pmid: int,
    chance: random.Random,
    words: _Words,
    headings: list[tuple[str, str]],
    qualifiers: list[tuple[str, str]],
) -> str:
    year = chance.randint(1975, 2025)
    doi = f"10.{chance.randint(1000, 9999)}/{words.some(1)[0]}.{year}.{chance.randint(1, 99999)}"
    journal = words.name(chance.randint(2, 5))
    date = (
        f"<Year>{year}</Year><Month>{chance.randint(1, 12):02d}</Month><Day>{chance.randint(1, 28):02d}</Day>"
    )
    published = (
        f"<MedlineDate>{year} Nov-Dec</MedlineDate>"
        if chance.random() < 0.04
        else f"<Year>{year}</Year><Month>{chance.choice(_MONTHS)}</Month>"
    )
    types = _TYPES[: 1 + (chance.random() < 0.3)] if chance.random() < 0.8 else (_TYPES[0], *_TYPES[2:])
    moments = "".join(
        f'<PubMedPubDate PubStatus="{status}">{date}<Hour>6</Hour><Minute>0</Minute></PubMedPubDate>'
        for status in ("received", "accepted", "pubmed", "medline", "entrez")
    )
    pmc = (
        f'<ArticleId IdType="pmc">PMC{chance.randint(1, 9999999)}</ArticleId>'
        if chance.random() < 0.25
        else ""
    )
    return (
        f'<PubmedArticle><MedlineCitation Status="MEDLINE" Owner="NLM" IndexingMethod="Manual">'
        f'<PMID Version="1">{pmid}</PMID><DateCompleted>{date}</DateCompleted><DateRevised>{date}</DateRevised>'
        f'<Article PubModel="Print-Electronic"><Journal><ISSN IssnType="Electronic">{pmid % 9999:04d}-0000</ISSN>'
        f'<JournalIssue CitedMedium="Internet"><Volume>{chance.randint(1, 400)}</Volume>'
        f"<Issue>{chance.randint(1, 12)}</Issue><PubDate>{published}</PubDate></JournalIssue>"
        f"<Title>{journal}</Title><ISOAbbreviation>{journal}</ISOAbbreviation></Journal>"
        f"<ArticleTitle>{words.sentence(chance.randint(6, 20))}</ArticleTitle>"
        f"<Pagination><StartPage>{chance.randint(1, 900)}</StartPage><MedlinePgn>1-9</MedlinePgn></Pagination>"
        f'<ELocationID EIdType="doi" ValidYN="Y">{doi}</ELocationID>{_abstract(chance, words)}'
        f"{_authors(chance, words)}<Language>eng</Language><PublicationTypeList>"
        + "".join(f'<PublicationType UI="{ui}">{name}</PublicationType>' for ui, name in types)
        + f'</PublicationTypeList><ArticleDate DateType="Electronic">{date}</ArticleDate></Article>'
        f"<MedlineJournalInfo><Country>England</Country><MedlineTA>{journal}</MedlineTA>"
        f"<NlmUniqueID>{pmid % 90000:07d}</NlmUniqueID></MedlineJournalInfo>"
        f"<CitationSubset>IM</CitationSubset>{_headings(chance, headings, qualifiers)}{_keywords(chance, words)}"
        f"</MedlineCitation><PubmedData><History>{moments}</History>"
        f"<PublicationStatus>ppublish</PublicationStatus><ArticleIdList>"
        f'<ArticleId IdType="pubmed">{pmid}</ArticleId>{pmc}<ArticleId IdType="doi">{doi}</ArticleId>'
        f"</ArticleIdList>{_references(chance, words)}</PubmedData></PubmedArticle>\n"
    )


def _abstract(chance: random.Random, words: _Words) -> str:
    draw = chance.random()
    if draw < 0.15:
        return ""
    if draw < 0.6:
        return f"<Abstract><AbstractText>{words.passage(chance.randint(400, 2000))}</AbstractText></Abstract>"
    sections = "".join(
        f'<AbstractText Label="{label}" NlmCategory="{label}">{words.passage(chance.randint(150, 700))}'
        "</AbstractText>"
        for label in _SECTIONS
    )
    return f"<Abstract>{sections}</Abstract>"


def _authors(chance: random.Random, words: _Words) -> str:
    place = f"Department of {words.name(2)}, {words.name()} University, {words.name()}."
    return (
        '<AuthorList CompleteYN="Y">'
        + "".join(
            f'<Author ValidYN="Y"><LastName>{words.name()}</LastName><ForeName>{words.name()} A</ForeName>'
            "<Initials>AA</Initials>"
            + (
                f"<AffiliationInfo><Affiliation>{place}</Affiliation></AffiliationInfo>"
                if chance.random() < 0.6
                else ""
            )
            + "</Author>"
            for _ in range(min(40, 1 + int(chance.expovariate(1 / 5))))
        )
        + "</AuthorList>"
    )


def _headings(
    chance: random.Random, headings: list[tuple[str, str]], qualifiers: list[tuple[str, str]]
) -> str:
    if chance.random() < 0.12:
        return ""
    return (
        "<MeshHeadingList>"
        + "".join(
            f'<MeshHeading><DescriptorName UI="{ui}" MajorTopicYN="{_yes(chance, 0.2)}">{name}</DescriptorName>'
            + "".join(
                f'<QualifierName UI="{qui}" MajorTopicYN="{_yes(chance, 0.3)}">{qualifier}</QualifierName>'
                for qui, qualifier in chance.sample(qualifiers, chance.choice((0, 0, 1, 1, 2)))
            )
            + "</MeshHeading>"
            for ui, name in chance.sample(headings, chance.randint(5, 17))
        )
        + "</MeshHeadingList>"
    )


def _yes(chance: random.Random, share: float) -> str:
    return "Y" if chance.random() < share else "N"


def _keywords(chance: random.Random, words: _Words) -> str:
    if chance.random() < 0.65:
        return ""
    keywords = "".join(f'<Keyword MajorTopicYN="N">{word}</Keyword>' for word in words.some(5))
    return f'<KeywordList Owner="NOTNLM">{keywords}</KeywordList>'


def _references(chance: random.Random, words: _Words) -> str:
    if chance.random() < 0.93:
        return ""
    return (
        "<ReferenceList>"
        + "".join(
            f"<Reference><Citation>{words.name(2)}. {words.sentence(10)} {chance.randint(1960, 2024)}.</Citation>"
            f'<ArticleIdList><ArticleId IdType="pubmed">{chance.randint(1, 40000000)}</ArticleId></ArticleIdList>'
            "</Reference>"
            for _ in range(chance.randint(8, 60))
        )
        + "</ReferenceList>"
    )
