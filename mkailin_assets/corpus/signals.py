"""What is measured of a question-answer pair: each signal a function of the texts alone.

Those that a library or an agent measures take and give series, the others are expressions. None needs the
network or a model that comes in no package; all take blank, null and very long texts.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from mkailin_resources.models.extractive.decisions import decide, is_yes_no_question

if TYPE_CHECKING:
    from presidio_analyzer import PatternRecognizer
    from presidio_analyzer.predefined_recognizers import PhoneRecognizer
    from py3langid.langid import LanguageIdentifier

    from mkailin_assets.preferences.mentions import Mentions

# Those that are numbers: what a person wants to see the spread of.
SIGNALS: tuple[str, ...] = (
    "question_words",
    "answer_words",
    "answer_support",
    "question_support",
    "title_overlap",
    "copied_share",
    "specificity",
    "reading_grade",
    "toxicity",
    "odd_characters",
    "mesh_score",
    "mesh_margin",
    "source_rank",
    "evaluator_margin",
)
# For each question how specific it is, 0 to 1; None where it names no heading.
Specificity = Callable[[Sequence[str]], list[float | None]]

WORD = r"[\p{L}\p{N}]+(?:[-'\x{2019}.][\p{L}\p{N}]+)*"
# English words that carry grammar and no content: they are in any text and support nothing.
_FUNCTION_WORDS = re.findall(
    r"\w+",
    """
    a about after all also although an and any are as at be because been before being between both but by
    can could did do does during each either for from further had has have he her his how if in into is it
    its may might more most must no nor not of on only or other our out over she should so some such than
    that the their them then there these they this those through thus to under until up upon very was we
    were what when where whether which while who whose why will with within without would
    """,
)
# A question opens, itself or after an introduction set off by punctuation, with one of these.
_ASKS = (
    r"(?i)(?:^|[.,:;\x{2013}\x{2014}-]\s*)(?:(?:and|or|to|in|at|for|by|of|on|from|with)\s+)?"
    r"(?:do|does|did|is|are|was|were|can|could|should|would|will|may|might|must|has|have|had"
    r"|what|which|who|whom|whose|when|where|why|how)\b"
)
# An answer that opens with its decision ("No. 5" is a number).
OPENING = r"(?i)^\W*(yes|no)\s*(?:[,;:!\x{2013}\x{2014}]|\.(?:\s+[^\s\d]|\s*$))"
_SPAN_WORDS = 8
# Between texts that are joined: a letter in no text, so that no span goes from one into the next.
_APART = " \ua66e "

_VOWEL = "[aeiouy\u00e0-\u00f6\u00f8-\u00ff]"
_CONSONANT = rf"[\p{{L}}--{_VOWEL}]"
# Silent in made, while, caused, times; heard in table, created, houses.
_SILENT_E = (
    rf"{_VOWEL}(?:{_CONSONANT}*[{_CONSONANT}--l]e|le|{_CONSONANT}*[{_CONSONANT}--[td]]ed"
    rf"|{_CONSONANT}*[{_CONSONANT}--[szxcghl]]es|les)\b"
)
# Vowels side by side that are heard apart, and one that is not written: dietary, association, being, autism.
_HIATUS = r"[\p{L}--[tscxg]]i[aou]|[ct]iat|[aeouy]ing\b|[^\P{L}aeiouy]isms?\b"
_PLAIN_WORD = r"\p{L}+(?:['\x{2019}]\p{L}+)*"
_SENTENCE_END = r"[.!?]+[\"'\x{2019}\x{201d})\]]*(?:\s+[\"'\x{2018}\x{201c}(\[]*\p{Lu}|\s*$)"

# Those of PubMed's journals. Latin is left out, which species and anatomy look like, and so are creoles,
# dialects and planned languages, which short titles do.
LANGUAGES = (
    "af ar az bg bs ca cs da de el en es et fa fi fr he hi hr hu hy id is it ja ka kk ko lt lv mk ms nl no "
    "pl pt ro ru sk sl sq sr sv th tr uk ur uz vi zh"
).split()
_SURE_OF_LANGUAGE = 0.9
_LANGUAGE_CHARACTERS = 400

# Words that the library holds against a text and biology means plainly (the bitch, the wild ass, the great
# tit): they are not shown to it.
_PLAIN_IN_BIOLOGY = (
    r"(?i)\b(?:ass|asses|bitch|bitches|bloody|cocks?|die|died|dumb|fat|gay|hoes?|homosexuals?|jerk|kills?"
    r"|negro|negroes|nipple|penis|pigs?|queer|rapist|rats?|retardation|retarded|semen|sex|tits?|vagina)\b"
)
_SENTENCE = r"[^.!?]+[.!?]*"

# What may be personal data, and the class of presidio's that says whether it is. A number is a telephone's
# where it says so or begins with the sign of an international one, a credit card's where it is written in one
# or in groups, and an address of the internet where it says so: intervals, loci, trials and enzymes
# (EC 3.4.24.56) look like any of them. Each pattern is bounded, as presidio's own are not.
_DIGITS = r"\p{Nd}(?:[^\p{L}\p{Nd}]{0,4}\p{Nd}){5,17}"
_PERSONAL = {
    "e-mail address": (r"[^\s@]{1,64}@[^\s@]{1,255}", "EmailRecognizer"),
    "telephone number": (
        r"(?i)(?:\b(?:tel|(?:tele|cell)?phone|(?:tele)?fax|mobile|whatsapp)\b\P{Nd}{0,20}|\+\(?)" + _DIGITS,
        "PhoneRecognizer",
    ),
    "credit card number": (
        r"\b[13456][0-9]{3}(?:[0-9]{9,12}|(?:-[0-9]{4}){3}|(?: [0-9]{4}){3}|[- ][0-9]{6}[- ][0-9]{5})\b",
        "CreditCardRecognizer",
    ),
    "bank account": (
        r"\b[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?\b",
        "IbanRecognizer",
    ),
    "social security number": (r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b", "UsSsnRecognizer"),
    "IP address": (
        r"(?i)\bip(?:v[46])?\b[^.]{0,20}?\b(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){2,7})\b",
        "IpRecognizer",
    ),
}
_LEAST_SCORE = 0.4

# Controls but for tab and line ends, private use, unassigned, the sign for a lost character, pictures.
_ODD = (
    r"[[\p{Cc}--[\t\n\r]]\p{Co}\p{Cn}\x{fffd}\x{fe0f}\p{Emoji_Presentation}"
    r"[\p{Extended_Pictographic}&&[\x{1f000}-\x{1fbff}]]]"
)


def spread_of(signal: str) -> dict[str, pl.Expr]:
    """How a signal is distributed over the rows that have it: their number, mean, deciles 1, 5 and 9."""
    values = pl.col(signal).cast(pl.Float64)
    deciles = {"low": 0.1, "median": 0.5, "high": 0.9}
    return {
        "rows": values.count(),
        "mean": values.mean(),
        **{name: values.quantile(part) for name, part in deciles.items()},
    }


def words(text: pl.Expr) -> pl.Expr:
    """Lower-case words of a text in their order; a null text has none."""
    return text.fill_null("").str.to_lowercase().str.extract_all(WORD)


def joined(texts: pl.Expr) -> pl.Expr:
    """A list of texts as one, of which no span of words is in two."""
    return texts.list.join(_APART, ignore_nulls=True)


def word_count(text: pl.Expr) -> pl.Expr:
    """Number of words; 0 where there is no text.

    Length is the plainest filter of generated text (Raffel et al. 2020 drop short pages from C4).
    """
    return text.str.count_matches(WORD).fill_null(0).cast(pl.Int32)


def support(asked: pl.Expr, given: pl.Expr) -> pl.Expr:
    """Share of the distinct content words of `asked` that `given` holds, 0 to 1; both lists of words.

    Words without content (articles, auxiliaries) do not count; null where there are no others. It is
    the coverage of Grusky et al. 2018 (Newsroom) over distinct words: low where an answer comes from
    elsewhere than its contexts, or a question is about something else.
    """
    content = asked.list.unique().list.eval(pl.element().filter(~pl.element().is_in(_FUNCTION_WORDS)))
    shared = content.list.set_intersection(given)
    return pl.when(content.list.len() > 0).then(shared.list.len() / content.list.len())


def title_overlap(question: pl.Expr, title: pl.Expr) -> pl.Expr:
    """Jaccard similarity (1912) of the distinct words of question and title, 0 to 1; null if either lacks.

    High where a question is its title: right for a title that asks, and for a statement turned round.
    """
    asked, named = words(question), words(title)
    union = asked.list.set_union(named).list.len()
    both = question.is_not_null() & title.is_not_null() & (union > 0)
    return pl.when(both).then(asked.list.set_intersection(named).list.len() / union)


def asks(text: pl.Expr) -> pl.Expr:
    """Whether the text is put as an English question: an auxiliary or question word opens a clause.

    Statement titles turned into questions (PubMedQA, Jin et al. 2019) move the auxiliary to the front.
    """
    return text.str.contains(_ASKS)


def reading_grade(text: pl.Expr) -> pl.Expr:
    """School years in the USA that the text asks for: the Flesch-Kincaid grade (Kincaid et al. 1975).

    Words are those of letters alone; null without one. Syllables are groups of vowels, but for a silent e and
    vowels that are heard apart: right for 96% of the words of real answers against CMUdict, where
    hyphenation (pyphen) is for 90%.
    """
    lower = text.str.to_lowercase()
    voiceless = lower.str.count_matches(rf"(?:^|[^\p{{L}}'\x{{2019}}]){_CONSONANT}+\b")
    syllables = (
        lower.str.count_matches(f"{_VOWEL}+")
        + lower.str.count_matches(_HIATUS)
        + voiceless
        - lower.str.count_matches(_SILENT_E)
    )
    spoken = text.str.count_matches(_PLAIN_WORD)
    sentences = pl.max_horizontal(text.str.count_matches(_SENTENCE_END), 1)
    grade = 0.39 * spoken / sentences + 11.8 * syllables / spoken - 15.59
    return pl.when(spoken > 0).then(grade)


def odd_characters(text: pl.Expr) -> pl.Expr:
    """Number of characters that no scientific text has: controls, private use, unassigned, lost, pictures.

    Greek letters, accents, mathematical and typographic signs are in none of these (Unicode 17, chapter 4);
    a tab or line end is none either. 0 where there is no text.
    """
    return text.str.count_matches(_ODD).fill_null(0).cast(pl.Int32)


def copied_shares(answers: pl.Series, given: pl.Series) -> pl.Series:
    """Share of each answer's words that lie in a span of eight or more words of what was given, 0 to 1.

    Both are series of lists of words (`words`). The extractive fragments of Grusky et al. 2018, of those long
    enough to be no turn of phrase; null for an answer without words. Linear in the words.
    """
    lengths = answers.list.len().to_numpy().astype(np.int64)
    spans, starts = _spans(answers)
    offered, _ = _spans(given)
    # The few that answers have first: a set of all that were given would be large.
    copied = starts[spans.is_in(offered.filter(offered.is_in(spans.implode())).implode()).to_numpy()]
    # +1 where a copied span begins, -1 where it has ended: above 0 in between.
    steps = np.zeros(int(lengths.sum()) + 1, np.int64)
    np.add.at(steps, copied, 1)
    np.add.at(steps, copied + _SPAN_WORDS, -1)
    covered = np.concatenate([[0], np.cumsum(np.cumsum(steps[:-1]) > 0)])
    ends = np.cumsum(lengths)
    counts = pl.Series("copied_share", covered[ends] - covered[ends - lengths])
    return (counts / answers.list.len()).fill_nan(None)


def _spans(texts: pl.Series) -> tuple[pl.Series, np.ndarray]:
    """A hash of each span of eight words and of the row it is in, and the place of its first word."""
    flat = texts.explode(empty_as_null=False).hash().to_numpy()
    rows = np.repeat(np.arange(len(texts), dtype=np.uint64), texts.list.len().to_numpy())
    starts = max(0, len(flat) - _SPAN_WORDS + 1)
    spans = rows[:starts] * np.uint64(0xC2B2AE3D27D4EB4F)
    for word in range(_SPAN_WORDS):
        spans = spans * np.uint64(0x9E3779B97F4A7C15) + flat[word : word + starts]
    (within,) = np.nonzero(rows[:starts] == rows[len(flat) - starts :])
    return pl.Series(spans[within]), within


def read_decisions(questions: pl.Series, answers: pl.Series) -> pl.Series:
    """How each long answer reads: yes, no or maybe; null where the question asks for none of these, or lacks.

    A "Yes," or "No," that opens the answer is taken at its word; else the polarity of its sentences counts,
    as the extractive agent reads a conclusion (`mkailin_resources.models.extractive.decisions`). Of
    PubMedQA's 445 development items that experts answered by yes or no, it reads 11% as the opposite: 7%
    where they say yes, 19% where they say no.
    """
    opening = answers.str.extract(OPENING).str.to_lowercase()
    read = [
        word or _read_decision(question, answer)
        for question, answer, word in zip(questions, answers, opening, strict=True)
    ]
    return pl.Series("read_decision", read, pl.String)


def _read_decision(question: str | None, answer: str | None) -> str | None:
    if not question or not answer or not answer.strip() or not is_yes_no_question(question):
        return None
    return decide(question, answer)


def heading_specificity(mentions: "Mentions", ic: Mapping[str, float]) -> Specificity:
    """How specific questions are: the highest information content of the MeSH headings that each names.

    `ic` of descriptor UIs (Resnik 1995, `mkailin_assets.mesh.hierarchy`); None where it names none of them.
    """

    def specificity(questions: Sequence[str]) -> list[float | None]:
        named = mentions.named_in(questions)
        return [max((ic[ui] for ui in uis if ui in ic), default=None) for uis in named]

    return specificity


def languages(texts: pl.Series) -> pl.Series:
    """Language of each text, ISO 639-1: that of its beginning; null where there is doubt or no text.

    Naive Bayes over byte n-grams (Lui and Baldwin 2012, langid.py; py3langid).
    """
    identifier = _identifier()
    known: dict[str | None, str | None] = {None: None}
    starts = texts.str.head(_LANGUAGE_CHARACTERS)
    for text in starts.unique():
        if text is not None:
            language, _ = identifier.classify(text)
            known[text] = None if language == "und" else language
    return pl.Series("language", [known[text] for text in starts], pl.String)


@cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(
        MODEL_FILE, norm_probs=True, min_confidence=_SURE_OF_LANGUAGE
    )
    identifier.set_languages(LANGUAGES)
    return identifier


def toxicities(texts: pl.Series) -> pl.Series:
    """How probably the worst sentence of each text is offensive, 0 to 1; null for one without a sentence.

    A linear model over words, learnt from tweets and talk pages (alt-profanity-check). Whole texts would
    hide a slur among their other words.
    """
    sentences = (
        pl.DataFrame({"row": range(len(texts)), "sentence": texts.str.extract_all(_SENTENCE)})
        .explode("sentence")
        .with_columns(pl.col("sentence").str.replace_all(_PLAIN_IN_BIOLOGY, " "))
        .drop_nulls()
    )
    if sentences.is_empty():
        return pl.Series("toxicity", [None] * len(texts), pl.Float64)
    from profanity_check import predict_prob

    worst = (
        sentences.with_columns(toxicity=predict_prob(sentences["sentence"].to_list()))
        .group_by("row")
        .agg(pl.col("toxicity").max())
    )
    rows = pl.DataFrame({"row": range(len(texts))})
    return rows.join(worst, on="row", how="left", maintain_order="left")["toxicity"]


def personal_data(texts: pl.Series) -> pl.Series:
    """Kinds of personal data that each text holds, a list; names of persons are not looked for.

    The recognizers of Presidio (patterns, check digits, numbering plans) judge what looks like one: e-mail
    addresses, telephone, credit card and US social security numbers, bank accounts (IBAN), IP addresses.
    """
    rows = pl.DataFrame({"text": texts}).with_row_index("row")
    found = [pl.DataFrame(schema={"row": pl.UInt32, "kind": pl.String})]
    for kind, (pattern, recognizer) in _PERSONAL.items():
        candidates = (
            rows.filter(pl.col("text").str.contains(pattern))
            .with_columns(pl.col("text").str.extract_all(pattern))
            .explode("text")
        )
        really = [text for text in candidates["text"].unique() if _is_personal(text, recognizer)]
        held = candidates.filter(pl.col("text").is_in(really)).select("row", kind=pl.lit(kind))
        found.append(held.unique())
    kinds = pl.concat(found).group_by("row", maintain_order=True).agg(personal_data="kind")
    return (
        rows.join(kinds, on="row", how="left", maintain_order="left")["personal_data"]
        .fill_null([])
        .alias("personal_data")
    )


def _is_personal(text: str, recognizer: str) -> bool:
    one = _recognizers()[recognizer]
    return any(hit.score >= _LEAST_SCORE for hit in one.analyze(text, one.supported_entities))


@cache
def _recognizers() -> Mapping[str, "PatternRecognizer | PhoneRecognizer"]:
    import tldextract
    from presidio_analyzer import predefined_recognizers

    # The list of public suffixes that comes with the package: by default it is fetched from the network.
    suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

    class OfflineEmailRecognizer(predefined_recognizers.EmailRecognizer):
        def validate_result(self, pattern_text: str) -> bool:
            return suffixes(pattern_text).fqdn != ""

    names = {name for _, name in _PERSONAL.values()} - {"EmailRecognizer"}
    others = {name: getattr(predefined_recognizers, name)() for name in names}
    return {"EmailRecognizer": OfflineEmailRecognizer(), **others}
