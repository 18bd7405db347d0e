"""What a title that is a noun phrase asks: its head says whether what, how, or whether something is so."""

import re
from collections.abc import Callable

from mkailin_resources.models.extractive import lexicon as lex
from mkailin_resources.models.extractive.clauses import NotAClaim
from mkailin_resources.models.extractive.verbs import is_plural


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


_ANY_PREPOSITION = lex.either(" ".join(sorted(lex.PREPOSITIONS - {"vs."})))
_PROPERTY = (
    lex.either(
        """
        accuracy action advantage aetiology affinity application architecture association attitude barrier
        basis benefit burden cause challenge characteristic composition concentration consequence
        contribution correlation cost density determinant difference distribution diversity dynamics effect
        effectiveness efficacy epidemiology etiology experience feasibility feature frequency function
        genetics heterogeneity impact implication importance incidence influence interaction involvement
        kinetics limitation link mechanics mechanism morphology natural_history nature neurotoxicity
        opportunities opportunity organization origin outcome pathogenesis pathophysiology pattern
        perception performance pharmacokinetics potential predictor prevalence prognosis properties property
        prospect quality ramification rate relation relationship relevance reliability risk risk_factor role
        safety sensitivity significance similarities similarity source specificity structure toxicity trend
        type use usefulness utility validity value variability
        """
    )
    + "s?"
)
_NO_MODIFIER = lex.either(
    "and or of in on for with to by as from at a an new novel recent increased reduced high low strong "
    "good poor"
)
_MODIFIER = rf"(?!(?:{_NO_MODIFIER}|\w+ing)\b)[\w-]+"
_WHAT_IS = re.compile(
    rf"(?:the )?((?:{_MODIFIER} ){{0,3}}?{_PROPERTY})((?:,? and (?:the )?(?:{_MODIFIER} )?{_PROPERTY})?) "
    r"(of|between|on|in|for|to|with|among|from)\b(.+)"
)
# "Modulation of X by Y" asks whether Y modulates X.
_VERBS_OF_NOUNS = _pairs(
    """
    activation:activate amelioration:ameliorate attenuation:attenuate blockade:block cleavage:cleave
    control:control degradation:degrade disruption:disrupt down-regulation:down-regulate
    downregulation:downregulate enhancement:enhance impairment:impair inactivation:inactivate
    induction:induce inhibition:inhibit modulation:modulate phosphorylation:phosphorylate
    potentiation:potentiate prevention:prevent promotion:promote protection:protect recognition:recognize
    reduction:reduce regulation:regulate rescue:rescue restoration:restore reversal:reverse
    stabilization:stabilize stimulation:stimulate suppression:suppress up-regulation:up-regulate
    upregulation:upregulate
    """
)
# "Formation of X in Y" asks how X is formed in Y.
_PARTICIPLES_OF_NOUNS = _pairs(
    """
    activation:activated assembly:assembled classification:classified clearance:cleared cloning:cloned
    construction:constructed control:controlled degradation:degraded design:designed detection:detected
    development:developed diagnosis:diagnosed enhancement:enhanced expression:expressed formation:formed
    generation:generated identification:identified imaging:imaged induction:induced inhibition:inhibited
    isolation:isolated localization:localized management:managed measurement:measured modulation:modulated
    monitoring:monitored prediction:predicted preparation:prepared prevention:prevented processing:processed
    production:produced purification:purified quantification:quantified reduction:reduced
    regulation:regulated removal:removed reversal:reversed synthesis:synthesized treatment:treated
    visualization:visualized
    """
)
_POSSIBLE = lex.words(
    "detection diagnosis identification management measurement monitoring prediction prevention "
    "quantification treatment"
)
_STUDYING = re.compile(
    rf"""(?:{
        lex.either(
            "analysing analyzing assessing characterising characterizing considering deciphering defining "
            "determining dissecting elucidating estimating evaluating examining exploring following "
            "identifying investigating mapping measuring rethinking revealing revisiting studying tracking "
            "uncovering understanding unraveling unravelling unveiling"
        )
    }|(?:the )?(?:\w+ )?{
        lex.either(
            "advances_in advances_and_challenges_in approaches_to concepts_in concepts_of developments_in "
            "insights_into insights_on introduction_to issues_in knowledge_of lessons_from perspectives_on "
            "progress_in summary_of update_on updates_on"
        )
    }) (?=\w)"""
)
_COUNTABLE = lex.either(
    "algorithm approach assay case complex device domain framework gene interface intervention ligand link "
    "locus method model mutation network pathway platform program programme protein protocol receptor "
    "region registry role route sensor site strategy system technique tool variant"
)
_NO_TOPIC = re.compile(
    rf"(?:an?|once|how|why|when|what|using|in (?!vitro|vivo)\w+|"
    rf"{lex.either(' '.join(sorted(lex.PREPOSITIONS - {'in', 'vs.'})))})\b"
)


def question_of_noun_phrase(phrase: str) -> str:
    """A question about what the noun phrase names; raises `NotAClaim` where none reads well."""
    words = phrase.split()
    if any(_reads_as_verb(words, place) for place in range(1, len(words))):
        raise NotAClaim("the title is a statement whose verb was not found")
    for pattern in _PATTERNS:
        question = pattern(phrase)
        if question:
            return question
    raise NotAClaim("the title is a noun phrase that gives no good question")


def be(noun_phrase: str) -> str:
    """ "Is" or "Are"."""
    return "Are" if is_plural(noun_phrase) else "Is"


def _reads_as_verb(words: list[str], place: int) -> bool:
    word, before = words[place].strip(",;").lower(), words[place - 1].lower()
    third = lex.base_of_third_person(word)
    if third is not None:
        return third not in lex.NOUNLIKE and before not in lex.RELATIVES
    plain = word in lex.BASES - lex.BASE_NOUNLIKE and before not in lex.RELATIVES | {"to", "and", "or", "not"}
    return plain and not before.endswith("ly") and "to" not in words[:place]


def _compared(phrase: str) -> str | None:
    where = r"( (?:as|for|in|on|among|during|after|using|by) .+)?"
    match = (
        re.fullmatch(
            rf"(?:an? )?(?:[\w-]+ ){{0,2}}comparisons? (?:of|between) ((?!.* between )[^,]+?) "
            rf"(?:and|with|to|versus|vs\.?) (.+?){where}",
            phrase,
        )
        or re.fullmatch(rf"comparing (.+?) (?:and|with|versus|to) (.+?){where}", phrase)
        or re.fullmatch(rf"(.+?) (?:versus|vs\.?) (.+?){where}", phrase)
    )
    if not match or max(len(match[1].split()), len(match[2].split())) > 8:
        return None
    return f"How do {match[1]} and {match[2]} compare{match[3] or ''}?"


def _associated(phrase: str) -> str | None:
    match = re.fullmatch(r"(?:the )?associations? of ((?:(?! with ).)+) with (.+)", phrase)
    if match:
        return f"{be(match[1])} {match[1]} associated with {match[2]}?"
    match = re.fullmatch(
        r"(?:the |an? )?(association|correlation|relationship|relation|link)s? (between .+ and .+)", phrase
    ) or re.fullmatch(r"(?:no|lack of) (?:an? )?(association|correlation|relationship|effect) (.+)", phrase)
    if match:
        return f"Is there {_with_article(match[1])} {match[2]}?"
    match = re.fullmatch(r"(an? [\w -]{0,30}?(?:role|link|function) (?:for|of|between) .+)", phrase)
    return f"Is there {match[1]}?" if match else None


def _what_a_study_shows(phrase: str) -> str | None:
    match = re.fullmatch(
        rf"(?:an? |the )?((?:[\w-]+[ -]){{0,4}}{lex.STUDY_NOUNS}) (of|on|in|with|for) (.+)", phrase
    )
    if not match or re.search(r"\b(revealing|suggesting|showing|demonstrating)\b", match[3]):
        return None
    if is_plural(match[1].split()[-1]):
        return f"What do {match[1]} {match[2]} {match[3]} show?"
    return f"What does {_with_article(match[1])} {match[2]} {match[3]} show?"


def _what_is(phrase: str) -> str | None:
    match = _WHAT_IS.fullmatch(phrase)
    if not match:
        return None
    be = "are" if match[2] or is_plural(match[1].split()[-1]) else "is"
    return f"What {be} the {match[1]}{match[2]} {match[3]}{match[4]}?"


def _as_something(phrase: str) -> str | None:
    """'X as a marker of Y' asks whether X is one."""
    match = re.fullmatch(
        r"(?!(?:use|application|evaluation|identification|assessment|value|role|utility)\b)(.{3,90}?) as "
        r"((?:an?|the) .+|[\w -]{0,30}(?:marker|biomarker|target|model|predictor)s?\b.*)",
        phrase,
    )
    return f"{be(match[1])} {match[1]} {match[2]}?" if match else None


def _changed(phrase: str) -> str | None:
    """'Increased X in Y' asks whether X is increased in Y."""
    change = lex.either(
        "abnormal altered decreased delayed diminished disturbed elevated enhanced impaired increased reduced"
    )
    match = re.fullmatch(rf"({change}) (.+?) ((?:in|after|during|following) .+)", phrase)
    if not match or re.search(r"\band (\w+ed|abnormal)\b|\band\b.*\b(of|by|to)\b", match[2]):
        return None
    return f"{be(match[2])} {match[2]} {match[1]} {match[3]}?"


def _agent(phrase: str) -> str | None:
    match = re.fullmatch(
        r"(?:the )?(?:[\w-]+ )?([\w-]+) of ((?!.*\band [\w-]+ of\b)(?:(?! by ).)+) by (?!using |means |"
        r"\w+ing\b)(.+?)"
        r"( (?:via|through|with|using) .+)?",
        phrase,
    )
    verb = _VERBS_OF_NOUNS.get(match[1]) if match else None
    if not match or not verb or _has_relative(match[3]):
        return None
    return f"{'Do' if is_plural(match[3]) else 'Does'} {match[3]} {verb} {match[2]}{match[4] or ''}?"


def _so(phrase: str) -> str | None:
    """'X mediated by Y' asks whether X is mediated by Y."""
    done = lex.either(
        "activated caused driven enhanced facilitated improved induced inhibited mediated modulated "
        "prevented promoted reduced regulated suppressed triggered"
    )
    match = re.fullmatch(
        rf"(?!an? |.*\b{_ANY_PREPOSITION}\b.* (?:associated|linked|{done}) )(.+?) "
        rf"((?:associated with|linked to|{done} (?:by|through|via)) .+)",
        phrase,
    )
    return f"{be(match[1])} {match[1]} {match[2]}?" if match else None


def _evidence(phrase: str) -> str | None:
    match = re.fullmatch(
        r"(?:further |more |new |additional )?((?:[\w-]+ ){0,2}evidence (?:for|of|that|against|from) .+)",
        phrase,
    )
    return f"Is there {match[1]}?" if match else None


def _passive(phrase: str) -> str | None:
    """'Treatment of X with Y' asks whether X can be treated with Y; 'Formation of X', how X is formed."""
    match = re.fullmatch(r"(?:the )?([\w-]+) of ((?!.*\b(?:and|or) [\w-]+ (?:of|in)\b).+)", phrase)
    participle = _PARTICIPLES_OF_NOUNS.get(match[1]) if match else None
    if not match or not participle or _has_relative(phrase):
        return None
    means = re.fullmatch(r"(.+?) ((?:with|by|using) .+)", match[2])
    if match[1] in _POSSIBLE and means:
        return f"Can {means[1]} be {participle} {means[2]}?"
    place = re.fullmatch(
        r"(.+?) ((?:in|by|for|from|during|after|with|within|using|via|through|at) .+)", match[2]
    )
    if match[1] == "expression":
        return f"{be(place[1])} {place[1]} expressed {place[2]}?" if place else None
    subject, where = (place[1], f" {place[2]}") if place else (match[2], "")
    return f"How {be(subject).lower()} {subject} {participle}{where}?"


def _what_is_known(phrase: str) -> str | None:
    topic = _STUDYING.sub("", phrase, count=1) if _STUDYING.match(phrase) else phrase
    unfit = _NO_TOPIC.match(topic) or re.search(r"[!\"\u201c\u201d\u2026]", topic) or _has_relative(topic)
    if unfit or not 3 <= len(topic.split()) <= 30:
        return None
    bare = re.match(
        rf"(?!the |\w+ing )((?:(?!(?!in viv|in vit){_ANY_PREPOSITION} )[\w-]+,? ){{1,5}}?)of ", topic
    )
    countable = re.match(
        rf"(?!the |\w+ing )(?:(?!{_ANY_PREPOSITION}\b)[\w-]+ )*?{_COUNTABLE} {_ANY_PREPOSITION}\b", topic
    )
    article = countable or (bare and (" and " in bare[1] or not is_plural(bare[1])))
    return f"What is known about {'the ' if article else ''}{topic}?"


_PATTERNS: tuple[Callable[[str], str | None], ...] = (
    _compared,
    _associated,
    _what_a_study_shows,
    _what_is,
    _as_something,
    _changed,
    _agent,
    _so,
    _evidence,
    _passive,
    _what_is_known,
)


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0].lower() in "aeio" else f"a {noun}"


def _has_relative(phrase: str) -> bool:
    return bool(re.search(r"\b(that|which|who|where)\b", phrase))
