"""A title as a question: statements by inversion, noun phrases by what their head asks for."""

import re

from mkailin_resources.models.extractive import lexicon as lex
from mkailin_resources.models.extractive.clauses import NotAClaim, yes_no_question
from mkailin_resources.models.extractive.verbs import has_finite_verb, is_plural
from mkailin_resources.models.extractive.wording import Vocabulary, clean
from mkailin_resources.models.interface import Document

_NOT_RESEARCH = re.compile(
    r"^\W*(corrigendum|errat(um|a)|correction|retraction|retracted|withdrawn|reply|response to|re:|"
    r"comment(ary)? on|"
    r"editorial|in memoriam|obituary|letter|author.s reply|expression of concern|foreword|preface|"
    r"introduction)\b",
    re.I,
)
_PRONOUN = re.compile(r"\b(we|our|us|this|these|it|its|they|their|them|you|your|my)\b")
_QUESTION_WORD = re.compile(
    r"^(what|which|who|whom|whose|when|where|why|how|is|are|was|were|do|does|did|can|could|should|would|"
    r"will|"
    r"has|have|had|may|might|must|to what|in (what|which)|for (whom|which)|at what)\b",
    re.I,
)
_ABOUT_THE_STUDY = (
    "study|trial|review|analysis|meta-analysis|survey|cohort|approach|perspective|report|comparison|update|guide|overview|"
    "case|protocol|evaluation|experience|series|project|investigation|assessment|commentary|summary|look|step|tale|story|"
    "systematic|story|method|way|call|framework|primer|role|need|focus"
)
_STUDY_FORM = rf"(?:[\w-]+[ -]){{0,4}}{lex.STUDY_NOUNS}"


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
    if "?" in title:
        return _from_question(title, vocabulary)
    parts = _parts(title)
    main, others = parts[0], parts[1:]
    for part in parts:
        if has_finite_verb(vocabulary.mid_sentence(part)) and not (
            part is not main and _PRONOUN.search(part)
        ):
            try:
                return _checked(yes_no_question(vocabulary.mid_sentence(part), title=True), vocabulary)
            except NotAClaim:
                continue
    described = others and re.fullmatch(
        rf"(?!.*\b(?:{_ABOUT_THE_STUDY})\b)an? .+", vocabulary.mid_sentence(others[0])
    )
    if described and len(main.split()) <= 6 and not re.search(r"\b(and|in|for|of)\b", main):
        main = vocabulary.mid_sentence(main)
        return _checked(f"{_be(main).capitalize()} {main} {described[0]}?", vocabulary)
    if len(main.split()) == 1 and others and re.search(r"[A-Z]", main[1:]):
        return _checked(f"What is {main}?", vocabulary)
    return _checked(_from_noun_phrase(vocabulary.mid_sentence(main), others), vocabulary)


def _parts(title: str) -> list[str]:
    """Main title and subtitles: at a colon, a spaced dash, a semicolon or a full stop."""
    pieces = re.split(
        r"(?<=[^\s]):\s+|\s+[-\u2013\u2014]+\s+|\u2014|;\s+|(?<=[a-z])-(?=(?:an?|the) )|"
        r"(?<=[A-Za-z)]{2})\.\s+(?=[A-Z])",
        title.rstrip(" ."),
    )
    return [piece.strip(' ."\u201c\u201d') for piece in pieces if piece.strip(" .")]


def _from_question(title: str, vocabulary: Vocabulary) -> str:
    asked = [part.strip() for part in re.findall(r"[^?]+\?", title)]
    question = asked[0]
    for piece in re.split(r"(?<=\w):\s+|(?<=[a-z)]{2})\.\s+|\s+[-\u2013\u2014]\s+", question)[::-1]:
        if _QUESTION_WORD.match(piece) and not _PRONOUN.search(piece):
            return _checked(_first_upper(vocabulary.mid_sentence(piece)), vocabulary)
    topic = re.fullmatch(r"(.+?)(?::|,| [-\u2013\u2014]) ((?:an?|the) [^?:]+)\?", question)
    if topic:
        subject = vocabulary.mid_sentence(topic[1])
        return _checked(f"{_be(subject).capitalize()} {subject} {topic[2]}?", vocabulary)
    if _QUESTION_WORD.search(re.sub(r"^.*?[:.,] ", "", question)):
        return question
    raise NotAClaim("the title's question is not a full sentence")


def _be(noun_phrase: str) -> str:
    return "are" if is_plural(noun_phrase) else "is"


_PROPERTY = (
    r"(?:effect|impact|influence|role|prevalence|incidence|frequency|accuracy|safety|efficacy|"
    r"effectiveness|performance|"
    r"risk|utility|usefulness|value|relationship|relation|link|correlation|interaction|structure|"
    r"function|mechanism|"
    r"importance|significance|potential|cost|benefit|burden|epidemiology|outcome|prognosis|cause|"
    r"consequence|"
    r"characteristic|feature|distribution|nature|pathogenesis|pathophysiology|sensitivity|specificity|"
    r"reliability|"
    r"validity|feasibility|predictor|determinant|risk factor|trend|challenge|pattern|rate|source|type|"
    r"property|contribution|implication|application|natural history|morphology|composition|organization|"
    r"architecture|"
    r"properties|diversity|variability|difference|similarity|similarities|advantage|limitation|barrier|"
    r"perception|"
    r"attitude|opportunity|opportunities|involvement|toxicity|neurotoxicity|pharmacokinetics|genetics|"
    r"etiology|aetiology|"
    r"heterogeneity|kinetics|dynamics|origin|use|relevance|basis|association|consequences|experience|"
    r"mechanics|ramification|concentration|density|prospect|specificity|affinity|quality)s?"
)
_MODIFIER = r"(?!(?:and|or|of|in|on|for|with|to|by|as|from|at|a|an|new|novel|recent|increased|reduced|high|low|strong|good|poor|\w+ing)\b)[\w-]+"
_WHAT_IS = re.compile(
    rf"^(?:the )?((?:{_MODIFIER} ){{0,3}}?{_PROPERTY})((?:,? and (?:the )?(?:{_MODIFIER} )?{_PROPERTY})?) "
    r"(of|between|on|in|for|to|with|among|from)\b(.+)$"
)
_BY_AGENT = {
    "activation": "activate",
    "inhibition": "inhibit",
    "modulation": "modulate",
    "regulation": "regulate",
    "induction": "induce",
    "suppression": "suppress",
    "stimulation": "stimulate",
    "reduction": "reduce",
    "enhancement": "enhance",
    "reversal": "reverse",
    "prevention": "prevent",
    "attenuation": "attenuate",
    "amelioration": "ameliorate",
    "degradation": "degrade",
    "disruption": "disrupt",
    "potentiation": "potentiate",
    "protection": "protect",
    "blockade": "block",
    "impairment": "impair",
    "promotion": "promote",
    "stabilization": "stabilize",
    "cleavage": "cleave",
    "phosphorylation": "phosphorylate",
    "upregulation": "upregulate",
    "downregulation": "downregulate",
    "up-regulation": "up-regulate",
    "down-regulation": "down-regulate",
    "inactivation": "inactivate",
    "recognition": "recognize",
    "rescue": "rescue",
    "restoration": "restore",
    "control": "control",
}
_PASSIVE = {
    "treatment": "treated",
    "management": "managed",
    "diagnosis": "diagnosed",
    "detection": "detected",
    "identification": "identified",
    "measurement": "measured",
    "regulation": "regulated",
    "prevention": "prevented",
    "prediction": "predicted",
    "expression": "expressed",
    "localization": "localized",
    "quantification": "quantified",
    "monitoring": "monitored",
    "visualization": "visualized",
    "modulation": "modulated",
    "assembly": "assembled",
    "control": "controlled",
    "synthesis": "synthesized",
    "preparation": "prepared",
    "isolation": "isolated",
    "purification": "purified",
    "processing": "processed",
    "formation": "formed",
    "production": "produced",
    "clearance": "cleared",
    "removal": "removed",
    "degradation": "degraded",
    "activation": "activated",
    "inhibition": "inhibited",
    "design": "designed",
    "development": "developed",
    "construction": "constructed",
    "generation": "generated",
    "classification": "classified",
    "induction": "induced",
    "imaging": "imaged",
    "reduction": "reduced",
    "enhancement": "enhanced",
    "reversal": "reversed",
    "cloning": "cloned",
}
_CAN_BE = lex.words(
    "detection prediction identification measurement prevention quantification monitoring diagnosis"
)


def _from_noun_phrase(phrase: str, subtitles: list[str]) -> str:
    words = phrase.split()
    if any(_reads_as_verb(words, place) for place in range(1, len(words))):
        raise NotAClaim("the title is a statement whose verb was not found")
    for pattern in (
        _compared,
        _associated,
        _what_study_shows,
        _what_is,
        _as_something,
        _changed,
        _agent,
        _is_it_so,
        _evidence,
        _passive,
        _what_is_known,
    ):
        question = pattern(phrase, subtitles)
        if question:
            return question
    raise NotAClaim("the title is a noun phrase that gives no good question")


def _compared(phrase: str, _: list[str]) -> str | None:
    match = re.fullmatch(
        r"(?:an? )?(?:[\w-]+ ){0,2}comparisons? (?:of|between) (.+?) (?:and|with|to|versus|vs\.?) (.+)",
        phrase,
    )
    if match and " between " not in match[1]:
        where = re.search(r" (?:for|in|on|as|during|after|using|by) .+$", match[2])
        second = match[2][: where.start()] if where else match[2]
        if len(second.split()) < 9 and "," not in match[1]:
            return f"How do {match[1]} and {second} compare{where[0] if where else ''}?"
    match = re.fullmatch(
        r"comparing (.+?) (?:and|with|versus|to) (.+?)( (?:as|for|in|on|among|using|by) .+)?", phrase
    )
    if match:
        return f"How do {match[1]} and {match[2]} compare{match[3] or ''}?"
    match = re.fullmatch(r"(.+?) (?:versus|vs\.?) (.+?)( (?:for|in|on|as|during|after) .+)?", phrase)
    if match and len(match[1].split()) < 9:
        return f"How do {match[1]} and {match[2]} compare{match[3] or ''}?"
    return None


def _associated(phrase: str, _: list[str]) -> str | None:
    match = re.fullmatch(r"(?:the )?associations? of (.+?) with (.+)", phrase)
    if match and " with " not in match[1]:
        return f"{_be(match[1]).capitalize()} {match[1]} associated with {match[2]}?"
    match = re.fullmatch(
        r"(?:the |an? )?(associations?|correlations?|relationships?|relations?|links?) between (.+ and .+)",
        phrase,
    )
    if match:
        return f"Is there {_article(match[1].rstrip('s'))} between {match[2]}?"
    match = re.fullmatch(
        r"(?:no|lack of) ((?:an? )?(?:association|correlation|relationship|evidence|effect)) (.+)", phrase
    )
    if match:
        return f"Is there {_article(match[1])} {match[2]}?"
    match = re.fullmatch(r"(an?) ([\w -]{0,30}?)(role|link|function) (for|of|between) (.+)", phrase)
    if match:
        return f"Is there {match[1]} {match[2]}{match[3]} {match[4]} {match[5]}?"
    return None


def _article(noun: str) -> str:
    if noun == "evidence" or noun.startswith(("a ", "an ")):
        return noun
    return f"an {noun}" if noun[0] in "aeio" else f"a {noun}"


def _as_something(phrase: str, _: list[str]) -> str | None:
    match = re.fullmatch(
        r"(.{3,90}?) as ((?:an?|the) .+|[\w -]{0,30}(?:markers?|biomarkers?|targets?|models?|"
        r"predictors?)\b.*)",
        phrase,
    )
    if not match or re.match(
        r"(use|application|evaluation|identification|assessment|value|role|utility)\b", match[1]
    ):
        return None
    complement = match[2]
    return f"{_be(match[1]).capitalize()} {match[1]} {complement}?"


def _changed(phrase: str, _: list[str]) -> str | None:
    """'Increased X in Y' asks whether X is increased in Y."""
    match = re.fullmatch(
        r"(increased|reduced|decreased|elevated|impaired|altered|enhanced|diminished|abnormal|disturbed|"
        r"delayed) (.+?) "
        r"((?:in|after|during|following) .+)",
        phrase,
    )
    if not match or re.search(r"\band (\w+ed|abnormal)\b|\band\b.*\b(of|by|to)\b", match[2]):
        return None
    return f"{_be(match[2]).capitalize()} {match[2]} {match[1]} {match[3]}?"


def _is_it_so(phrase: str, _: list[str]) -> str | None:
    """'X mediated by Y' asks whether X is mediated by Y."""
    match = re.fullmatch(
        r"(.+?) ((?:associated with|linked to|(?:induced|mediated|regulated|promoted|caused|modulated|"
        r"triggered|enhanced|"
        r"driven|facilitated|prevented|inhibited|reduced|improved|activated|suppressed) (?:by|through|"
        r"via)) .+)",
        phrase,
    )
    if (
        not match
        or match[1].startswith(("a ", "an "))
        or re.search(rf"\b({'|'.join(lex.PREPOSITIONS)})\b", match[1])
    ):
        return None
    return f"{_be(match[1]).capitalize()} {match[1]} {match[2]}?"


def _evidence(phrase: str, _: list[str]) -> str | None:
    match = re.fullmatch(
        r"(?:further |more |new |additional )?((?:[\w-]+ ){0,2}evidence) ((?:for|of|that|against|from) .+)",
        phrase,
    )
    return f"Is there {match[1]} {match[2]}?" if match else None


def _agent(phrase: str, _: list[str]) -> str | None:
    match = re.fullmatch(r"(?:the )?(?:[\w-]+ )?([\w-]+) of (.+?) by (?!using |means )(.+)", phrase)
    if not match or match[1] not in _BY_AGENT or re.match(r"\w+ing\b", match[3]) or has_relative(match[3]):
        return None
    if re.search(r"\band [\w-]+ of\b", match[2]):
        return None
    agent, how = re.fullmatch(r"(.+?)( (?:via|through|with|using) .+)?", match[3]).groups(default="")
    return f"{'Do' if is_plural(agent) else 'Does'} {agent} {_BY_AGENT[match[1]]} {match[2]}{how}?"


def has_relative(phrase: str) -> bool:
    """Whether a phrase holds a relative clause."""
    return bool(re.search(r"\b(that|which|who|where)\b", phrase))


def _passive(phrase: str, _: list[str]) -> str | None:
    match = re.fullmatch(r"(?:the )?([\w-]+) of (.+)", phrase)
    if not match or match[1] not in _PASSIVE or has_relative(phrase):
        return None
    if re.search(r"\b(and|or) [\w-]+ (of|in)\b", match[2]):
        return None
    noun, rest = match[1], match[2]
    treated = re.fullmatch(r"(.+?) (with|by|using) (.+)", rest)
    if noun in ("treatment", "management", *_CAN_BE) and treated and noun != "expression":
        return f"Can {treated[1]} be {_PASSIVE[noun]} {treated[2]} {treated[3]}?"
    if noun == "expression":
        return (
            f"{_be(rest).capitalize()} {rest.partition(' in ')[0]} expressed in {rest.partition(' in ')[2]}?"
            if " in " in rest
            else None
        )
    place = re.match(r"(.+?) ((?:in|by|for|from|during|after|with|within|using|via|through|at) .+)", rest)
    subject, where = (place[1], " " + place[2]) if place else (rest, "")
    return f"How {_be(subject)} {subject} {_PASSIVE[noun]}{where}?"


def _what_is(phrase: str, _: list[str]) -> str | None:
    match = _WHAT_IS.match(phrase)
    if not match:
        return None
    be = "are" if match[2] or is_plural(match[1].split()[-1]) else "is"
    return f"What {be} the {match[1]}{match[2]} {match[3]}{match[4]}?"


def _what_study_shows(phrase: str, subtitles: list[str]) -> str | None:
    match = re.fullmatch(rf"(?:an? |the )?({_STUDY_FORM}) (of|on|in|with|for) (.+)", phrase)
    if match:
        noun = match[1]
        if re.search(r"\b(revealing|suggesting|showing|demonstrating)\b", match[3]):
            return None
        if is_plural(noun):
            return f"What do {noun} {match[2]} {match[3]} show?"
        return f"What does {_article(noun)} {match[2]} {match[3]} show?"
    return None


_STUDYING = re.compile(
    r"^(?:dissecting|unveiling|defining|assessing|following|exploring|understanding|investigating|"
    r"characteri[sz]ing|"
    r"evaluating|examining|revisiting|mapping|tracking|measuring|determining|identifying|deciphering|"
    r"elucidating|"
    r"unravell?ing|uncovering|revealing|considering|rethinking|studying|analy[sz]ing|estimating|"
    r"(?:the )?(?:(?:recent|new|current|further|latest|emerging|\w+) )?(?:advances in|progress in|"
    r"insights? (?:into|on)|updates? on|"
    r"perspectives? on|advances and challenges in|summary of|introduction to|developments? in|lessons from|"
    r"knowledge of|issues in|concepts (?:in|of)|approaches to)) (?=\w)"
)


_PREPOSITION = rf"(?:{'|'.join(sorted(lex.PREPOSITIONS - {'vs.'}))})"
_COUNTABLE = (
    r"(?:approach|method|model|system|route|technique|device|algorithm|framework|sensor|intervention|"
    r"tool|strategy|"
    r"platform|assay|pathway|gene|protein|receptor|mutation|case|role|link|program|programme|protocol|"
    r"complex|"
    r"variant|ligand|site|region|domain|locus|interface|registry|network)"
)


def _reads_as_verb(words: list[str], place: int) -> bool:
    """A verb form that is no noun: the phrase is a sentence."""
    word, before = words[place].strip(",;").lower(), words[place - 1].lower()
    third = lex.base_of_third_person(word)
    if third is not None:
        return third not in lex.NOUNLIKE and before not in lex.RELATIVES
    plain = word in lex.BASES - lex.BASE_NOUNLIKE and before not in lex.RELATIVES | {"to", "and", "or", "not"}
    return plain and not before.endswith("ly") and "to" not in words[:place]


def _what_is_known(phrase: str, _: list[str]) -> str | None:
    phrase = _STUDYING.sub("", phrase, count=1)
    words = phrase.split()
    if not 2 <= len(words) <= 30 or re.match(
        rf"(an?|once|how|why|when|what|using|{'|'.join(lex.PREPOSITIONS - {'in'})})\b", phrase
    ):
        return None
    if (
        re.search(r"[!\"\u201c\u201d\u2026]", phrase)
        or has_relative(phrase)
        or (words[0] == "in" and words[1] not in ("vitro", "vivo"))
    ):
        return None
    head_of = re.match(r"(?!the |\w+ing )((?:[\w-]+,? ){1,5}?)of ", phrase)
    countable = re.match(
        rf"(?!the |\w+ing )(?:(?!{_PREPOSITION}\b)[\w-]+ )*?{_COUNTABLE} {_PREPOSITION}\b", phrase
    )
    article = (
        "the " if countable or (head_of and (" and " in head_of[1] or not is_plural(head_of[1]))) else ""
    )
    return f"What is known about {article}{phrase}?"


def _first_upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _checked(question: str, vocabulary: Vocabulary) -> str:
    """The question, where it stands alone and is whole."""
    question = clean(question)
    if _PRONOUN.search(question.split(" ", 1)[-1]) and re.search(
        r"\b(we|our|us|this|these|my|you)\b", question
    ):
        raise NotAClaim("the question would speak of 'this' or 'we' and not stand alone")
    if "=" in question:
        raise NotAClaim("the question would hold a formula")
    if question.count("(") != question.count(")"):
        raise NotAClaim("the question would hold half a bracket")
    if len(question.split()) > 45:
        raise NotAClaim("the question would be longer than 45 words")
    return question
