"""The embedded default: agents that extract questions and answers from an abstract by rule.

No model weights, no network; the same text gives the same result. Each is a `TextGenerator`.
"""

from collections.abc import Iterable, Iterator

from mkailin_resources.models.extractive.clauses import NotAClaim
from mkailin_resources.models.extractive.conclusions import question_from_conclusion
from mkailin_resources.models.extractive.decisions import content_stems, decide, is_yes_no_question
from mkailin_resources.models.extractive.sentences import read_abstract
from mkailin_resources.models.extractive.statement_titles import question_from_title
from mkailin_resources.models.interface import Answer, Document, GenerationRequest, GenerationResult


class StatementTitleQuestioner:
    """Asks what the title states (the heuristic of PubMedQA's artificial set)."""

    name = "extractive-statement-title"
    prompt_version = "rules-1"

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        """One question, or the reason why the title gives none, for each request, in order."""
        for request in requests:
            try:
                yield GenerationResult(request.key, text=question_from_title(request.document))
            except NotAClaim as reason:
                yield GenerationResult(request.key, failure=str(reason))


class ConclusionQuestioner:
    """Asks about the main claim of the conclusion."""

    name = "extractive-conclusion"
    prompt_version = "rules-1"

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        """One question, or the reason why the conclusion gives none, for each request, in order."""
        for request in requests:
            try:
                yield GenerationResult(request.key, text=question_from_conclusion(request.document))
            except NotAClaim as reason:
                yield GenerationResult(request.key, failure=str(reason))


class ConclusionAnswerer:
    """Answers with the conclusion; reads yes, no or maybe from its polarity; cites what it rests on."""

    name = "extractive-conclusion-answer"
    prompt_version = "rules-1"

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        """The JSON of an `Answer`, or the reason why there is none, for each request, in order."""
        for request in requests:
            try:
                answer = answer_from_conclusion(request.document, request.question)
                yield GenerationResult(request.key, text=answer.model_dump_json())
            except NotAClaim as reason:
                yield GenerationResult(request.key, failure=str(reason))


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
