"""A question about what a citation concludes: find the main claim, strip its cue, invert it."""

import re

from mkailin_resources.models.extractive import lexicon as lex
from mkailin_resources.models.extractive.clauses import NotAClaim, yes_no_question
from mkailin_resources.models.extractive.decisions import content_stems
from mkailin_resources.models.extractive.sentences import Abstract, read_abstract
from mkailin_resources.models.extractive.wording import Vocabulary, clean, is_whole
from mkailin_resources.models.interface import Document

MIN_WORDS, MAX_WORDS = 5, 45

_LINKING_ADVERB = lex.either(
    """
    accordingly additionally again also altogether and as_a_result as_such but by_contrast collectively
    consequently conversely finally first for_now for_the_first_time further furthermore hence however
    importantly in_addition(?!_to) most_notably in_brief in_conclusion in_contrast in_fact in_general
    in_particular in_short in_sum in_summary in_the_aggregate indeed interestingly lastly moreover
    nevertheless nonetheless notably overall remarkably second similarly so specifically strikingly
    surprisingly taken_together therefore third thus to_conclude to_date to_our_knowledge to_summarise
    to_summarize together
    """
)
_CONNECTIVE = re.compile(
    rf"(?:(?:{_LINKING_ADVERB}|based on (?:these|our) \w+|"
    r"of (?:particular |special |great )?(?:importance|note|interest)),? |"
    r"(?:in (?:this|our|these)|in the (?:present|current)|although|while|despite (?:this|these|its|their)|"
    r"with (?:this|these)) [^,]{3,90}, |"
    r"\(?(?:\d|i{1,3}|iv)[.)] )+",
    re.I,
)
_EVIDENCE = lex.either("results? findings? data evidence analysis analyses studies experiments?")
_REPORTS = (
    lex.either(
        "add advance argue conclude concluded confirm confirmed demonstrate demonstrated discovered "
        "document emphasise emphasize establish favor favour find found highlight hypothesise hypothesize "
        "identified imply indicate indicated infer note observe observed postulate propose provide raise "
        "recommend report reveal revealed show showed shown speculate strengthen suggest suggested support "
        "think underscore believe"
    )
    + "(?:e?s|ed|d)?"
)
_CONSIDERED = lex.either("apparent believed clear concluded evident likely possible proposed shown suggested")
_IDEA = lex.either(
    "argument case concept conclusion contention evidence fact hypothesis idea notion possibility premise "
    "proposal suggestion theory view"
)
# "Our findings suggest that X ..." and kin: everything up to "that".
_CUE = re.compile(
    r"(?:(?:we|it|one|they)\b[^.]{0,60}?|"
    r"(?:(?:all|both|most of|each of) )?(?:the|these|this|our|those|such|present|current|several|"
    r"some)\b[^.;]{0,110}?|"
    rf"[^.;]{{0,90}}?\b{_EVIDENCE}\b[^.;]{{0,70}}?)"
    rf"\b(?:{_REPORTS}|(?:is|are|be) (?:\w+ )?{_CONSIDERED}|{_IDEA})"
    r"(?: (?:here|again|first|for the first time|therefore|further|also|strongly))?,? that\b,? ",
    re.I,
)
_ASIDE = re.compile(
    r", (?:however|therefore|thus|moreover|furthermore|indeed|in turn|hence|then|too|respectively),? "
)
_STATISTICS = re.compile(r"\s*[\[(](?:[^()\[\]]*[=<>%\u00b1]|P\b|CI\b|ClinicalTrials|see )[^()\[\]]*[\])]")
# Words a claim must not hold, because they point outside of it.
_POINTS_BACK = re.compile(
    r"\b(?:we|our|ours|us|here|herein|this|these|i|above|aforementioned|such|them|it|he|she|"
    rf"(?:present|current) (?:study|work|trial|report|series|{_EVIDENCE})|(?:can|could|does|should) one)\b|"
    r"\bthose\b(?! (?:with|of|who|in|without|from|receiving|treated))|"
    r"\b(?:both|all|two|three|four|either) (?:groups|methods|patients|drugs|conditions|models|types|forms|"
    r"cases|"
    r"studies|approaches|proteins|techniques)\b|\bthe "
    + lex.either(
        """
        above algorithm approach article authors? cases? changes? cohort combination compound condition
        corresponding current designed developed device differences? disease disorder drug effects? enzyme
        experimental first former four gene groups? intervention isolated latter manuscript mechanism method
        model mutant new observed other paper participants patients present procedure program proposed
        protein receptor reported resultant resulting review same sample second study subjects suggested
        system technique test three tool treatment trial two_groups work results? findings? data analysis
        """
    )
    + r"\b(?! (?:of|for|that|between|in)\b)",
    re.I,
)
_LEANS_BACK = re.compile(
    r"(?:[\w-]+ ){0,2}(?:results?|findings?|experiments|literature)\b|"
    r"(?:patients|subjects|participants|treatment)\b(?! (?:with|who|of|in|at|for|under\w+|receiving|"
    r"treated|without))|"
    + lex.either(
        "they it its their his her one none neither each another others those same similar further future "
        "additional more much what such no_other at_least if because since when as conversely limitations "
        "studies data evidence only recommendations clinicians physicians researchers overall other "
        "the_study the_data the_above"
    )
    + r"\b",
    re.I,
)
_NO_FINDING = re.compile(
    r"\b(?:further|future|additional|more|larger|prospective|longitudinal) (?:\w+ ){0,3}"
    r"(?:stud(?:y|ies)|research|trials?|investigations?|work|analys[ie]s)\b|https?:|www\.|\b"
    + lex.either(
        r"are_needed articles authors available_at avenue basis described discussed elucidate encouraged "
        r"evidence framework funded implications? insights? introduced is_needed license light needs?_to_be "
        r"opportunit\w+ outlined papers platform presented proposed recommended registered remains?_to_be "
        r"remains?_unclear remains?_unknown reported reviewed summari[sz]ed supported_by understanding "
        r"warranted"
    )
    + r"\b",
    re.I,
)


def question_from_conclusion(document: Document) -> str:
    """A yes/no question that the citation's conclusion answers and that can be read alone.

    Claims that point back ("this drug", "our patients") are passed over for the next. Raises `NotAClaim`
    with the reason where no claim is left.
    """
    abstract = read_abstract(document)
    if not abstract.conclusion:
        raise NotAClaim("the citation has no abstract")
    vocabulary = Vocabulary(document)
    reasons: list[str] = []
    for sentence in _candidates(abstract):
        try:
            question = _from_sentence(sentence, vocabulary)
            # Limitations and calls for larger trials could stand under any title.
            if not content_stems(question) & content_stems(document.title):
                raise NotAClaim("the claim shares no word with the title")
            if not abstract.marked and re.match(r"(was|were|did|has|have|had)\b", question, re.I):
                raise NotAClaim("a sentence in the past tense, not marked as a conclusion")
            return question
        except NotAClaim as reason:
            reasons.append(str(reason))
    raise NotAClaim(f"no claim of the conclusion stands alone ({reasons[0]})")


def _candidates(abstract: Abstract) -> list[str]:
    """Sentences that may hold the claim: the conclusion, cued ones first; then cued ones before it."""
    body = abstract.body_sentences[::-1]
    cued = [sentence for sentence in body if _CUE.match(_without_connective(sentence))]
    sentences = sorted(abstract.conclusion, key=lambda text: not _CUE.match(_without_connective(text)))
    # Without a cue, the sentences before the last are as good a statement of what was found.
    last = [] if abstract.marked or len(body) < 4 else [text for text in body[:2] if text not in cued]
    return [*sentences, *cued, *last]


def _from_sentence(sentence: str, vocabulary: Vocabulary) -> str:
    claim = _claim(sentence)
    if not claim or "?" in claim:
        raise NotAClaim("the sentence states nothing")
    if _LEANS_BACK.match(claim) or _bare_definite(claim, vocabulary):
        raise NotAClaim("the claim begins with a word that points back")
    question = yes_no_question(vocabulary.mid_sentence(claim), title=False)
    if _POINTS_BACK.search(question):
        raise NotAClaim("the claim points back to the text around it")
    if _NO_FINDING.search(question):
        raise NotAClaim("the sentence says what was or should be done, not what was found")
    return _checked(clean(vocabulary.written_out(question)))


def _claim(sentence: str) -> str:
    """What a sentence claims, without connectives, statistics and the cue."""
    text = re.sub(r"(?<=[a-z] )(?:therefore|thus|hence) ", "", sentence)
    text = re.sub(r"(?<=[a-z]) (?:suggesting|indicating|implying) that .+", "", text)
    text = _ASIDE.sub(" ", _STATISTICS.sub("", clean(text)).rstrip(" .;"))
    text = _without_connective(text)
    cue = _CUE.match(text)
    if cue:
        text = re.split(r",? and that |; ", _without_connective(text[cue.end() :]))[0]
    return text.strip(" ,")


def _without_connective(text: str) -> str:
    connective = _CONNECTIVE.match(text)
    return text[connective.end() :] if connective else text


def _bare_definite(claim: str, vocabulary: Vocabulary) -> bool:
    """'The capillaries were ...': a subject that only the text before says which."""
    match = re.match(r"the ((?:[a-z-]+ ){1,2})(?=([a-z]+)\b)", claim[0].lower() + claim[1:])
    if not match:
        return False
    verb = match[2] in lex.AUXILIARIES | lex.PAST.keys() or lex.base_of_third_person(match[2])
    return bool(verb) and not vocabulary.in_title(match[1].split()[-1])


def _checked(question: str) -> str:
    words = len(question.split())
    if not MIN_WORDS <= words <= MAX_WORDS:
        raise NotAClaim(f"the question would not have {MIN_WORDS} to {MAX_WORDS} words")
    if not is_whole(question):
        raise NotAClaim("the question would hold half a bracket")
    if re.search(r"\b(if|and|or|to|of|the|an?|with|that|between|yet|by|in|for|is|are|as)\?$", question):
        raise NotAClaim("the question would break off")
    if re.search(r"[=\u2264\u2265<>$]", question):
        raise NotAClaim("the question would hold statistics")
    return question
