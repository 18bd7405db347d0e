"""Spelling that a question needs: sentence-internal case, abbreviations written out, clean white space."""

import re

from mkailin_resources.models.extractive import lexicon as lex
from mkailin_resources.models.interface import Document

# Other capitalised words of up to three letters are taken for symbols: Gli, Ret, Wnt.
_SHORT_WORDS = lex.words(
    "non new old use low age sex two six ten one gut rat eye ear how why what who when war red raw dry wet "
    "hot fat arm leg hip lip sea air day due end far few gas law man men not set top web yes iron sun aim "
    "act add aid big box car dog cat pig cow egg era fit fly gap get hip ice key lab lag lay let log lot "
    "map mix net now nut oil own pan pay pet pre pro per put run see she skin so tea too toe try via way "
    "year young"
)
_PLACES = re.compile(
    r"\b(united states|united kingdom|new york|hong kong|new zealand|south (?:africa|korea)|"
    r"down(?:['\u2019]s)? syndrome)"
)
_WORD = re.compile(r"[A-Za-z\u00c0-\u00ff]+")


class Vocabulary:
    """How one citation spells its words and what its abbreviations stand for."""

    def __init__(self, document: Document) -> None:
        text = " ".join(section.text for section in document.sections)
        self._seen = set(re.findall(r"[A-Za-z\u00c0-\u00ff]+", text))
        # A capital inside a sentence is a name's own; at a sentence's start it says nothing.
        inside = re.findall(r"(?<=[a-z0-9,)] )[A-Z][a-z\u00c0-\u00ff]+", text)
        self._names = {word.lower() for word in inside if word.lower() not in self._seen}
        self._title = document.title.lower()
        self._long_forms = long_forms(f"{document.title} {text}")

    def in_title(self, word: str) -> bool:
        """Whether the title names it."""
        return word.lower().rstrip("s") in self._title

    def sentence_case(self, title: str) -> str:
        """A title printed in capitals or in Title Case as running text."""
        words = [word for word in _WORD.findall(title) if len(word) > 3]
        if len(words) < 3:
            return title
        if sum(word.isupper() for word in words) > 0.7 * len(words):
            return _WORD.sub(lambda match: self._of_capitals(match[0]), title)
        if sum(word[0].isupper() for word in words) > 0.6 * len(words):
            title = re.sub(r"[^\s/\u2013\u2014-]+", lambda match: self._lowered(match[0]), title)
            return _PLACES.sub(
                lambda match: match[0].title().replace("'S", "'s").replace("Syndrome", "syndrome"), title
            )
        return title

    def mid_sentence(self, text: str) -> str:
        """The start of a sentence as it would stand inside one."""
        text = re.sub(
            r"^((?:alpha|beta|gamma|delta|[\u03b1-\u03c9])-)([A-Z][a-z]{3,})",
            lambda m: m[1] + m[2].lower(),
            text,
        )
        return re.sub(r"^\W*[^\s/\u2013\u2014-]+", lambda match: self._lowered(match[0]), text)

    def _lowered(self, word: str) -> str:
        """An ordinary word in lower case; names, acronyms, genes and symbols as they are."""
        core = re.sub(r"['\u2019]s$", "", re.sub(r"^\W+|\W+$", "", word))
        if not re.fullmatch(r"[A-Z][a-z\u00e0-\u00ff]*", core) or (len(core) == 1 and core != "A"):
            return word
        if core.lower() in lex.NAMES or (core.lower() in self._names and not _is_function_word(core.lower())):
            return word
        if len(core) <= 3 and core.lower() not in _SHORT_WORDS and not _is_function_word(core.lower()):
            return word
        return word.replace(core, core.lower(), 1)

    def _of_capitals(self, word: str) -> str:
        if word in self._seen and word.lower() not in self._seen and len(word) > 1:
            return word
        return word.capitalize() if word.lower() in lex.NAMES | self._names else word.lower()

    def written_out(self, question: str) -> str:
        """The question with the first use of each abbreviation the citation defines written out."""
        for short, defined in self._long_forms.items():
            long = self.mid_sentence(defined)
            if long.lower() in question.lower():
                question = re.sub(rf"\s*\({re.escape(short)}s?\)", "", question)
                continue
            # Not within a compound such as "p-IL-6" or "IL-6R", nor where a number follows.
            use = re.search(rf"(?<![\w/-]){re.escape(short)}(s?)(?![\w/+]|-\d)", question)
            if use:
                plural = use[1] if not long.endswith("s") else ""
                question = question[: use.start()] + long + plural + question[use.end() :]
        return question


def _is_function_word(word: str) -> bool:
    return word in lex.PREPOSITIONS | lex.CONJUNCTIONS | lex.DETERMINERS | lex.AUXILIARIES


def long_forms(text: str) -> dict[str, str]:
    """Abbreviations defined as "long form (SF)", by the algorithm of Schwartz and Hearst (2003)."""
    found: dict[str, str] = {}
    for match in re.finditer(r"\(([A-Z][A-Za-z0-9-]{1,7})(?:[;,][^)]*)?\)", text):
        short = match[1]
        if sum(letter.isupper() for letter in short) < 2 or short in found:
            continue
        before = re.split(r"[.;:()] ", text[max(0, match.start() - 120) : match.start()])[-1].split()
        long = _best_long_form(short, " ".join(before[-min(len(short) + 5, 2 * len(short)) :]))
        if long:
            found[short[:-1] if short.endswith("s") else short] = long
    return found


def _best_long_form(short: str, candidate: str) -> str | None:
    """Match the letters of the short form from right to left; the first must begin a word."""
    position = len(candidate) - 1
    for index in range(len(short) - 1, -1, -1):
        letter = short[index].lower()
        if not letter.isalnum():
            continue
        while position >= 0 and (
            candidate[position].lower() != letter
            or (index == 0 and position > 0 and candidate[position - 1].isalnum())
        ):
            position -= 1
        if position < 0:
            return None
        position -= 1
    # "heat-stable" is one word, whichever half the letter is from.
    start = candidate.rfind(" ", 0, position + 2) + 1
    long = candidate[start:].strip()
    words = long.split()
    if (
        len(long) <= len(short)
        or len(words) > len(short) + 2
        or short in words
        or re.search(r"[,()\[\]]", long)
    ):
        return None
    return None if long.endswith("s") and not short.endswith(("s", "S")) else long


def clean(text: str) -> str:
    """One line, plain spaces, no mark-up left-overs."""
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"\s+([,.;:?!)])", r"\1", text)


def is_whole(text: str) -> bool:
    """Whether every bracket that opens is closed."""
    return all(text.count(left) == text.count(right) for left, right in ("()", "[]"))
