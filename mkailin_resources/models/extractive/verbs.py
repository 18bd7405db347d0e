"""Where the finite verb of an English statement stands, and the number of a noun phrase.

No tagger: a lexicon of biomedical verbs and the words around a form decide between verb and noun.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mkailin_resources.models.extractive import lexicon as lex

_ADVERBS = lex.words(
    "also often thus therefore then hence still not only already never always likely further"
)
_NOT_LY_ADVERBS = lex.words("family early anomaly supply reply assembly")
_ADJECTIVE = re.compile(r"(ive|ous|ful|ic|ical|able|ible|less|[^ac]ed|ional|ental|ural|ular|ary)$")
_NO_ADJECTIVES = lex.words("logic seed feed statistic additive derivative topic clinic capsular")
# "forms lacking", "models expressing": the word before is the noun they modify.
_MODIFYING_PARTICIPLES = lex.words(
    "lacking expressing including using containing involving undergoing receiving carrying harboring "
    "bearing encoding meeting showing having being linking comparing"
)
# Of verbs that are also nouns, few are verbs before a preposition: "results in", not "results of".
_VERB_BEFORE = {
    "point": lex.words("to toward towards"),
    "lead": lex.words("to"),
    "result": lex.words("in from"),
    "function": lex.words("as"),
    "associate": lex.words("with"),
    "stem": lex.words("from"),
    "focus": lex.words("on"),
    "interface": lex.words("with"),
    "benefit": lex.words("from"),
    "correlate": lex.words("with"),
    "decline": lex.words("with"),
    "decrease": lex.words("with"),
    "increase": lex.words("with"),
    "rise": lex.words("in during before with"),
    "signal": lex.words("through via"),
}
# Participles that open an object: "produces increased levels".
_CHANGED = lex.words("altered decreased elevated enhanced impaired improved increased reduced")
_INTRANSITIVE = lex.words(
    "decline decrease increase differ occur improve persist progress remain vary correlate appear resolve "
    "worsen emerge respond rise result contribute participate fluctuate depend deteriorate"
)


@dataclass(frozen=True)
class Token:
    """A word as printed, and what the rules read of it."""

    text: str
    word: str  # lower case, without punctuation around it
    inside: bool  # within brackets
    comma: bool  # ends with a comma


NO_TOKEN = Token("", "", False, False)


def tokens_of(text: str) -> list[Token]:
    """The words of a text, those within brackets marked."""
    tokens: list[Token] = []
    depth = 0
    for piece in text.split():
        opened = depth + sum(piece.count(bracket) for bracket in "([")
        word = re.sub(r"^\W+|\W+$", "", piece)
        # "Physalin A" ends in a letter, not in an article.
        word = word if tokens and word == "A" else word.lower()
        tokens.append(Token(piece, word, depth > 0 or piece[0] in "([", piece.endswith(",")))
        depth = max(0, opened - sum(piece.count(bracket) for bracket in ")]"))
    return tokens


def has_finite_verb(text: str) -> bool:
    """Whether a title reads as a statement."""
    return finite_verb(tokens_of(text), title=True) is not None


def is_adverb(word: str) -> bool:
    """Whether a lower-case word may stand between subject and verb."""
    return word in _ADVERBS or (word.endswith("ly") and word not in _NOT_LY_ADVERBS)


def is_plural(noun_phrase: str) -> bool:
    """Number of a noun phrase by its head, or by an 'and' before the first preposition."""
    return _is_plural([token for token in tokens_of(noun_phrase) if not token.inside])


def finite_verb(tokens: Sequence[Token], *, title: bool) -> int | None:
    """Position of the main finite verb: the first that no relative or subordinate clause claims.

    In a title, past forms count only where a determiner follows ("identified a"), since participles abound.
    """
    pending = False
    for place, token in enumerate(tokens):
        if token.inside:
            continue
        if _opens_clause(tokens, place):
            pending = True
        elif (pending and _belongs_to_relative(tokens, place)) or (place and _is_finite(tokens, place)):
            if not pending:
                return place
            pending = False
    return _past_verb(tokens, title)


def reads_as_joined_verb(verb: str, behind: str) -> bool:
    """Whether a form such as "correlates" right after an 'and' is a verb, given the word behind it."""
    return verb not in lex.NOUNLIKE or behind in lex.DETERMINERS | _VERB_BEFORE.get(verb, frozenset())


def reads_as_third_person(verb: str, before: Sequence[Token], following: Token) -> bool:
    """Whether a form such as "increases" is the verb, given the tokens before and the one behind it."""
    last = _last_word(before)
    if last.word in lex.DETERMINERS | lex.PREPOSITIONS | {""} or last.word.endswith("'s"):
        return False
    if verb not in lex.NOUNLIKE:
        return True
    # ", therefore," between subject and verb is an aside; a bare comma is a list.
    listed = last.comma and before[-1] is last
    if not following.word or listed or last.word in lex.CONJUNCTIONS:
        return False
    return following.word in lex.DETERMINERS or (
        not _reads_as_adjective(last.word)
        and _may_follow_verb(verb, following)
        # After a plural it is a verb only where the head is singular: "a mutation in cells causes ...".
        and not (lex.is_plural_noun(last.word) and _is_plural([t for t in before if not t.inside]))
    )


def _is_plural(words: Sequence[Token]) -> bool:
    head: list[Token] = []
    for place, token in enumerate(words):
        following = words[place + 1].word if place + 1 < len(words) else ""
        participle = re.fullmatch(r"\w+(ed|ing)", token.word)
        postmodified = participle and following in lex.PREPOSITIONS | lex.DETERMINERS
        if place and (token.word in lex.PREPOSITIONS | lex.RELATIVES or postmodified):
            break
        head.append(token)
        if token.comma and following and not any(other.word == "and" for other in words[place:]):
            break
    if not head:
        return False
    if any(token.word == "and" for token in head[1:]) and not head[0].text.endswith("ing"):
        return True
    # A final capital S belongs to an acronym, not to a plural.
    return not re.search(r"[A-Z]S\W*$", head[-1].text) and lex.is_plural_noun(head[-1].word)


def _opens_clause(tokens: Sequence[Token], place: int) -> bool:
    word = tokens[place].word
    if word in lex.RELATIVES and place:
        pronoun = word == "that" and tokens[place - 1].word in ("than", "to", "with", "from")
        return not pronoun
    return word in lex.SUBORDINATORS and not (place and word in ("as", "since"))


def _belongs_to_relative(tokens: Sequence[Token], place: int) -> bool:
    """Right after a relative pronoun (an adverb between) every verb form is the relative clause's."""
    back = place - 1
    while back > 0 and is_adverb(tokens[back].word):
        back -= 1
    word = tokens[place].word
    verb = word in lex.AUXILIARIES | lex.PAST.keys() | lex.BASES or lex.base_of_third_person(word)
    return tokens[back].word in lex.RELATIVES and bool(verb)


def _is_finite(tokens: Sequence[Token], place: int) -> bool:
    token, before = tokens[place], _last_word(tokens[:place])
    word = token.word
    if word == "have":
        return before.word not in {"to"} | lex.MODALS
    if word in lex.AUXILIARIES:
        return not token.text.isupper()
    symbol = re.match(r"[A-Z]{2}|[^A-Za-z]", token.text) or "'" in token.text or "\u2019" in token.text
    if symbol or token.comma:
        return False
    following = next((other for other in tokens[place + 1 :] if not other.inside), NO_TOKEN)
    verb = lex.base_of_third_person(word)
    if verb is not None:
        return reads_as_third_person(verb, tokens[:place], following)
    return word in lex.FINITE_PAST or (
        word in lex.BASES and _reads_as_plural_verb(tokens, place, before, following)
    )


def _last_word(tokens: Sequence[Token]) -> Token:
    return next(
        (token for token in reversed(tokens) if not token.inside and not is_adverb(token.word)), NO_TOKEN
    )


def _may_follow_verb(verb: str, following: Token) -> bool:
    if following.word in lex.PREPOSITIONS:
        return following.word in _VERB_BEFORE.get(verb, ())
    other = lex.base_of_third_person(following.word)
    never = lex.CONJUNCTIONS | lex.RELATIVES | lex.AUXILIARIES | _MODIFYING_PARTICIPLES
    never |= lex.PAST.keys() - _CHANGED
    return following.word not in never and (other is None or other in lex.NOUNLIKE)


def _reads_as_adjective(word: str) -> bool:
    return bool(_ADJECTIVE.search(word)) and word not in _NO_ADJECTIVES


def _reads_as_plural_verb(tokens: Sequence[Token], place: int, before: Token, following: Token) -> bool:
    """Whether a bare form such as "induce" is the verb of a plural subject."""
    word = tokens[place].word
    nounlike = word in lex.BASE_NOUNLIKE
    plural_before = lex.is_plural_noun(before.word)
    no_subject = {"", "to", "and", "or", "not", "both"} | lex.DETERMINERS | lex.PREPOSITIONS
    no_object = {""} | lex.CONJUNCTIONS | lex.RELATIVES | lex.AUXILIARIES
    if (
        before.word in no_subject
        or before.word.endswith(("'s", "\u2019s"))
        or following.word in no_object
        or (before.comma and nounlike)
    ):
        return False
    if not nounlike or following.word in lex.DETERMINERS:
        subject = [token for token in tokens[:place] if not token.inside]
        return plural_before or _is_plural(subject) or _coordinated_subject(subject)
    if following.word in lex.PREPOSITIONS:
        return plural_before and following.word in _VERB_BEFORE.get(word, ())
    # "Alzheimer's disease mice model tau pathology", but not "mice model study".
    return plural_before and len(tokens) > place + 2 and following.word not in lex.NOUNLIKE


def _coordinated_subject(subject: Sequence[Token]) -> bool:
    """'A and B' right before the verb, however the second noun is spelt."""
    words = [token.word for token in subject if not is_adverb(token.word)]
    if "and" not in words[1:]:
        return False
    conjunction = len(words) - 1 - words[::-1].index("and")
    second = words[conjunction + 1 :]
    return 1 <= len(second) <= 4 and not {*words[:conjunction], *second} & lex.PREPOSITIONS


def _past_verb(tokens: Sequence[Token], title: bool) -> int | None:
    """The first '-ed' form that stands as a finite verb, not as a participle."""
    pending = False
    for place in range(1, len(tokens) - 1):
        token, before, following = tokens[place], tokens[place - 1], tokens[place + 1]
        if token.inside:
            continue
        if token.word in lex.RELATIVES | lex.SUBORDINATORS:
            pending = True
        elif token.word in lex.PAST and not token.comma:
            if not pending and _reads_as_past_verb(token, before, following, title):
                return place
            pending = False
    return None


def _reads_as_past_verb(token: Token, before: Token, following: Token, title: bool) -> bool:
    if before.word in {""} | lex.DETERMINERS | lex.PREPOSITIONS | lex.CONJUNCTIONS | lex.AUXILIARIES:
        return False
    if following.word in lex.DETERMINERS:
        return True
    passive = following.word in ("by", "with", "to", "from", "as", "using", "via")
    object_needed = following.word in lex.PREPOSITIONS and lex.PAST[token.word] not in _INTRANSITIVE
    return not (title or following.inside or before.comma or passive or object_needed)
