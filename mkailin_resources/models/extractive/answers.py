"""The conclusion as the answer to a question, and the sentences it rests on."""

from mkailin_resources.models.extractive.clauses import NotAClaim
from mkailin_resources.models.extractive.decisions import content_stems, decide, is_yes_no_question
from mkailin_resources.models.extractive.sentences import read_abstract
from mkailin_resources.models.interface import Answer, Document


def answer_from_conclusion(document: Document, question: str | None) -> Answer:
    """The conclusion as long answer, its decision where the question is one of yes or no, and its evidence.

    Evidence: the conclusion's sentences, nearest to the question first, and the sentence of the results that
    shares most content words with both. Raises `NotAClaim` without question or conclusion.
    """
    if not question:
        raise NotAClaim("there is no question to answer")
    abstract = read_abstract(document)
    if not abstract.conclusion:
        raise NotAClaim("the citation has no abstract to answer from")
    if not abstract.body_sentences:
        raise NotAClaim("the abstract is a single sentence: nothing is left to ask about")
    conclusion = " ".join(abstract.conclusion)
    asked = content_stems(question)
    wanted = asked | content_stems(conclusion)
    support = max(abstract.results, key=lambda sentence: _shared(sentence, wanted))
    nearest = sorted(abstract.conclusion, key=lambda sentence: -_shared(sentence, asked))
    return Answer(
        long_answer=conclusion,
        decision=decide(question, conclusion) if is_yes_no_question(question) else None,
        evidence=[*nearest, support],
    )


def _shared(sentence: str, stems: set[str]) -> float:
    """Stems in common, damped by length so that the longest sentence does not always win."""
    own = content_stems(sentence)
    return len(own & stems) / (len(own) + 5)
