"""A question about what a citation concludes: find the main claim, strip its cue, invert it."""

import re

from mkailin_resources.models.extractive import lexicon as lex
from mkailin_resources.models.extractive.clauses import NotAClaim, yes_no_question
from mkailin_resources.models.extractive.sentences import read_abstract
from mkailin_resources.models.extractive.wording import Vocabulary, clean
from mkailin_resources.models.interface import Document

_CONNECTIVE = re.compile(
    r"^(?:(?:thus|therefore|hence|overall|together|taken together|collectively|finally|moreover|"
    r"furthermore|in addition|"
    r"additionally|importantly|notably|interestingly|altogether|accordingly|consequently|however|"
    r"nevertheless|nonetheless|"
    r"also|similarly|specifically|further|again|in (?:conclusion|summary|brief|sum|short|particular|"
    r"general|contrast|fact)|"
    r"to (?:conclude|summari[sz]e|our knowledge)|in the aggregate|as a result|for the first time|first|"
    r"second|third|"
    r"lastly|for now|to date|indeed|surprisingly|remarkably|strikingly|conversely|by contrast|as such|"
    r"and|but|so|based on (?:these|our) \w+|"
    r"of (?:particular |special |great )?(?:importance|note|interest)),? |"
    r"(?:in (?:this|our|these)|in the (?:present|current)|although|while|despite (?:this|these|its|"
    r"their)|with (?:this|these)) [^,]{3,90}, |"
    r"\(?(?:\d|i{1,3}|iv)[.)] )+",
    re.I,
)
_REPORTING = (
    r"(?:conclude|suggest|indicate|show|demonstrate|imply|reveal|confirm|find|found|propose|believe|"
    r"hypothesi[sz]e|argue|"
    r"establish|report|think|speculate|infer|showed|shown|demonstrated|revealed|concluded|observe|"
    r"observed|identified|"
    r"confirmed|suggested|indicated|recommend|highlight|underscore|emphasi[sz]e|document|postulate|note|"
    r"discovered|"
    r"support|supports|strengthen|provide|add|raise|advance|favor|favour)"
)
# "Our findings suggest that X ..." and kin: everything up to "that".
_CUE = re.compile(
    r"^(?:(?:we|it|one|they)\b[^.]{0,60}?|(?:all |both |most of |each of )?(?:the|these|this|our|those|"
    r"such|present|current|"
    r"several|some)\b[^.;]{0,110}?|(?:results?|findings?|data|evidence|analys[ie]s|studies|"
    r"experiments?)\b[^.;]{0,70}?|[^.;]{0,90}?\b(?:results|findings|data|evidence|analyses|studies|"
    r"experiments))"
    r"\b(?:"
    + _REPORTING
    + r"(?:e?s|ed|d)?|(?:is|are|be|it is) (?:\w+ )?(?:concluded|suggested|possible|likely|clear|apparent|evident|"
    r"shown|proposed|believed)|consistent with the (?:\w+ )?(?:idea|hypothesis|notion|view|concept)|"
    r"(?:idea|notion|hypothesis|view|"
    r"concept|possibility|evidence|theory|fact|contention|conclusion|proposal|suggestion|premise|"
    r"argument|case))"
    r"(?: (?:here|again|first|for the first time|therefore|further|also|strongly))?,? that\b,? ",
    re.I,
)
# Words a claim must not hold, because they point outside of it.
_POINTS_BACK = re.compile(
    r"\b(we|our|ours|us|here|herein|this|these|i|above|latter|former|aforementioned|such an?|such|them|"
    r"it|he|she|"
    r"(?:present|current) (?:study|work|results|findings|data|trial|report|series|analysis)|"
    r"our (?:study|findings)|"
    r"the (?:study|studies|trial|review|results?|findings?|data|authors?|article|paper|work|manuscript|"
    r"analysis|patients|"
    r"two groups|groups?|subjects|participants|method|system|approach|technique|model|proposed|drug|"
    r"intervention|disease|"
    r"enzyme|former|latter|other|same|present|observed|reported|current|sample|cohort|mutant|compound|"
    r"algorithm|tool|"
    r"resulting|above|first|second|three|four|experimental|treatment|procedure|test|program|device|"
    r"disorder|protein|gene|"
    r"receptor|effect|effects|combination|mechanism|case|cases|condition|change|changes|difference|"
    r"differences|latter))\b(?! (?:of|for|that|between|in)\b)"
    r"|\b(?:can|could|does|should) one\b|\bthose\b(?! (?:with|of|who|in|without|from|receiving|"
    r"treated))|\b(?:both|all|two|three|four|either) (?:groups|methods|patients|drugs|conditions|models|"
    r"types|forms|cases|studies|approaches|proteins|techniques)\b",
    re.I,
)
_ANAPHORIC_START = re.compile(
    r"^(?:[\w-]+ ){0,2}(?:results?|findings?|experiments|literature)\b|^(they|it|its|their|his|her|"
    r"there|one|both|most|some|all|none|neither|each|another|others|those|same|similar|"
    r"further|future|additional|more|much|what|such|no other|at least|if|because|since|when|as|"
    r"conversely|limitations|"
    r"results?|findings?|studies|data|evidence|only|patients|subjects|treatment|participants|"
    r"recommendations|"
    r"clinicians|physicians|researchers|overall|the (?:results?|findings?|data|study|above))\b",
    re.I,
)
_EMPTY = re.compile(
    r"\b(further|future|additional|more|larger|prospective|longitudinal) (?:\w+ ){0,3}(stud(?:y|ies)|"
    r"research|trials?|investigations?|work|analys[ie]s)\b|"
    r"\b(discussed|reviewed|summari[sz]ed|presented|described|proposed|outlined|introduced|reported|"
    r"warranted|encouraged|recommended|needs? to be|remains? (?:unclear|unknown|to be)|"
    r"are needed|is needed|are required to|registered|available at|supported by|funded|license|articles|"
    r"papers|authors)\b|https?:|www\.|"
    r"\b(novel|new|important|valuable|useful)?\s?(insights?|light|evidence|avenue|basis|opportunit\w+|"
    r"framework|platform|implications?|understanding)\b",
    re.I,
)


def question_from_conclusion(document: Document) -> str:
    """A yes/no question that the citation's conclusion answers and that can be read alone.

    Claims that point back ("this drug", "our patients") are passed over for the next. Raises `NotAClaim`
    with the reason where no claim is left.
    """
    abstract = read_abstract(document)
    if not document.sections:
        raise NotAClaim("the citation has no abstract")
    if not abstract.conclusion:
        raise NotAClaim("the abstract has no conclusion")
    vocabulary = Vocabulary(document)
    candidates = list(abstract.conclusion)
    if not abstract.marked:
        # Without a cue, the sentences before the last are as good a statement of what was found.
        candidates += [
            sentence for sentence in abstract.body_sentences[-2:][::-1] if len(abstract.body_sentences) > 3
        ]
    ranked = sorted(candidates, key=lambda sentence: not _CUE.match(_CONNECTIVE.sub("", sentence)))
    reasons: list[str] = []
    for sentence in ranked:
        try:
            question = _from_sentence(sentence, vocabulary)
            if not abstract.marked and re.match(r"(was|were|did|has|have|had)\b", question, re.I):
                raise NotAClaim("a sentence in the past tense, not marked as a conclusion")
            return question
        except NotAClaim as error:
            reasons.append(str(error))
    raise NotAClaim(f"no claim of the conclusion stands alone: {reasons[0]}")


def _bare_definite(claim: str, vocabulary: Vocabulary) -> bool:
    """'The capillaries were ...': a subject that only the text before says which."""
    match = re.match(r"the ((?:[a-z-]+ ){1,2})(?=([a-z]+)\b)", claim[0].lower() + claim[1:])
    if not match:
        return False
    verb = (
        match[2] in lex.AUXILIARIES or match[2] in lex.PAST or lex.base_of_third_person(match[2]) is not None
    )
    return verb and not vocabulary.in_title(match[1].split()[-1])


def _from_sentence(sentence: str, vocabulary: Vocabulary) -> str:
    text = re.sub(
        r"\s*[\[(](?:[^()\[\]]*[=<>%\u00b1]|P\b|CI\b|ClinicalTrials|"
        r"see )[^()\[\]]*[\])]",
        "",
        clean(sentence),
    ).rstrip(" .;")
    text = re.sub(
        r", (?:however|therefore|thus|moreover|furthermore|indeed|in turn|hence|then|too|respectively),? ",
        " ",
        text,
    )
    text = _CONNECTIVE.sub("", text)
    claim, cue = text, _CUE.match(text)
    if cue:
        claim = _CONNECTIVE.sub("", text[cue.end() :])
        claim = re.split(r",? and that |; ", claim)[0]
    claim = claim.strip(" ,")
    if "?" in claim or not claim:
        raise NotAClaim("the sentence asks instead of stating")
    if _ANAPHORIC_START.match(claim) or _bare_definite(claim, vocabulary):
        raise NotAClaim("the claim begins with a word that points back")
    question = yes_no_question(vocabulary.mid_sentence(claim[0].upper() + claim[1:]), title=False)
    if _POINTS_BACK.search(question):
        raise NotAClaim("the claim points back to the text around it")
    if _EMPTY.search(question):
        raise NotAClaim("the sentence says what was or should be done, not what was found")
    question = clean(vocabulary.written_out(question))
    words = len(question.split())
    if not 5 <= words <= 45:
        raise NotAClaim(f"the question would have {words} words")
    if question.count("(") != question.count(")") or question.count("[") != question.count("]"):
        raise NotAClaim("the question would hold half a bracket")
    if re.search(r"\b(if|and|or|to|of|the|an?|with|that|between|yet|by|in|for|is|are|as)\?$", question):
        raise NotAClaim("the question would break off")
    if re.search(r"[=\u2264\u2265<>$]|\b[Pp] ?[<=]", question):
        raise NotAClaim("the question would hold statistics")
    return question
