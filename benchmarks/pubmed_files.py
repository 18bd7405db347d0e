"""PubMed-format files of any size, from a seed: what the parsing benchmark reads.

Words are made of syllables, so the files hold nobody's text. Their shape follows NLM's baseline: authors,
dates, sections, references and bytes of a citation, and how often a heading comes back (of 30,000
headings about half are different ones; of real files, 4 in 10).
"""

import gzip
import random
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Generic, TypeVar

_T = TypeVar("_T")
_PROLOG = (
    '<?xml version="1.0" encoding="utf-8"?>\n'
    '<!DOCTYPE PubmedArticleSet SYSTEM "http://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">\n'
    "<PubmedArticleSet>\n"
)
_CONSONANTS, _VOWELS, _ENDINGS = "bcdfghklmnprstvxz", "aeiou", ("", "", "n", "r", "l", "s")
_SECTIONS = ("BACKGROUND", "METHODS", "RESULTS", "CONCLUSIONS")
_TYPES = (
    ("D016428", "Journal Article"),
    ("D016454", "Review"),
    ("D002363", "Case Reports"),
    ("D016449", "Randomized Controlled Trial"),
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class _Ranked(Generic[_T]):
    """Things of which few are frequent and most are rare, as words are."""

    def __init__(self, chance: random.Random, things: Sequence[_T], steepness: float) -> None:
        self._chance = chance
        self._things = things
        self._weights = list(accumulate((rank + 5) ** -steepness for rank in range(len(things))))

    def some(self, count: int) -> list[_T]:
        return self._chance.choices(self._things, cum_weights=self._weights, k=count)


class _Writer:
    """Makes the records, each from the chances that come next."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._words = _Ranked(self._chance, [self._word() for _ in range(6000)], steepness=1.0)
        descriptors = [(f"D{n:06d}", self._name(self._chance.randint(1, 3))) for n in range(1, 28_001)]
        self._descriptors = _Ranked(self._chance, descriptors, steepness=1.2)
        self._check_tags = set(descriptors[:20])  # Humans, Female, Adult and so on
        qualifiers = [(f"Q{n:06d}", " ".join(self._words.some(2))) for n in range(1, 77)]
        self._qualifiers = _Ranked(self._chance, qualifiers, steepness=2.0)

    def citation(self, pmid: int) -> str:
        chance = self._chance
        year = chance.randint(1975, 2025)
        date = (
            f"<Year>{year}</Year><Month>{chance.randint(1, 12):02d}</Month>"
            f"<Day>{chance.randint(1, 28):02d}</Day>"
        )
        published = f"<Year>{year}</Year><Month>{chance.choice(_MONTHS)}</Month>"
        if chance.random() < 0.04:
            published = f"<MedlineDate>{year} Nov-Dec</MedlineDate>"
        doi = f"10.{chance.randint(1000, 9999)}/{self._name(1)}.{year}.{chance.randint(1, 99999)}"
        journal = self._name(chance.randint(2, 5))
        types = [_TYPES[0], *chance.sample(_TYPES[1:], chance.choice((0, 1, 1)))]
        return (
            '<PubmedArticle><MedlineCitation Status="MEDLINE" Owner="NLM" IndexingMethod="Manual">'
            f'<PMID Version="1">{pmid}</PMID>'
            f"<DateCompleted>{date}</DateCompleted><DateRevised>{date}</DateRevised>"
            '<Article PubModel="Print-Electronic"><Journal>'
            f'<ISSN IssnType="Electronic">{pmid % 9999:04d}-0000</ISSN><JournalIssue CitedMedium="Internet">'
            f"<Volume>{chance.randint(1, 400)}</Volume><Issue>{chance.randint(1, 12)}</Issue>"
            f"<PubDate>{published}</PubDate></JournalIssue><Title>{journal}</Title>"
            f"<ISOAbbreviation>{journal}</ISOAbbreviation></Journal>"
            f"<ArticleTitle>{self._sentence(chance.randint(6, 20))}</ArticleTitle>"
            "<Pagination><StartPage>1</StartPage><MedlinePgn>1-9</MedlinePgn></Pagination>"
            f'<ELocationID EIdType="doi" ValidYN="Y">{doi}</ELocationID>{self._abstract()}{self._authors()}'
            "<Language>eng</Language><PublicationTypeList>"
            + "".join(f'<PublicationType UI="{ui}">{name}</PublicationType>' for ui, name in types)
            + f'</PublicationTypeList><ArticleDate DateType="Electronic">{date}</ArticleDate></Article>'
            f"<MedlineJournalInfo><Country>England</Country><MedlineTA>{journal}</MedlineTA>"
            f"<NlmUniqueID>{pmid % 90000:07d}</NlmUniqueID></MedlineJournalInfo>"
            f"<CitationSubset>IM</CitationSubset>{self._headings()}{self._keywords()}</MedlineCitation>"
            f"<PubmedData><History>{self._history(date)}</History>"
            "<PublicationStatus>ppublish</PublicationStatus><ArticleIdList>"
            f'<ArticleId IdType="pubmed">{pmid}</ArticleId>{self._pmc()}'
            f'<ArticleId IdType="doi">{doi}</ArticleId></ArticleIdList>{self._references()}</PubmedData>'
            "</PubmedArticle>\n"
        )

    def _word(self) -> str:
        syllables = range(self._chance.randint(1, 5))
        letters = (self._chance.choice(of) for _ in syllables for of in (_CONSONANTS, _VOWELS, _ENDINGS))
        return "".join(letters)

    def _name(self, words: int) -> str:
        return " ".join(word.capitalize() for word in self._words.some(words))

    def _sentence(self, length: int) -> str:
        words = self._words.some(length)
        if self._chance.random() < 0.3:
            words[-1] += f" (n={self._chance.randint(5, 900)}, P &lt; 0.0{self._chance.randint(1, 9)})"
        return " ".join(words).capitalize() + "."

    def _passage(self, characters: int) -> str:
        sentences = [self._sentence(self._chance.randint(8, 22)) for _ in range(max(1, characters // 125))]
        if self._chance.random() < 0.15:
            sentences.append("H<sub>2</sub>O at 10<sup>-6</sup> M in <i>Vibrio fictus</i>.")
        return " ".join(sentences)

    def _abstract(self) -> str:
        draw = self._chance.random()
        if draw < 0.15:
            return ""
        if draw < 0.6:
            text = self._passage(self._chance.randint(400, 2000))
            return f"<Abstract><AbstractText>{text}</AbstractText></Abstract>"
        sections = (
            f'<AbstractText Label="{label}" NlmCategory="{label}">'
            f"{self._passage(self._chance.randint(150, 700))}</AbstractText>"
            for label in _SECTIONS
        )
        return f"<Abstract>{''.join(sections)}</Abstract>"

    def _authors(self) -> str:
        place = f"Department of {self._name(2)}, {self._name(1)} University, {self._name(1)}."
        affiliation = f"<AffiliationInfo><Affiliation>{place}</Affiliation></AffiliationInfo>"
        authors = (
            f'<Author ValidYN="Y"><LastName>{self._name(1)}</LastName><ForeName>{self._name(1)} A</ForeName>'
            f"<Initials>AA</Initials>{affiliation if self._chance.random() < 0.6 else ''}</Author>"
            for _ in range(min(40, 1 + int(self._chance.expovariate(1 / 5))))
        )
        return f'<AuthorList CompleteYN="Y">{"".join(authors)}</AuthorList>'

    def _headings(self) -> str:
        if self._chance.random() < 0.12:
            return ""
        descriptors = dict.fromkeys(self._descriptors.some(self._chance.randint(6, 24)))
        return f"<MeshHeadingList>{''.join(map(self._heading, descriptors))}</MeshHeadingList>"

    def _heading(self, descriptor: tuple[str, str]) -> str:
        if descriptor in self._check_tags:
            return f"<MeshHeading>{self._term('DescriptorName', *descriptor, 0.0)}</MeshHeading>"
        qualifiers = dict.fromkeys(self._qualifiers.some(self._chance.choice((0, 0, 1, 1, 2))))
        named = self._term("DescriptorName", *descriptor, 0.0 if qualifiers else 0.2)
        qualified = "".join(self._term("QualifierName", *qualifier, 0.2) for qualifier in qualifiers)
        return f"<MeshHeading>{named}{qualified}</MeshHeading>"

    def _term(self, tag: str, ui: str, name: str, share_major: float) -> str:
        major = "Y" if self._chance.random() < share_major else "N"
        return f'<{tag} UI="{ui}" MajorTopicYN="{major}">{name}</{tag}>'

    def _keywords(self) -> str:
        if self._chance.random() < 0.65:
            return ""
        keywords = (f'<Keyword MajorTopicYN="N">{word}</Keyword>' for word in self._words.some(5))
        return f'<KeywordList Owner="NOTNLM">{"".join(keywords)}</KeywordList>'

    def _history(self, date: str) -> str:
        return "".join(
            f'<PubMedPubDate PubStatus="{status}">{date}<Hour>6</Hour><Minute>0</Minute></PubMedPubDate>'
            for status in ("received", "accepted", "pubmed", "medline", "entrez")
        )

    def _pmc(self) -> str:
        number = self._chance.randint(1, 9_999_999)
        return f'<ArticleId IdType="pmc">PMC{number}</ArticleId>' if self._chance.random() < 0.25 else ""

    def _references(self) -> str:
        if self._chance.random() < 0.93:
            return ""
        references = (
            f"<Reference><Citation>{self._name(2)}. {self._sentence(10)} {self._chance.randint(1960, 2024)}."
            f'</Citation><ArticleIdList><ArticleId IdType="pubmed">{self._chance.randint(1, 40_000_000)}'
            "</ArticleId></ArticleIdList></Reference>"
            for _ in range(self._chance.randint(8, 60))
        )
        return f"<ReferenceList>{''.join(references)}</ReferenceList>"


def write_pubmed_file(path: Path, citations: int, seed: int, first_pmid: int = 1) -> int:
    """Write a gzipped PubmedArticleSet that also deletes a few PMIDs; the same arguments give the same file.

    Returns its size in bytes before compression, about 7,000 for each citation.
    """
    with gzip.GzipFile(path, "wb", compresslevel=6, mtime=0) as file:
        return sum(file.write(text.encode()) for text in _parts(citations, _Writer(seed), first_pmid))


def _parts(citations: int, writer: _Writer, first_pmid: int) -> Iterator[str]:
    end = first_pmid + citations
    yield _PROLOG
    yield from map(writer.citation, range(first_pmid, end))
    deleted = "".join(f'<PMID Version="1">{pmid}</PMID>' for pmid in range(end, end + citations // 200))
    yield f"<DeleteCitation>{deleted}</DeleteCitation>\n" if deleted else ""
    yield "</PubmedArticleSet>\n"
