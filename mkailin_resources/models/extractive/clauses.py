"""From an English statement to a yes/no question: find the finite verb, invert, keep the rest.

After the heuristic behind PubMedQA's artificial set (Jin et al. 2019), which took titles of the form
noun phrase + VBP/VBZ, widened to auxiliaries, modals, the past tense and leading adverbials.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mkailin_resources.models.extractive import lexicon as lex

_ADVERB = re.compile(r"(ly|also|often|thus|therefore|then|hence|still|not|only|already|never|always|likely|further)$")
_CONNECTIVES = frozenset("thus therefore hence also then however moreover furthermore consequently".split())
_NOT_LY_ADVERBS = frozenset("family only early anomaly supply reply assembly".split())
_LEADING_DROPPED = frozenset("although though while whilst whereas because since even as given".split())
_LEADING_KEPT = lex.PREPOSITIONS | frozenset("when if compared based depending regardless unlike once".split())
_NO_SUBJECT = lex.PREPOSITIONS - frozenset("out up down off like".split())


class NotAClaim(ValueError):
    """A text that this code cannot turn into a well-formed yes/no question; says why."""


@dataclass(frozen=True)
class _Token:
    text: str
    word: str  # lower case, without punctuation around it
    inside: bool  # within brackets
    comma: bool  # ends with a comma


def yes_no_question(statement: str, *, title: bool) -> str:
    """A statement without final period as a question that "yes" affirms.

    The first word must have its sentence-internal case. Negations are dropped: the question asks for the
    positive form. In a title, past forms count as verbs only where a determiner follows ("identified a").
    Raises `NotAClaim` where no finite verb is found or the result would not read as English.
    """
    tokens = _tokens(statement)
    verb = _finite_verb(tokens, title)
    if verb is None:
        raise NotAClaim("no finite verb found")
    lead, subject, adverbs = _before(tokens[:verb], title)
    question = _inverted(subject, adverbs, tokens[verb], tokens[verb + 1 :])
    question = re.sub(r"\s+([,;])", r"\1", " ".join([*(token.text for token in lead), question]))
    question = question.rstrip(" ,;:.-–—")
    return question[0].upper() + question[1:] + "?"


def has_finite_verb(text: str) -> bool:
    """Whether a title reads as a statement."""
    return _finite_verb(_tokens(text), title=True) is not None


def is_plural(noun_phrase: str) -> bool:
    """Number of a noun phrase by its head, or by an 'and' before the first preposition."""
    words = [token for token in _tokens(noun_phrase) if not token.inside]
    head: list[_Token] = []
    for place, token in enumerate(words):
        if place and token.word in lex.PREPOSITIONS | lex.RELATIVES:
            break
        if place and re.fullmatch(r"\w+(ed|ing)", token.word) and place + 1 < len(words):
            following = words[place + 1].word
            if following in lex.PREPOSITIONS | lex.DETERMINERS:
                break
        head.append(token)
        if token.comma and place + 1 < len(words) and not any(t.word == "and" for t in words[place:]):
            break
    if any(token.word == "and" for token in head[1:]) and not (head and head[0].text.endswith("ing")):
        return True
    # A final capital S belongs to an acronym, not to a plural.
    return bool(head) and not re.search(r"[A-Z]S\W*$", head[-1].text) and lex.is_plural_noun(head[-1].word)


def _tokens(text: str) -> list[_Token]:
    tokens, depth = [], 0
    for piece in text.split():
        opened = depth + sum(piece.count(bracket) for bracket in "([")
        word = re.sub(r"^\W+|\W+$", "", piece)
        # "Physalin A" ends in a letter, not in an article.
        word = word if tokens and word == "A" else word.lower()
        inside = depth > 0 or piece[0] in "(["
        depth = max(0, opened - sum(piece.count(bracket) for bracket in ")]"))
        tokens.append(_Token(piece, word, inside, piece.endswith(",")))
    return tokens


def _finite_verb(tokens: Sequence[_Token], title: bool) -> int | None:
    """Position of the main finite verb: the first that no relative or subordinate clause claims."""
    pending = 0
    for place in range(len(tokens)):
        token = tokens[place]
        if token.inside:
            continue
        if place and token.word in lex.RELATIVES and not (
            token.word == "that" and tokens[place - 1].word in ("than", "to", "with", "from")
        ):
            pending = 1
            continue
        if token.word in lex.SUBORDINATORS and not (token.word in ("as", "since", "like") and place):
            pending = 1
            continue
        if pending and _any_verb_form(tokens, place):
            pending = 0
            continue
        if place == 0 or not _is_finite(tokens, place):
            continue
        if pending:
            pending = 0
            continue
        return place
    return _past_verb(tokens, title)


def _past_verb(tokens: Sequence[_Token], title: bool) -> int | None:
    """The first '-ed' form that stands as a finite verb, not as a participle."""
    pending = False
    for place in range(1, len(tokens) - 1):
        token, following = tokens[place], tokens[place + 1]
        if token.inside:
            continue
        if token.word in lex.RELATIVES | lex.SUBORDINATORS:
            pending = True
            continue
        if token.word not in lex.PAST or token.comma:
            continue
        before = tokens[place - 1]
        if pending:
            pending = False
            continue
        if before.word in lex.DETERMINERS | lex.PREPOSITIONS | lex.CONJUNCTIONS or (
            before.word.endswith("ly") and place == 1
        ):
            continue
        if following.word in lex.DETERMINERS:
            return place
        if title or following.inside or following.word in ("by", "with", "to", "from", "as", "using", "via"):
            continue
        if following.word in lex.PREPOSITIONS and lex.PAST[token.word] not in _INTRANSITIVE:
            continue
        if not before.comma and _ends_noun_phrase(before.word):
            return place
    return None


_INTRANSITIVE = frozenset(
    "decline decrease increase differ occur improve persist progress remain develop vary correlate appear resolve "
    "worsen emerge respond rise result contribute participate fluctuate depend deteriorate".split()
)
_WITH_PREPOSITION = _INTRANSITIVE | frozenset(
    "accumulate act lead play protect predispose relate function interact associate coincide aggregate cooperate "
    "compete compensate benefit suffer rely reside localize colocalize originate synergize interfere respond "
    "account bind converge cluster consist belong agree adapt spread transform convert cross-react derive diverge "
    "evolve exist expand focus form grow infiltrate propagate project proceed recover serve shift signal stem "
    "succeed tend translate warrant work depend migrate add fail cycle couple arise correspond dissociate "
    "contribute appear diminish switch track transition differentiate look attract mature penetrate begin come "
    "fall go stay".split()
)


def _ends_noun_phrase(word: str) -> bool:
    return bool(word) and word not in lex.DETERMINERS | lex.PREPOSITIONS | lex.AUXILIARIES


def _any_verb_form(tokens: Sequence[_Token], place: int) -> bool:
    """Right after a relative pronoun (an adverb between) every verb form is the relative clause's."""
    back = place - 1
    while back > 0 and _is_adverb(tokens[back].word):
        back -= 1
    word = tokens[place].word
    if tokens[back].word not in lex.RELATIVES:
        return False
    return (
        word in lex.AUXILIARIES
        or word in lex.PAST
        or word in lex.BASES
        or lex.base_of_third_person(word) is not None
    )


def _is_adverb(word: str) -> bool:
    return bool(_ADVERB.search(word)) and word not in _NOT_LY_ADVERBS


def _is_finite(tokens: Sequence[_Token], place: int) -> bool:
    token = tokens[place]
    word, comma = token.word, token.comma
    following = next((other for other in tokens[place + 1 :] if not other.inside), None)
    before = _before_adverbs(tokens, place)
    if word in lex.BE | lex.MODALS or word in ("does", "do", "did", "has", "had"):
        # "can" the noun, "may" the month and "had" the participle are too rare here to matter.
        return not token.text.isupper() or len(token.text) == 1
    if word == "have":
        return before.word not in ("to", *lex.MODALS)
    if token.text[:1].isupper() and token.text[1:2].isupper():
        return False
    if word in lex.FINITE_PAST:
        return True
    if "'" in token.text or "’" in token.text or not token.text[:1].isalpha():
        return False
    verb = lex.base_of_third_person(word)
    if verb is not None:
        return not comma and _third_person_reads_as_verb(verb, tokens[:place], following)
    if word in lex.BASES:
        return not comma and _base_reads_as_verb(tokens, place, before, following)
    return False


def _before_adverbs(tokens: Sequence[_Token], place: int) -> _Token:
    for token in reversed(tokens[:place]):
        if not token.inside and not _is_adverb(token.word):
            return token
    return _Token("", "", False, False)


def _third_person_reads_as_verb(verb: str, tokens: Sequence[_Token], following: _Token | None) -> bool:
    """Whether a form such as "increases" is the verb, given what stands before and behind it."""
    before = _before_adverbs(tokens, len(tokens))
    if before.word in lex.DETERMINERS | lex.PREPOSITIONS | {"to", ""} or before.word.endswith("'s"):
        return False
    if verb not in lex.NOUNLIKE:
        return True
    # ", therefore," between subject and verb is an aside; a bare comma is a list.
    listed = before.comma and tokens[-1] is before
    if following is None or listed or before.word in lex.CONJUNCTIONS:
        return False
    if following.word in lex.DETERMINERS:
        return True
    if _reads_as_adjective(before.word):
        return False
    if following.word in lex.CONJUNCTIONS | lex.RELATIVES | lex.AUXILIARIES | lex.PAST.keys():
        return False
    if following.word in _MODIFYING_PARTICIPLES:
        return False
    if (other := lex.base_of_third_person(following.word)) and other not in lex.NOUNLIKE:
        return False
    if following.word in lex.PREPOSITIONS:
        return _preposition_fits(verb, following.word)
    # After a plural it is a verb only where the subject's head is singular: "a mutation in cells causes ...".
    return not lex.is_plural_noun(before.word) or not is_plural(" ".join(token.text for token in tokens))


# "forms lacking", "models expressing": the word before is the noun they modify.
_MODIFYING_PARTICIPLES = frozenset(
    "lacking expressing including using containing involving undergoing receiving carrying harboring bearing encoding "
    "meeting showing having being linking comparing".split()
)
_VERB_PREPOSITIONS = {
    "point": ("to", "toward", "towards"),
    "lead": ("to",),
    "result": ("in", "from"),
    "play": (),
    "function": ("as",),
    "aggregate": (),
    "associate": ("with",),
    "stem": ("from",),
    "focus": ("on",),
    "interface": ("with",),
    "transition": (),
    "rank": (),
    "benefit": ("from",),
    "couple": (),
    "correlate": ("with",),
    "decline": (),
    "differ": ("from", "in", "between"),
    "rise": ("in", "during", "before"),
    "signal": ("through", "via"),
    "work": ("through", "via", "as"),
}


def _preposition_fits(verb: str, preposition: str) -> bool:
    """Of verbs that are also nouns, few are verbs before a preposition: "results in", not "results of"."""
    return preposition in _VERB_PREPOSITIONS.get(verb, ())


def _reads_as_adjective(word: str) -> bool:
    return bool(
        re.search(r"(ive|ous|ful|ic|ical|able|ible|less|[^ac]ed|ional|ental|ural|ular|ary)$", word)
    ) and word not in ("logic", "seed", "feed", "statistic", "additive", "derivative", "topic", "clinic", "capsular")


def _base_reads_as_verb(
    tokens: Sequence[_Token], place: int, before: _Token, following: _Token | None
) -> bool:
    word = tokens[place].word
    if following is None or before.word in ("to", "and", "or", "not", "", "both"):
        return False
    if before.comma and word in lex.BASE_NOUNLIKE:
        return False
    head_is_plural = word not in lex.BASE_NOUNLIKE and is_plural(" ".join(token.text for token in tokens[:place]))
    if not (lex.is_plural_noun(before.word) or head_is_plural or _coordinated_subject(tokens, place)):
        return False
    if before.word in lex.DETERMINERS | lex.PREPOSITIONS or before.word.endswith(("'s", "’s")):
        return False
    if following.word in lex.CONJUNCTIONS | lex.RELATIVES | lex.AUXILIARIES:
        return False
    if word in lex.BASE_NOUNLIKE:
        if not lex.is_plural_noun(before.word):
            return following.word in lex.DETERMINERS
        if following.word in lex.PREPOSITIONS:
            return _preposition_fits(word, following.word)
        # "Alzheimer's disease mice model tau", but not "mice model study".
        return following.word in lex.DETERMINERS or (
            len(tokens) > place + 2 and before.word not in ("analysis",) and following.word not in lex.NOUNLIKE
        )
    return True


def _coordinated_subject(tokens: Sequence[_Token], place: int) -> bool:
    """'A and B' right before the verb, however the second noun is spelt."""
    words = [token.word for token in tokens[:place] if not token.inside and not _is_adverb(token.word)]
    if "and" not in words[1:]:
        return False
    conjunction = len(words) - 1 - words[::-1].index("and")
    between = words[conjunction + 1 :]
    no_preposition = not any(word in lex.PREPOSITIONS for word in words[:conjunction])
    return bool(between) and len(between) <= 4 and no_preposition and not set(between) & lex.PREPOSITIONS


def _before(tokens: Sequence[_Token], title: bool) -> tuple[list[_Token], list[_Token], list[str]]:
    """What stands before the verb: leading adverbial, subject, adverbs that move behind the subject."""
    lead: list[_Token] = []
    subject = list(tokens)
    first = subject[0].word
    in_vitro = first == "in" and len(subject) > 1 and subject[1].word in ("vivo", "vitro", "situ", "silico", "utero")
    if (first in _LEADING_KEPT | _LEADING_DROPPED or _is_adverb(first)) and not in_vitro:
        ends = [
            place
            for place, token in enumerate(subject[:-1])
            if token.comma and not token.inside and subject[place + 1].word not in lex.CONJUNCTIONS
        ]
        if ends:
            lead, subject = subject[: ends[0] + 1], subject[ends[0] + 1 :]
            if first in _LEADING_DROPPED or _is_adverb(first):
                lead = []
        elif first in _NO_SUBJECT | _LEADING_DROPPED | {"when", "if"}:
            raise NotAClaim("the statement does not begin with its subject")
        elif first in _CONNECTIVES:
            subject = subject[1:]
    adverbs: list[str] = []
    while subject and _is_adverb(subject[-1].word) and not subject[-1].inside:
        adverb = subject.pop().text.rstrip(",")
        if adverb.lower() not in _CONNECTIVES:
            adverbs.insert(0, adverb)
    if not subject:
        raise NotAClaim("no subject before the verb")
    if subject[-1].word in lex.CONJUNCTIONS or subject[0].word == "like":
        raise NotAClaim("the verb before was not recognised")
    if subject[0].word in _NO_SUBJECT and not in_vitro:
        raise NotAClaim("the statement does not begin with its subject")
    return lead, subject, adverbs


def _inverted(subject: list[_Token], adverbs: list[str], verb: _Token, rest: list[_Token]) -> str:
    if subject[0].word in ("none", "neither", "nor", "few", "nothing"):
        raise NotAClaim("the negation has no plain positive form")
    no_such = subject[0].word == "no" and len(subject) > 1
    noun_phrase = " ".join(token.text for token in subject[no_such:])
    rest, negated = _without_negation(rest)
    negated = negated or no_such
    if verb.word in lex.BE:
        auxiliary, predicate = verb.word, _predicate(rest, "be", negated)
    elif verb.word in lex.MODALS:
        auxiliary, predicate = _modal(verb.word, noun_phrase, rest, negated)
    elif verb.word in lex.DO:
        auxiliary, predicate = verb.word, _predicate(_without_hedge(rest), "base", negated)
    elif verb.word in lex.HAVE and _participle_follows(rest):
        auxiliary, predicate = verb.word, _predicate(rest, "have", negated)
    else:
        auxiliary, predicate = _lexical(verb, rest, negated)
    if not predicate.strip(" ,.;"):
        raise NotAClaim("nothing is said after the verb")
    return " ".join([auxiliary, noun_phrase, *adverbs, predicate])


def _lexical(verb: _Token, rest: list[_Token], negated: bool) -> tuple[str, str]:
    if verb.word == "have":
        auxiliary, base = "do", "have"
    elif verb.word in ("has", "had"):
        auxiliary, base = ("does" if verb.word == "has" else "did"), "have"
    elif (third := lex.base_of_third_person(verb.word)) is not None:
        auxiliary, base = "does", third
    elif verb.word in lex.PAST and verb.word not in lex.BASES:
        auxiliary, base = "did", lex.PAST[verb.word]
    else:
        auxiliary, base = "do", verb.word
    kind = {"does": "third", "did": "past", "do": "base"}[auxiliary]
    if base in ("appear", "seem", "tend", "fail") and rest and rest[0].word == "to":
        if len(rest) > 1 and rest[1].word == "be":
            return {"does": "is", "do": "are", "did": "was"}[auxiliary], _predicate(rest[2:], "be", negated)
        return auxiliary, _predicate(rest[1:], "base", negated)
    predicate = _predicate(rest, kind, negated)
    if rest and not predicate:
        raise NotAClaim("the verb shares its object with another")
    return auxiliary, f"{base} {predicate}".strip()


def _modal(modal: str, noun_phrase: str, rest: list[_Token], negated: bool) -> tuple[str, str]:
    """May and might ask badly: "Could X be ...?" for be, else the plain present."""
    modal = "can" if modal == "cannot" else modal
    rest = _without_hedge(rest)
    place = next((i for i, token in enumerate(rest) if not _is_adverb(token.word)), None)
    if place is None:
        raise NotAClaim("nothing is said after the verb")
    if modal in ("may", "might") and rest[place].word not in ("be", "have"):
        auxiliary = "do" if is_plural(noun_phrase) else "does"
        kept = [token for token in rest[:place] if token.word not in ("well", "also", "possibly", "potentially")]
        return auxiliary, _predicate(kept + rest[place:], "base", negated)
    if modal in ("may", "might"):
        modal = "could"
    return modal, _predicate(rest, "base", negated)


def _without_hedge(rest: list[_Token]) -> list[_Token]:
    if len(rest) > 2 and rest[0].word in ("appear", "seem") and rest[1].word == "to":
        return rest[2:]
    return rest


def _without_negation(rest: list[_Token]) -> tuple[list[_Token], bool]:
    """The predicate in its positive form, and whether it was negative."""
    for place, token in enumerate(rest[:3]):
        if token.word in lex.CONJUNCTIONS:
            break
        if token.word in ("not", "never"):
            if place + 1 < len(rest) and rest[place + 1].word in ("only", "just", "merely"):
                raise NotAClaim("'not only' has no plain positive form")
            return rest[:place] + rest[place + 1 :], True
        if token.word in ("neither", "nor", "no-longer") or (
            token.word == "no" and place + 1 < len(rest) and rest[place + 1].word in ("longer", "more", "less", "better")
        ):
            raise NotAClaim("the negation has no plain positive form")
    if rest and rest[0].word == "no":
        return [_Token("any", "any", False, False), *rest[1:]], True
    return rest, False


def _participle_follows(rest: Sequence[_Token]) -> bool:
    word = next((token.word for token in rest if not _is_adverb(token.word)), "")
    following = rest[1].word if len(rest) > 1 else ""
    return word in lex.PARTICIPLES or (word.endswith("ed") and following not in ("effects", "risk", "risks", "levels"))


def _predicate(rest: Sequence[_Token], kind: str, negated: bool) -> str:
    """The predicate up to where another clause begins; coordinated verbs follow the question's auxiliary.

    `kind`: form of the verb before it: be, have, base, third or past.
    """
    kept: list[str] = []
    relative = coordinated = False
    for place, token in enumerate(rest):
        if not token.inside:
            coordinated = token.word in ("and", "or") or (coordinated and _is_adverb(rest[place - 1].word)) or (
                place > 0 and rest[place - 1].word in ("and", "or")
            )
            if token.word in lex.CONJUNCTIONS or (kept and rest[place - 1].comma):
                action, form = _coordination(rest, place, kind, relative, negated)
                if action == "cut" and not all(_is_adverb(word.lower()) for word in kept):
                    break
                if action == "convert":
                    kept.append(token.text.replace(token.word, form) if token.word not in lex.CONJUNCTIONS else token.text)
                    continue
            if kept and coordinated and not relative:
                form = _converted(token, kind, rest[place + 1].word if place + 1 < len(rest) else "")
                if form:
                    kept.append(token.text.replace(token.word, form))
                    continue
            if token.word in lex.RELATIVES:
                relative = True
            if kept and token.text in ("-", "–", "—", "--", ":"):
                break
        kept.append(token.text)
        if not token.inside and token.text.endswith((";", ":")):
            break
    return " ".join(kept)


def _converted(token: _Token, kind: str, following: str = "") -> str | None:
    """The infinitive of a verb coordinated with the first; an unknown one is known by the article behind it."""
    if kind == "third":
        known = lex.base_of_third_person(token.word)
        if known is None and following in ("the", "a", "an", "its", "their") and re.search(r"[a-z]{3}[^s]s$", token.word):
            return re.sub(r"(?<=ch|sh|ss)es$|(?<=[xz])es$|s$", "", re.sub(r"ies$", "ys", token.word))
        return known
    if kind == "past" and token.word in lex.PAST and token.word not in lex.BASES:
        return lex.PAST[token.word]
    return None


_CUT_AT = frozenset("whereas while although though which thereby perhaps possibly but".split())


def _coordination(
    rest: Sequence[_Token], place: int, kind: str, relative: bool, negated: bool
) -> tuple[str, str]:
    """What to do at a conjunction or after a comma: keep, cut, or convert the verb that stands here."""
    token = rest[place]
    after_comma = place > 0 and rest[place - 1].comma
    if after_comma and token.word in _CUT_AT:
        return "cut", ""
    if token.word == "but":
        return "cut", ""
    start = place
    while start < len(rest) and (rest[start].word in lex.CONJUNCTIONS or _is_adverb(rest[start].word)):
        start += 1
    if start >= len(rest):
        return "cut", ""
    word = rest[start].word
    if after_comma and (word in _CUT_AT or _begins_participle_clause(rest, start)):
        return "cut", ""
    if after_comma and word in lex.DETERMINERS and any(
        other.word in lex.PAST and before.word not in lex.PREPOSITIONS
        for before, other in zip(rest[start:], rest[start + 2 : start + 7], strict=False)
    ):
        return "cut", ""
    if relative and not after_comma:
        return "keep", ""
    if word in lex.AUXILIARIES or (negated and token.word in lex.CONJUNCTIONS and _converted(rest[start], kind)):
        return "cut", ""
    third = lex.base_of_third_person(word)
    if third is not None and third not in lex.NOUNLIKE and kind in ("be", "have", "base", "past"):
        return "cut", ""
    if start == place and kind == "third" and third is not None and third not in lex.NOUNLIKE:
        return "convert", third
    behind = rest[start + 1].word if start + 1 < len(rest) else ""
    bare = word in lex.BASES and (behind in lex.PREPOSITIONS | lex.DETERMINERS or behind.endswith("ing"))
    if kind in ("be", "have") and bare and token.word in lex.CONJUNCTIONS:
        return "cut", ""
    verb = _next_finite(rest, start)
    if verb is not None and verb > start:
        return "cut", ""
    return "keep", ""


def _begins_participle_clause(rest: Sequence[_Token], place: int) -> bool:
    """", suggesting ..." comments on the claim; ", staining, and ..." continues a list."""
    token = rest[place]
    return token.word.endswith("ing") and len(token.word) > 5 and place + 1 < len(rest) and not (
        token.comma or rest[place + 1].word in lex.CONJUNCTIONS | lex.AUXILIARIES
    )


def _next_finite(rest: Sequence[_Token], start: int) -> int | None:
    """A finite verb with a subject of its own before the next comma: another clause begins here."""
    for place in range(start + 1, len(rest)):
        token = rest[place]
        if token.inside:
            continue
        if token.word in lex.RELATIVES | lex.SUBORDINATORS | lex.CONJUNCTIONS:
            return None
        if token.word in lex.BE | lex.MODALS | {"does", "did", "has"}:
            return place
        verb = lex.base_of_third_person(token.word)
        following = rest[place + 1] if place + 1 < len(rest) else None
        if verb is not None and _third_person_reads_as_verb(verb, rest[start:place], following):
            return place
        if token.comma:
            return None
    return None
