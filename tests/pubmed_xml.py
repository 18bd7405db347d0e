"""Writes `PubmedRecord` rows as PubMed XML, in any of the many ways in which XML says the same."""

import random
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Any, NamedTuple

HABITS = (
    "decimal references",
    "hexadecimal references",
    "entities for quotes",
    "greater as it is",
    "CDATA",
    "comments",
    "instructions",
    "single quotes",
    "spaces in tags",
    "attributes in any order",
    "spaces between elements",
    "spaces around text",
    "broken lines",
    "empty elements",
    "markup",
    "formulas",
    "old elements",
    "elements nobody reads",
)
MATHML = "http://www.w3.org/1998/Math/MathML"
_MARKED_UP = ("Affiliation", "CollectiveName", "Suffix")
_WITH_FORMULAS = ("ArticleTitle", "VernacularTitle", "AbstractText", "Keyword")
# What the records are cut at: the one thing that must not stand where it is no tag.
_CUT_AT = re.compile("</?(?:Pubmed|MedlineCitation|DeleteCitation)")
_POWER = re.compile("(?<=[0-9])\\^([-+\u2013\u2212]?[0-9]+)")
_QUOTES = {'"': "&quot;", "'": "&apos;"}
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()

Row = Mapping[str, Any]


class Node(NamedTuple):
    """An element, before it is written."""

    tag: str
    content: "str | list[Node]"
    attributes: Mapping[str, str]


class Spelling:
    """How XML is written: plainly as NLM does or, by chance, with some of the `HABITS`."""

    def __init__(self, habits: Iterable[str] = (), seed: int = 0) -> None:
        self._habits = frozenset(habits)
        self.chance = random.Random(seed)

    def does(self, habit: str, share: float = 0.5) -> bool:
        return habit in self._habits and self.chance.random() < share

    def optional(self, tag: str, text: str | None, **attributes: str) -> list[Node]:
        """An element, if there is anything in it; by habit also an empty one."""
        is_written = text or self.does("empty elements")
        return [_element(tag, text or "", **attributes)] if is_written else []

    def listed(self, tag: str, elements: Iterable[Node], **attributes: str) -> list[Node]:
        """A list of elements, if there are any."""
        inside = list(elements)
        return [_element(tag, *inside, **attributes)] if inside or self.does("empty elements") else []

    def extra(self, tag: str, *content: "str | Node", **attributes: str) -> list[Node]:
        """An element that has no column."""
        return [_element(tag, *content, **attributes)] if self.does("elements nobody reads") else []

    def written(self, node: Node) -> str:
        """An element as XML."""
        names = list(node.attributes)
        if self.does("attributes in any order"):
            self.chance.shuffle(names)
        attributes = "".join(self._attribute(name, node.attributes[name]) for name in names)
        opening = f"{node.tag}{attributes}{self._blank()}"
        content = self._text(node.tag, node.content) if isinstance(node.content, str) else ""
        if node.content and not isinstance(node.content, str):
            between = [self.between() for _ in range(len(node.content) + 1)]
            inside = (self.written(child) + gap for child, gap in zip(node.content, between[1:], strict=True))
            content = between[0] + "".join(inside)
        if not content and not self.does("empty elements"):
            return f"<{opening}/>"
        return f"<{opening}>{content}</{node.tag}{self._blank()}>"

    def _blank(self, least: str = "") -> str:
        return self.chance.choice((" ", "\n", "  ", "\r\n\t")) if self.does("spaces in tags", 0.2) else least

    def between(self) -> str:
        """What may stand between two elements: nothing, blanks, a comment."""
        gap = self.chance.choice((" ", "\n  ", "\r\n")) if self.does("spaces between elements") else ""
        return gap + self._aside()

    def _aside(self) -> str:
        if self.does("comments", 0.1):
            return self.chance.choice(
                ("<!---->", "<!-- </AbstractText> & <b -->", "<!--\n<Language>eng</Language>-->")
            )
        if self.does("instructions", 0.1):
            return self.chance.choice(("<?x?>", "<?x </Article> ?>"))
        return ""

    def _attribute(self, name: str, value: str) -> str:
        quote = "'" if self.does("single quotes") else '"'
        value = "".join(
            _QUOTES[quote] if character == quote else self._character(character) for character in value
        )
        if self.does("broken lines", 0.3):
            value = re.sub("(?<! ) (?! )", self.chance.choice(("\n", "\t", "\r\n")), value)
        if self.does("spaces around text", 0.2):
            value = f" {value}\n"
        return f"{self._blank(' ') or ' '}{name}{self._blank()}={self._blank()}{quote}{value}{quote}"

    def _text(self, tag: str, text: str) -> str:
        if self.does("broken lines"):
            text = re.sub("(?<=[^ ]) (?=[^ ])", lambda _: self.chance.choice(" \n"), text)
        written = self._pieces(text, tag in (*_MARKED_UP, *_WITH_FORMULAS), tag in _WITH_FORMULAS)
        if self.does("spaces around text", 0.3):
            written = f"\n {written} "
        return written

    def _pieces(self, text: str, may_mark: bool, may_calculate: bool) -> str:
        if may_mark and self.does("markup", 0.7) and (power := _POWER.search(text)):
            before = self._pieces(text[: power.start()], may_mark, may_calculate)
            after = self._pieces(text[power.end() :], may_mark, may_calculate)
            return f"{before}<sup{self._blank()}>{self._characters(power[1])}</sup>{after}"
        cuts = sorted(self.chance.randint(0, len(text)) for _ in range(self.chance.choice((0, 1, 3))))
        bounds = zip([0, *cuts], [*cuts, len(text)], strict=True)
        pieces = (self._piece(text[begin:end], may_mark, may_calculate) for begin, end in bounds)
        return "".join(piece + self._aside() for piece in pieces)

    def _piece(self, text: str, may_mark: bool, may_calculate: bool) -> str:
        if may_calculate and self.does("formulas", 0.3) and text and text == text.strip():
            return self._formula(text)
        if may_mark and self.does("markup", 0.3):
            tag = self.chance.choice(("b", "i", "u", "sub"))
            # A digit beside an index would make it a power, or the index before one.
            if self.chance.random() < 0.3 and re.fullmatch("(?s)[A-Za-z](?:.*[^0-9])?", text):
                tag = "sup"
            return f"<{tag}{self._blank()}>{self._pieces(text, may_mark, False)}</{tag}{self._blank()}>"
        if self.does("CDATA", 0.3) and not _CUT_AT.search(text):
            return f"<![CDATA[{text.replace(']]>', ']]]]><![CDATA[>')}]]>"
        return self._characters(text)

    def _formula(self, text: str) -> str:
        prefix = self.chance.choice(("mml:", "m:", ""))
        spaced = self._blank()

        def element(tag: str, *content: str) -> str:
            return f"<{prefix}{tag}{spaced}>{''.join(content)}</{prefix}{tag}>"

        content = element("mtext" if self.does("markup") else "mi", self._characters(text))
        for mark, tag in (("/", "mfrac"), ("^", "msup")):
            parts = text.split(mark)
            if len(parts) == 2 and all(part and part == part.strip() for part in parts):
                content = element(tag, *(element("mn", self._characters(part)) for part in parts))
        namespace = f"xmlns:{prefix[:-1]}" if prefix else "xmlns"
        return f'<{prefix}math {namespace}="{MATHML}">{content}</{prefix}math>'

    def _characters(self, text: str) -> str:
        written = ""
        for place, character in enumerate(text):
            greater = character == ">" and text[max(place - 2, 0) : place] != "]]" and place > 1
            written += ">" if greater and self.does("greater as it is") else self._character(character)
        return written

    def _character(self, character: str) -> str:
        if character == "\n":
            return self.chance.choice(("\n", " \n\t ", "\r\n", "\r", "\t", "&#10;", " &#13;\n", "&#x9;"))
        if self.does("decimal references", 0.2):
            return f"&#{ord(character)};"
        if self.does("hexadecimal references", 0.2):
            return f"&#x{ord(character):{self.chance.choice(('x', 'X', '06x'))}};"
        if character in "\"'":
            return _QUOTES[character] if self.does("entities for quotes") else character
        return {"&": "&amp;", "<": "&lt;", ">": "&gt;"}.get(character, character)


def article_set(records: Iterable[str], spelling: Spelling, root: str = "PubmedArticleSet") -> bytes:
    """A whole file of these records, each written by `citation`, `deletion` or by hand."""
    content = "".join(f"{record}{spelling.between()}" for record in records)
    opening = f"<?xml version='1.0' encoding='UTF-8'?>\n<{root}>\n{spelling.between()}"
    return f"{opening}{content}</{root}>\n".encode()


def deletion(rows: Iterable[Row], spelling: Spelling) -> str:
    """Rows of deleted PMIDs as DeleteCitation."""
    return spelling.written(_element("DeleteCitation", *map(_pmid, rows)))


def citation(row: Row, spelling: Spelling, root: str = "PubmedArticleSet") -> str:
    """A citation as the DTD orders it (pubmed_250101), in a MedlineCitationSet without PubmedData."""
    if root == "MedlineCitationSet":
        return spelling.written(_medline_citation(row, spelling))
    ids = {name: row[name] for name in ("doi", "pmc") if spelling.does("old elements")}
    medline = _medline_citation({**row, **dict.fromkeys(ids)}, spelling)
    cited = _element("ArticleIdList", _element("ArticleId", "PMC1", IdType="pmc"))
    data = _element(
        "PubmedData",
        _element("PublicationStatus", "ppublish"),
        _element(
            "ArticleIdList",
            _element("ArticleId", str(row["pmid"]), IdType="pubmed"),
            *(_element("ArticleId", value, IdType=kind) for kind, value in ids.items() if value),
        ),
        *spelling.extra("ReferenceList", _element("Reference", _element("Citation", "Somebody's."), cited)),
    )
    return spelling.written(_element("PubmedArticle", medline, data))


def _medline_citation(row: Row, spelling: Spelling) -> Node:
    optional, listed, extra = spelling.optional, spelling.listed, spelling.extra
    old_links = spelling.does("old elements")
    links = [_link(link, old_links) for link in row["comments_corrections"]]
    linking = None if spelling.does("old elements") else row["issn"]
    return _element(
        "MedlineCitation",
        _pmid(row),
        *_date("DateCompleted", row["completed"], spelling),
        *_date("DateRevised", row["revised"], spelling),
        _article({**row, "issn": "0000-0000" if linking else row["issn"]}, spelling),
        _element(
            "MedlineJournalInfo",
            *extra("Country", "Nowhere"),
            _element("MedlineTA", row["journal_abbreviation"] or ""),
            *optional("NlmUniqueID", row["nlm_unique_id"]),
            *optional("ISSNLinking", linking),
        ),
        *listed("ChemicalList", map(_chemical, row["chemicals"])),
        *extra("CitationSubset", "IM"),
        *(links if old_links else listed("CommentsCorrectionsList", links)),
        *listed("MeshHeadingList", (_heading(heading, spelling) for heading in row["headings"])),
        *extra("PersonalNameSubjectList", _element("PersonalNameSubject", _element("LastName", "Nobody"))),
        *([_element("OtherID", row["pmc"], Source="NLM")] if row["pmc"] else []),
        *_other_abstracts(row["other_abstracts"], spelling),
        *extra("KeywordList", _element("Keyword", "NLM's"), Owner="NLM"),
        *listed("KeywordList", (_element("Keyword", word) for word in row["keywords"]), Owner="NOTNLM"),
        *extra("CoiStatement", "None."),
        Status=row["status"],
    )


def _article(row: Row, spelling: Spelling) -> Node:
    optional, listed, extra = spelling.optional, spelling.listed, spelling.extra
    abbreviated = row["journal"] == row["journal_abbreviation"] and spelling.does("old elements")
    return _element(
        "Article",
        _element(
            "Journal",
            *optional("ISSN", row["issn"], IssnType="Print"),
            _element(
                "JournalIssue",
                *optional("Volume", row["volume"]),
                *optional("Issue", row["issue"]),
                _element("PubDate", *_published(row, spelling)),
                CitedMedium="Print",
            ),
            *optional("Title", None if abbreviated else row["journal"]),
            *extra("ISOAbbreviation", "J. Nobody"),
        ),
        _element("ArticleTitle", row["title"] or ""),
        _element("Pagination", *extra("StartPage", "1"), _element("MedlinePgn", row["pages"] or "")),
        *extra("ELocationID", "10.1/wrong", EIdType="doi", ValidYN="N"),
        *extra("ELocationID", "S1", EIdType="pii", ValidYN="Y"),
        *optional("ELocationID", row["doi"], EIdType="doi", ValidYN="Y"),
        *listed("Abstract", map(_section, row["abstract"])),
        *listed("AuthorList", (_author(author, spelling) for author in row["authors"]), CompleteYN="Y"),
        *(_element("Language", language) for language in row["language"]),
        *listed("GrantList", (_grant(grant, spelling) for grant in row["grants"]), CompleteYN="Y"),
        *listed("PublicationTypeList", map(_type, row["publication_types"])),
        *optional("VernacularTitle", row["vernacular_title"]),
        *_date("ArticleDate", row["electronic"], spelling),
        PubModel="Print",
    )


def _element(tag: str, *content: "str | Node", **attributes: str | None) -> Node:
    named = {name: value for name, value in attributes.items() if value is not None}
    if content and isinstance(content[0], str):
        return Node(tag, content[0], named)
    return Node(tag, [child for child in content if isinstance(child, Node)], named)


def _pmid(row: Row) -> Node:
    version = row["version"]
    return _element("PMID", str(row["pmid"]), Version=None if version is None else str(version))


def _type(kind: Row) -> Node:
    return _element("PublicationType", kind["name"], UI=kind["ui"])


def _chemical(substance: Row) -> Node:
    name = _element("NameOfSubstance", substance["name"], UI=substance["ui"])
    return _element("Chemical", _element("RegistryNumber", substance["registry_number"] or ""), name)


def _grant(grant: Row, spelling: Spelling) -> Node:
    return _element(
        "Grant",
        *spelling.optional("GrantID", grant["id"]),
        *spelling.extra("Acronym", "X"),
        _element("Agency", grant["agency"] or ""),
        *spelling.optional("Country", grant["country"]),
    )


def _section(section: Row) -> Node:
    return _element("AbstractText", section["text"], Label=section["label"], NlmCategory=section["category"])


def _other_abstracts(sections: Iterable[Row], spelling: Spelling) -> Iterable[Node]:
    def source(section: Row) -> tuple[str | None, str | None]:
        return section["type"], section["language"]

    for (kind, language), group in groupby(sections, source):
        together, *alone = [[_section(section)] for section in group]
        for section in alone:
            if spelling.does("old elements"):
                yield _element("OtherAbstract", *together, Type=kind, Language=language)
                together = []
            together += section
        yield _element("OtherAbstract", *together, Type=kind, Language=language)


def _author(author: Row, spelling: Spelling) -> Node:
    names = (
        ("LastName", "last_name"),
        ("ForeName", "fore_name"),
        ("Initials", "initials"),
        ("Suffix", "suffix"),
        ("CollectiveName", "collective_name"),
    )
    orcid = author["orcid"]
    if orcid and spelling.does("old elements"):
        orcid = spelling.chance.choice((orcid.replace("-", ""), f"https://orcid.org/{orcid}", orcid.lower()))
    old = spelling.does("old elements")
    return _element(
        "Author",
        *(_element(tag, author[name]) for tag, name in names if author[name]),
        *spelling.extra("Identifier", "1", Source="GRID"),
        *([_element("Identifier", orcid, Source="ORCID")] if orcid else []),
        *(
            _element("Affiliation", text)
            if old
            else _element("AffiliationInfo", _element("Affiliation", text))
            for text in author["affiliations"]
        ),
        ValidYN="Y",
    )


def _link(link: Row, old: bool) -> Node:
    pmid = [_element("PMID", str(link["pmid"]), Version="1")] if link["pmid"] else []
    parts = [_element("RefSource", link["source"] or ""), *pmid]
    if old:
        return _element("CommentsCorrections", _element(link["ref_type"], *parts))
    return _element("CommentsCorrections", *parts, RefType=link["ref_type"])


def _heading(heading: Row, spelling: Spelling) -> Node:
    flags = ["N"] * (1 + len(heading["qualifiers"]))
    if heading["major"]:
        flags[spelling.chance.randrange(len(flags))] = "Y"
    return _element(
        "MeshHeading",
        _element("DescriptorName", heading["name"], UI=heading["ui"], MajorTopicYN=flags[0]),
        *(
            _element("QualifierName", name, UI="Q000000", MajorTopicYN=flag)
            for name, flag in zip(heading["qualifiers"], flags[1:], strict=True)
        ),
    )


def _date(tag: str, written: str | None, spelling: Spelling) -> list[Node]:
    return [_element(tag, *_date_parts(written, spelling))] if written else []


def _published(row: Row, spelling: Spelling) -> list[Node]:
    written, said = row["published"], row["medline_date"]
    if not said:
        return _date_parts(written, spelling) if written else []
    if written is None or written in said:
        return [_element("MedlineDate", said)]
    return [_element("Year", written), _element("Season", said)]


def _date_parts(written: str, spelling: Spelling) -> list[Node]:
    year, *rest = written.split("-")
    forms: tuple[Callable[[int], str], ...] = ("{:02d}".format, str, lambda month: _MONTHS[month - 1])
    numbers = [
        spelling.chance.choice(forms if not place else forms[:2])(int(n)) for place, n in enumerate(rest)
    ]
    parts = zip(("Year", "Month", "Day"), (year, *numbers), strict=False)
    return [_element(tag, text) for tag, text in parts]
