"""Yes, no or maybe: the polarity of a conclusion relative to a question.

Each sentence of the conclusion votes, as loudly as it shares content words with the question: against, where
it negates or reports that nothing was found, else in favour. A conclusion that sets one finding against
another and votes neither way clearly answers "maybe".
"""

import re

from mkailin_resources.models.extractive import lexicon as lex
from mkailin_resources.models.extractive.sentences import split_sentences
from mkailin_resources.models.interface import Decision

_STRONG = re.compile(
    r"\b(?:no (?:\w+ ){0,4}(?:effect|difference|association|correlation|relationship|benefit|evidence|"
    r"advantage|impact|"
    r"influence|change|improvement|increase|role|link|need|value|indication|awareness)s?|"
    r"(?:did|does|do|was|were|is|are|has|have|can|could|should|would|may|might|will)(?: \w+)? not|"
    r"cannot|fail(?:s|ed)? to|"
    r"lack of|neither|unlikely|unnecessary|insufficient|inadequate|unable|none of|"
    r"not (?:be )?(?:significant\w*|associated|recommended|justified|supported?|necessary|required|"
    r"effective|useful))\b",
    re.I,
)
_WEAK = re.compile(
    r"\b(?:no|not|none|nor|never|without (?:any )?(?:significant|effect|difference|benefit)|lack(?:s|ed|"
    r"ing)?|absence of|absent|"
    r"unjustified|unwarranted|unaffected|unchanged|unrelated|independent(?:ly)? of|regardless of|"
    r"irrespective of|"
    r"inaccurate|unreliable|ineffective|inappropriate|unsuitable|unaware|unhelpful|inferior|little|"
    r"limited|poor(?:ly)?|"
    r"minimal(?:ly)?|low yield|minority|rarely|seldom|hardly|scarce(?:ly)?|weak(?:ly)?|negligible|trivial|"
    r"similar(?:ly)?|equivalent|comparable|equally|the same|no longer|less likely|overestimat\w+|"
    r"underestimat\w+|"
    r"questionable|disappointing|contrary to|avoided|abandoned|omitted|discourage\w*|contraindicated|"
    r"against|deficit|"
    r"needs revisiting|difficult)\b",
    re.I,
)
_NO_NEGATION = re.compile(
    r"\b(?:not only|not ?withstanding|no less than|whether or not|not (?:un|in)\w+|"
    r"no (?:major |serious |severe )?(?:complications?|mortality|adverse|side effects?|toxicity|deaths?)|"
    r"without (?:complications?|increasing|compromising)|if not|little is known|not been (?:\w+ )?"
    r"(?:studied|reported|described|investigated)|limited (?:data|number|resources)|(?:our|"
    r"this) (?:study|data) (?:is|are) limited|"
    r"limitations?|independent (?:predictor|risk|factor|prognostic)\w*)\b",
    re.I,
)
_FUTURE_WORK = re.compile(
    r"\b(?:further|more|additional|future|larger|prospective|randomi[sz]ed)[^.]{0,60}\b(?:stud(?:y|ies)|"
    r"research|trials?|"
    r"investigations?|work|data|evaluation|analys[ie]s)\b",
    re.I,
)
_CONTRAST = re.compile(
    r"\b(?:however|although|though|but|while|whilst|whereas|despite|nevertheless|yet)\b", re.I
)
_CLAUSE_BREAK = re.compile(
    r",? (?:but|although|though|while|whilst|whereas|however|yet|even though)\b,? |; ", re.I
)
_CONCESSION = re.compile(r"(?:although|while|whilst|despite|though|even though)\b", re.I)
_ASKS_SAMENESS = re.compile(
    r"\b(?:same|similar|equal\w*|equivalent|comparable|identical|non-?inferior)\b", re.I
)
_SAMENESS = re.compile(
    r"\b(?:similar(?:ly|ity)?|equivalent|comparable|equally|the same|identical|(?:no|"
    r"not) (?:\w+ ){0,3}differ\w*)\b",
    re.I,
)
_DIFFERENCE = re.compile(
    r"\b(?:differ\w*|distinct\w*|unlike|higher|lower|more|less|superior|inferior|greater|worse|better)\b",
    re.I,
)
_ASKS_OMISSION = re.compile(
    r"\b(?:omit\w*|replace|avoid\w*|abandon\w*|unnecessary|without|spared?|dispens\w+|too)\b", re.I
)
_NOT_NEEDED = re.compile(
    r"\b(?:not (?:\w+ )?(?:required|necessary|needed)|no (?:\w+ )?need|unnecessary|without|limited to|"
    r"omitted)\b",
    re.I,
)
_ASKS_NEED = re.compile(
    r"\b(?:need(?:ed)?|necessary|mandatory|required?|always|routine(?:ly)?|must|really)\b", re.I
)
_ENOUGH_OTHERWISE = re.compile(
    r"\b(?:sufficient|selective(?:ly)?|can be safely|may be safely|safe without|judged on|"
    r"would have reduced)\b",
    re.I,
)
_INVERTED = re.compile(rf"(?:{'|'.join(sorted(lex.AUXILIARIES))})\b", re.I)
_OPEN = re.compile(r"(?:^|[,:;.\u2013\u2014-] ?)(?:what|which|who|whom|whose|when|where|why|how)\b", re.I)
_STOP = (
    lex.PREPOSITIONS
    | lex.CONJUNCTIONS
    | lex.DETERMINERS
    | lex.AUXILIARIES
    | lex.RELATIVES
    | lex.SUBORDINATORS
    | lex.words(
        "be been being it its they we our study studies patients results there use used using not patient"
    )
)


def content_stems(text: str) -> set[str]:
    """Words that carry content, cut to six letters so that inflections meet."""
    words = re.findall(r"[a-z0-9\u03b1-\u03c9]+", text.lower())
    return {word[:6].rstrip("s") for word in words if len(word) > 2 and word not in _STOP}


def is_yes_no_question(question: str) -> bool:
    """Whether yes, no or maybe could answer it: an inverted or elliptic one, without a question word."""
    return bool(_INVERTED.match(question)) or not _OPEN.search(question)


def decide(question: str, conclusion: str) -> Decision:
    """Read the decision of a yes/no question from a conclusion in sentences."""
    votes = [vote for sentence in split_sentences(conclusion) for vote in _votes(question, sentence)]
    total = sum(weight for weight, _ in votes)
    against = sum(weight * no for weight, no in votes) / total if total else 0.0
    if _CONTRAST.search(conclusion) and _DIVIDED[0] < against < _DIVIDED[1]:
        return "maybe"
    return "no" if against > _AGAINST else "yes"


# Set on a random half of PubMedQA's 500 development items, checked on the other.
_AGAINST = 0.37
_DIVIDED = (0.2, 0.5)
_UNRELATED = 0.15  # weight of a clause that shares no word with the question
_CONCEDED = 0.4  # weight of "although ...", before the main clause
_LATER = 0.3  # weight of a call for further studies


def _votes(question: str, sentence: str) -> list[tuple[float, float]]:
    """Of each clause: its weight, and how far it speaks against the question, 0 to 1."""
    asked = content_stems(question)
    conceded, _, main = sentence.partition(", ") if _CONCESSION.match(sentence) else ("", "", sentence)
    if not main:
        conceded, main = "", sentence
    clauses = [(conceded, _CONCEDED)] if conceded else []
    clauses += [(clause, 1.0) for clause in _CLAUSE_BREAK.split(main) if clause]
    later = _LATER if _FUTURE_WORK.search(sentence) else 1.0
    return [
        (
            weight * later * (_UNRELATED + len(content_stems(clause) & asked) / max(1, len(asked))),
            _against(question, clause),
        )
        for clause, weight in clauses
    ]


def _against(question: str, clause: str) -> float:
    clause = _NO_NEGATION.sub(" ", clause)
    if _ASKS_SAMENESS.search(question):
        if _SAMENESS.search(clause):
            return 0.0
        if _DIFFERENCE.search(clause):
            return 1.0
    if _ASKS_OMISSION.search(question) and _NOT_NEEDED.search(clause):
        return 0.0
    if _STRONG.search(clause):
        return 1.0
    weak = {word.lower() for word in _WEAK.findall(clause)} - {
        word.lower() for word in _WEAK.findall(question)
    }
    return 0.5 if weak or (_ASKS_NEED.search(question) and _ENOUGH_OTHERWISE.search(clause)) else 0.0
