"""Sentences of an abstract, and which of them conclude."""

import re
from dataclasses import dataclass

from mkailin_resources.models.extractive.wording import clean
from mkailin_resources.models.interface import Document, Section

_CONCLUDING_LABEL = re.compile(
    r"conclu|interpretation|implication|summary|key messages?|take-home|\binference\b", re.I
)
_RESULTS = re.compile(r"result|finding", re.I)
_NOT_CONCLUDING = re.compile(r"^(practical|research|social|theoretical|policy)\b", re.I)
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|vs|cf|et al|ca|approx|Fig|Figs|No|Dr|Prof|St|sp|spp|subsp|var|resp|incl|etc|Eq|"
    r"min|max)"
    r"|\b[A-Z]|\([^)]{0,12})\.$"
)
# Characters that the pattern above can take at the most, and some more.
_LONGEST_ABBREVIATION = 24
# A heading printed inside an unstructured abstract: "... in both groups. CONCLUSIONS: Early ...".
_INLINE_HEADING = re.compile(
    r"(?:^|(?<=[.;)] ))(?:CONCLUSIONS?|Conclusions?|INTERPRETATION|Interpretation|SUMMARY|"
    r"CONCLUSIONS? AND RELEVANCE)"
    r"(?: and (?:relevance|significance|implications?))?\s?[:.-]\s"
)
CONCLUDING_CUE = re.compile(
    r"^(?:(?:thus|therefore|hence|overall|together|collectively|finally|moreover|furthermore|"
    r"in addition|importantly|"
    r"altogether|as such|accordingly|consequently|in this (?:study|cohort study|trial)),? )?(?:"
    r"(?:in|to) (?:conclusion|summary|conclude|summari[sz]e|brief|sum)\b|taken together|in the aggregate|"
    r"(?:thus|therefore|hence|consequently|overall|collectively|altogether|together|accordingly)\b,|"
    r"thus\b|therefore\b|"
    r"we (?:\w+ )?(?:conclude|suggest|propose|believe|demonstrate|show|provide evidence|hypothesi[sz]e)|"
    r"it is concluded|"
    r"(?:all )?(?:these|our|the|this|present|current|such)\b(?: \S+){0,6}? (?:suggests?|indicates?|"
    r"demonstrates?|supports?|shows?|"
    r"imply|implies|provides?|confirms?|reveals?|highlights?|underscores?|establish(?:es)?|identif(?:y|"
    r"ies)|"
    r"emphasi[sz]es?|reinforces?|raises?|point(?:s)? to|argues?|constitutes?|represents?|warrants?)\b)",
    re.I,
)


@dataclass(frozen=True)
class Abstract:
    """An abstract in two parts: what leads up to the conclusion, and the conclusion."""

    body: tuple[Section, ...]
    body_sentences: tuple[str, ...]
    # Of the body, the sentences that report what was found, as far as headings or order tell.
    results: tuple[str, ...]
    conclusion: tuple[str, ...]
    # Whether a heading or a cue marks the conclusion; otherwise it is the last sentence.
    marked: bool


def split_sentences(text: str) -> list[str]:
    """Sentences of running English text, verbatim but for white space."""
    sentences: list[str] = []
    start = 0
    text = clean(text)
    for match in re.finditer(
        r"[.!?][\"\u201d\u2019')\]]*\s+(?=[\"\u201c\u2018'(\[]?[A-Z0-9\u03b1-\u03c9\u0391-\u03a9])|"
        r"[.!?]\s+(?=(?:p|mi|m|c)[A-Z0-9-])",
        text,
    ):
        piece = text[start : match.end()].strip()
        # Its end alone: a text that never gets a sentence would be searched again and again.
        if _ABBREVIATION.search(piece, max(0, len(piece) - _LONGEST_ABBREVIATION)) or len(piece) < 3:
            continue
        sentences.append(piece)
        start = match.end()
    last = text[start:].strip()
    return [*sentences, last] if last else sentences


def is_concluding(section: Section) -> bool:
    """Whether a section is the abstract's conclusion, by NLM category or printed label."""
    label = section.label or ""
    if _NOT_CONCLUDING.match(label):
        return False
    return section.category == "CONCLUSIONS" or bool(_CONCLUDING_LABEL.search(label))


def read_abstract(document: Document) -> Abstract:
    """Divide an abstract at its conclusion.

    Structured: the sections labelled as conclusion. Unstructured: from an inline heading, else from the first
    concluding cue among the last four sentences, else the last sentence.
    """
    sections = [section for section in document.sections if section.text.strip()]
    concluding = [section for section in sections if is_concluding(section)]
    body = [section for section in sections if section not in concluding]
    if concluding and body:
        conclusion = [sentence for section in concluding for sentence in split_sentences(section.text)]
        return _divided(body, body, conclusion, marked=True)
    if not sections:
        return Abstract((), (), (), (), marked=False)
    place = max((i for i, section in enumerate(sections) if not _after_the_study(section)), default=0)
    before, last, after = sections[:place], sections[place], sections[place + 1 :]
    # Journals append a second, plain abstract under this heading.
    text = clean(re.split(r"SIGNIFICANCE STATEMENT|Significance Statement", last.text)[0]) or clean(last.text)
    heading = list(_INLINE_HEADING.finditer(text))
    if heading:
        head, conclusion = text[: heading[-1].start()].strip(), split_sentences(text[heading[-1].end() :])
        marked = True
    else:
        sentences = split_sentences(text)
        cues = [
            place
            for place in range(max(0, len(sentences) - 4), len(sentences))
            if CONCLUDING_CUE.match(sentences[place])
        ]
        # An abstract of one or two sentences has nothing before its conclusion to keep.
        start = max(cues[0] if cues else len(sentences) - 1, min(1, len(sentences) - 1))
        head, conclusion, marked = " ".join(sentences[:start]), sentences[start:], bool(cues)
    kept = [Section(last.label, last.category, head)] if head else []
    return _divided([*before, *kept, *after], [*before, *kept], conclusion, marked=marked)


def _divided(body: list[Section], study: list[Section], conclusion: list[str], *, marked: bool) -> Abstract:
    sentences = _sentences(study)
    results = _sentences([section for section in study if _RESULTS.search(section.label or "")])
    results = results or sentences[len(sentences) // 2 :]
    return Abstract(tuple(body), sentences, results, tuple(conclusion), marked)


def _after_the_study(section: Section) -> bool:
    return bool(
        re.match(
            r"funding|trial registration|registration|classification of evidence|conflict|supplementary",
            section.label or "",
            re.I,
        )
    )


def _sentences(sections: list[Section]) -> tuple[str, ...]:
    return tuple(sentence for section in sections for sentence in split_sentences(section.text))
