"""A title as a question: statements by inversion, noun phrases by what their head asks for."""

import re

from mkailin_resources.models.extractive import lexicon as lex
from mkailin_resources.models.extractive.clauses import NotAClaim, yes_no_question
from mkailin_resources.models.extractive.noun_titles import be, question_of_noun_phrase
from mkailin_resources.models.extractive.verbs import has_finite_verb
from mkailin_resources.models.extractive.wording import Vocabulary, clean, is_whole
from mkailin_resources.models.interface import Document

MAX_WORDS = 45
_LEANING_WORDS = 5

_NOT_RESEARCH = re.compile(
    r"\W*(?:comment(?:ary)? on|correction|corrigendum|editorial|errat(?:um|a)|expression of concern|foreword|"
    r"in memoriam|introduction|letter|obituary|preface|re:|reply|response to|retract(?:ed|ion)|withdrawn)\b",
    re.I,
)
_PRONOUN = re.compile(r"\b(we|our|us|this|these|it|its|they|their|them|you|your|my)\b")
_THIS_TEXT = re.compile(r"\b([Ww]e|[Oo]ur|us|[Tt]his|[Tt]hese|[Mm]y|[Yy]ou)\b")
_QUESTION_WORD = re.compile(
    rf"(?:{lex.either(' '.join(sorted(lex.AUXILIARIES)))}|what|which|who|whom|whose|when|where|why|how|"
    r"to what|in (?:what|which)|for (?:whom|which)|at what)\b",
    re.I,
)
_NOT_A_DESCRIPTION = lex.either(
    "analysis approach assessment call case cohort commentary comparison evaluation experience focus "
    "framework guide investigation look meta-analysis method need overview perspective primer project "
    "protocol report review role series step story study summary survey systematic tale trial update way"
)


def question_from_title(document: Document) -> str:
    """The question that a citation's title asks or answers.

    Raises `NotAClaim`, with the reason, for titles that are no research statement or give no good question.
    """
    title = clean(re.sub(r"^\[(.*)\]\.?$", r"\1", clean(document.title)))
    if not title:
        raise NotAClaim("the citation has no title")
    if _NOT_RESEARCH.match(title):
        raise NotAClaim("the title announces a notice or comment, not a study")
    vocabulary = Vocabulary(document)
    title = vocabulary.sentence_case(title)
    if re.match(r"(?:do|does|did|is|are|was|were|can|should) ", title, re.I) and "?" not in title:
        title = _parts(title)[0] + "?"
    if "?" in title:
        return _checked(_asked(title, vocabulary))
    parts = [vocabulary.mid_sentence(part) for part in _parts(title)]
    return _checked(_stated(parts) or _described(parts) or question_of_noun_phrase(parts[0]))


def _parts(title: str) -> list[str]:
    """Main title and subtitles: at a colon, a spaced dash, a semicolon or a full stop."""
    pieces = re.split(
        r"(?<=[^\s]):\s+|\s+[-\u2013\u2014]+\s+|\u2014|;\s+|(?<=[a-z])-(?=(?:an?|the) )|"
        r"(?<=[A-Za-z0-9)]{2})\.\s+(?=[A-Z])",
        title.rstrip(" ."),
    )
    parts = [piece.strip(' ."\u201c\u201d') for piece in pieces]
    return [part for part in parts if part] or [title]


def _stated(parts: list[str]) -> str | None:
    """The first part that is a statement; a subtitle must not lean on the main title."""
    for place, part in enumerate(parts):
        if has_finite_verb(part) and not (place and _PRONOUN.search(part)):
            try:
                return yes_no_question(part, title=True)
            except NotAClaim:
                continue
    return None


def _described(parts: list[str]) -> str | None:
    """'X: a Y' asks whether X is a Y; 'NAME: what it does' what it is."""
    if len(parts) < 2:
        return None
    main, subtitle = parts[:2]
    short = len(main.split()) <= 6 and not re.search(r"\b(and|in|for|of)\b", main)
    if short and re.fullmatch(rf"(?!.*\b{_NOT_A_DESCRIPTION}\b)an? .+", subtitle):
        return f"{be(main)} {main} {subtitle}?"
    if len(main.split()) == 1 and re.search(r"[A-Z]", main[1:]):
        return f"What is {main}?"
    return None


def _asked(title: str, vocabulary: Vocabulary) -> str:
    """The question within a title that asks."""
    asked = re.match(r"[^?]+\?", title)
    question = asked[0].strip() if asked else title
    pieces = re.split(r"(?<=\w):\s+|(?<=[a-z)]{2})\.\s+|\s+[-\u2013\u2014]\s+", question)
    for piece in pieces[::-1]:
        # "X and Y: is there a link?" needs its topic; a longer question names it.
        alone = piece is pieces[0] or len(piece.split()) > _LEANING_WORDS
        if alone and _QUESTION_WORD.match(piece) and not _PRONOUN.search(piece):
            plain = vocabulary.mid_sentence(piece)
            return plain[0].upper() + plain[1:]
    topic = re.fullmatch(r"(.+?)(?::|,| [-\u2013\u2014]) ((?:an?|the) [^?:]+\?)", question)
    if topic:
        subject = vocabulary.mid_sentence(topic[1])
        return f"{be(subject)} {subject} {topic[2]}"
    if _QUESTION_WORD.match(re.sub(r"^.*?[:.,] ", "", question)):
        return question[0].upper() + question[1:]
    raise NotAClaim("the title's question is not a full sentence")


def _checked(question: str) -> str:
    """The question, where it stands alone and is whole."""
    question = clean(question)
    if _THIS_TEXT.search(question):
        raise NotAClaim("the question would speak of 'this' or 'we' and not stand alone")
    if "=" in question:
        raise NotAClaim("the question would hold a formula")
    if not is_whole(question):
        raise NotAClaim("the question would hold half a bracket")
    if len(question.split()) > MAX_WORDS:
        raise NotAClaim(f"the question would be longer than {MAX_WORDS} words")
    return question
