"""From an English statement to a yes/no question: find the finite verb, invert, keep the rest.

After the heuristic behind PubMedQA's artificial set (Jin et al. 2019), which took titles of the form
noun phrase + VBP/VBZ, widened to auxiliaries, modals, the past tense and leading adverbials.
"""

import re
from collections.abc import Sequence
from typing import Literal

from mkailin_resources.models.extractive import lexicon as lex
from mkailin_resources.models.extractive.verbs import (
    NO_TOKEN,
    Token,
    finite_verb,
    is_adverb,
    is_plural,
    reads_as_joined_verb,
    reads_as_third_person,
    tokens_of,
)

# What stands before the predicate: a form of be, have + participle, an infinitive, or "-s" and "-ed" undone.
Kind = Literal["be", "have", "base", "third", "past"]

_CONNECTIVES = lex.words("thus therefore hence also then however moreover furthermore consequently")
_CONCESSIVE = lex.words("although though while whilst whereas because since even as given")
_ADVERBIAL = lex.PREPOSITIONS | lex.words(
    "when if compared based depending regardless unlike once starting beginning considering"
)
_NO_SUBJECT = lex.PREPOSITIONS - lex.words("out up down off like")
_BREAKS = lex.words("whereas while although though which thereby perhaps possibly but")
_HEDGING_ADVERBS = lex.words("well also possibly potentially")


class NotAClaim(ValueError):
    """A text that these rules cannot turn into a well-formed question; says why."""


def yes_no_question(statement: str, *, title: bool) -> str:
    """A statement without final period as a question that "yes" affirms.

    The first word must have its sentence-internal case. Negations are dropped: the question asks for the
    positive form. Raises `NotAClaim` where no finite verb is found or the result would not read as English.
    """
    tokens = tokens_of(statement)
    verb = finite_verb(tokens, title=title)
    if verb is None:
        raise NotAClaim("no finite verb found")
    lead, subject, adverbs = _before_verb(tokens[:verb])
    question = " ".join([*lead, _inverted(subject, adverbs, tokens[verb], tokens[verb + 1 :])])
    question = re.sub(r"\s+([,;])", r"\1", question).rstrip(" ,;:.-\u2013\u2014")
    return question[0].upper() + question[1:] + "?"


def _before_verb(tokens: list[Token]) -> tuple[list[str], list[Token], list[str]]:
    """Leading adverbial that stays in front, subject, adverbs that move behind the subject."""
    lead, subject = _leading_adverbial(tokens)
    adverbs: list[str] = []
    while subject and is_adverb(subject[-1].word) and not subject[-1].inside:
        adverb = subject.pop().text.rstrip(",")
        if adverb.lower() not in _CONNECTIVES:
            adverbs.insert(0, adverb)
    if not subject:
        raise NotAClaim("no subject before the verb")
    if subject[-1].word in lex.CONJUNCTIONS or subject[0].word == "like":
        raise NotAClaim("the verb before was not recognised")
    if subject[0].word in _NO_SUBJECT and not _in_vitro(subject):
        raise NotAClaim("the statement does not begin with its subject")
    return lead, subject, adverbs


def _leading_adverbial(tokens: list[Token]) -> tuple[list[str], list[Token]]:
    """'In patients with X,' stays in front; 'Although ...,' and 'Interestingly,' go."""
    first = tokens[0].word
    dropped = first in _CONCESSIVE or is_adverb(first)
    if _in_vitro(tokens) or not (dropped or first in _ADVERBIAL):
        return [], list(tokens)
    for place, token in enumerate(tokens[:-1]):
        if token.comma and not token.inside and tokens[place + 1].word not in lex.CONJUNCTIONS:
            return [] if dropped else [t.text for t in tokens[: place + 1]], list(tokens[place + 1 :])
    if first in _NO_SUBJECT | _CONCESSIVE | {"when", "if"}:
        raise NotAClaim("the statement does not begin with its subject")
    return [], list(tokens[1:] if first in _CONNECTIVES else tokens)


def _in_vitro(tokens: Sequence[Token]) -> bool:
    latin = ("vivo", "vitro", "situ", "silico", "utero")
    return len(tokens) > 1 and tokens[0].word == "in" and tokens[1].word in latin


def _inverted(subject: list[Token], adverbs: list[str], verb: Token, rest: list[Token]) -> str:
    if subject[0].word in ("none", "neither", "nor", "few", "nothing"):
        raise NotAClaim("the negation has no plain positive form")
    # "No association was found" asks whether an association was found.
    subject = subject[1:] if subject[0].word == "no" and len(subject) > 1 else subject
    noun_phrase = " ".join(token.text for token in subject)
    rest, negated = _positive(rest)
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


def _positive(rest: list[Token]) -> tuple[list[Token], bool]:
    """The predicate in its positive form, and whether it was negative."""
    for place, token in enumerate(rest[:3]):
        following = rest[place + 1].word if place + 1 < len(rest) else ""
        if token.word in ("neither", "nor") or (
            (token.word == "no" and following in ("longer", "more", "less", "better"))
            or (token.word == "not" and following in ("only", "just", "merely"))
        ):
            raise NotAClaim("the negation has no plain positive form")
        if token.word in lex.CONJUNCTIONS:
            break
        if token.word in ("not", "never"):
            return rest[:place] + rest[place + 1 :], True
    if rest and rest[0].word == "no":
        return [Token("any", "any", False, False), *rest[1:]], True
    return rest, False


def _lexical(verb: Token, rest: list[Token], negated: bool) -> tuple[str, str]:
    """Auxiliary and predicate of "reduces", "reduce" or "reduced"."""
    third = "have" if verb.word == "has" else lex.base_of_third_person(verb.word)
    if third is not None:
        auxiliary, base, kind = "does", third, "third"
    elif verb.word in lex.PAST and verb.word not in lex.BASES:
        auxiliary, base, kind = "did", lex.PAST[verb.word], "past"
    else:
        auxiliary, base, kind = "do", verb.word, "base"
    if base in ("appear", "seem", "tend", "fail") and rest and rest[0].word == "to":
        if len(rest) > 1 and rest[1].word == "be":
            be = {"does": "is", "do": "are", "did": "was"}[auxiliary]
            return be, _predicate(rest[2:], "be", negated)
        return auxiliary, _predicate(rest[1:], "base", negated)
    predicate = _predicate(rest, kind, negated)  # type: ignore[arg-type]
    if rest and not predicate:
        raise NotAClaim("the verb shares its object with another")
    return auxiliary, f"{base} {predicate}".strip()


def _modal(modal: str, noun_phrase: str, rest: list[Token], negated: bool) -> tuple[str, str]:
    """May and might ask badly: "Could X be ...?" for be, else the plain present."""
    rest = _without_hedge(rest)
    place = next((i for i, token in enumerate(rest) if not is_adverb(token.word)), None)
    if place is None:
        raise NotAClaim("nothing is said after the verb")
    if modal not in ("may", "might"):
        return "can" if modal == "cannot" else modal, _predicate(rest, "base", negated)
    if rest[place].word in ("be", "have"):
        return "could", _predicate(rest, "base", negated)
    kept = [token for token in rest[:place] if token.word not in _HEDGING_ADVERBS]
    return "do" if is_plural(noun_phrase) else "does", _predicate(kept + rest[place:], "base", negated)


def _without_hedge(rest: list[Token]) -> list[Token]:
    hedged = len(rest) > 2 and rest[0].word in ("appear", "seem") and rest[1].word == "to"
    return rest[2:] if hedged else rest


def _participle_follows(rest: Sequence[Token]) -> bool:
    place = next((i for i, token in enumerate(rest) if not is_adverb(token.word)), None)
    if place is None:
        return False
    following = rest[place + 1].word if place + 1 < len(rest) else ""
    # "has reduced risks" has a noun, "has reduced" none.
    adjective = lex.is_plural_noun(following) or following == "risk"
    return rest[place].word in lex.PARTICIPLES or (rest[place].word.endswith("ed") and not adjective)


def _predicate(rest: Sequence[Token], kind: Kind, negated: bool) -> str:
    """The predicate up to where another clause begins; coordinated verbs follow the question's auxiliary."""
    kept: list[str] = []
    relative = False
    for place, token in enumerate(rest):
        text = token.text
        if not token.inside:
            joint = token.word in lex.CONJUNCTIONS or (place > 0 and rest[place - 1].comma)
            said = not all(is_adverb(word.lower()) for word in kept)
            dash = kept and text in ("-", "\u2013", "\u2014", "--", ":")
            if dash or (joint and said and _another_clause(rest, place, kind, relative, negated)):
                break
            relative = relative or token.word in lex.RELATIVES
            if kept and not relative and (_coordinated(rest, place) or rest[place - 1].comma):
                text = _infinitive(rest, place, kind)
        kept.append(text)
        if not token.inside and text.endswith((";", ":")):
            break
    return " ".join(kept)


def _coordinated(rest: Sequence[Token], place: int) -> bool:
    """Whether an 'and' or 'or' stands before, adverbs between."""
    back = place - 1
    while back > 0 and is_adverb(rest[back].word):
        back -= 1
    return back >= 0 and rest[back].word in ("and", "or")


def _infinitive(rest: Sequence[Token], place: int, kind: Kind) -> str:
    """A verb coordinated with the first as an infinitive: "reduces X and improves Y"."""
    token = rest[place]
    listed = rest[place - 1].comma
    verb = None
    if kind == "third":
        verb = lex.base_of_third_person(token.word)
        verb = None if listed and verb in lex.NOUNLIKE else verb
        following = rest[place + 1].word if place + 1 < len(rest) else ""
        if verb is None and not listed and following in ("the", "a", "an", "its", "their"):
            # A verb that the lexicon lacks is known by the article behind it.
            verb = re.sub(r"(?<=ch|sh|ss)es$|(?<=[xz])es$|(?<=[^s])s$", "", token.word)
    elif kind == "past" and not listed and token.word not in lex.BASES:
        verb = lex.PAST.get(token.word)
    return token.text.replace(token.word, verb) if verb else token.text


def _another_clause(rest: Sequence[Token], place: int, kind: Kind, relative: bool, negated: bool) -> bool:
    """Whether at a conjunction or after a comma something begins that the question leaves out."""
    start = place
    while start < len(rest) and (rest[start].word in lex.CONJUNCTIONS or is_adverb(rest[start].word)):
        start += 1
    if rest[place].word == "but" or start >= len(rest):
        return True
    after_comma = place > 0 and rest[place - 1].comma
    if after_comma and (
        {rest[place].word, rest[start].word} & _BREAKS
        or _participle_clause(rest, start)
        or _past_clause(rest, start)
    ):
        return True
    if relative and not after_comma:
        return False
    conjunction = rest[place].word in lex.CONJUNCTIONS
    return (
        rest[start].word in lex.AUXILIARIES
        or _unlike_verb(rest, start, kind, conjunction, negated)
        or _subject_and_verb(rest, start)
    )


def _participle_clause(rest: Sequence[Token], place: int) -> bool:
    """A comment such as ", suggesting that"; but ", staining, and" continues a list."""
    token, following = rest[place], rest[place + 1] if place + 1 < len(rest) else NO_TOKEN
    listed = token.comma or following.word in {""} | lex.CONJUNCTIONS | lex.AUXILIARIES
    return token.word.endswith("ing") and len(token.word) > 5 and not listed


def _past_clause(rest: Sequence[Token], place: int) -> bool:
    """A clause such as ", and the risk increased"."""
    near = zip(rest[place:], rest[place + 2 : place + 7], strict=False)
    return rest[place].word in lex.DETERMINERS and any(
        verb.word in lex.PAST and before.word not in lex.PREPOSITIONS for before, verb in near
    )


def _unlike_verb(rest: Sequence[Token], place: int, kind: Kind, conjunction: bool, negated: bool) -> bool:
    """A coordinated verb whose form does not fit the question's auxiliary."""
    word = rest[place].word
    behind = rest[place + 1].word if place + 1 < len(rest) else ""
    third = lex.base_of_third_person(word)
    if third is not None and reads_as_joined_verb(third, behind):
        return kind != "third" or (negated and conjunction)
    bare = word in lex.BASES and (behind in lex.PREPOSITIONS | lex.DETERMINERS or behind.endswith("ing"))
    return kind in ("be", "have") and bare and conjunction


def _subject_and_verb(rest: Sequence[Token], start: int) -> bool:
    """Whether a finite verb with a subject of its own comes before the next comma or conjunction."""
    for place in range(start + 1, len(rest)):
        token, following = rest[place], rest[place + 1] if place + 1 < len(rest) else NO_TOKEN
        if token.inside:
            continue
        if token.word in lex.RELATIVES | lex.SUBORDINATORS | lex.CONJUNCTIONS:
            return False
        verb = lex.base_of_third_person(token.word)
        if token.word in lex.BE | lex.MODALS | {"does", "did", "has"} or (
            verb is not None and reads_as_third_person(verb, rest[start:place], following)
        ):
            return True
        if token.comma:
            return False
    return False
