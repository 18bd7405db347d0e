"""The statement-title agent: a title becomes the question that a person would read out of it."""

import pytest

from mkailin_resources.models.extractive import StatementTitleQuestioner
from mkailin_resources.models.extractive.wording import long_forms
from mkailin_resources.models.interface import Document, GenerationRequest, GenerationResult, Section


def ask(title: str, abstract: str = "We studied this.") -> GenerationResult:
    document = Document(title, (Section(None, None, abstract),))
    [result] = StatementTitleQuestioner().generate([GenerationRequest("1", "question", document)])
    return result


@pytest.mark.parametrize(
    ("title", "question"),
    [
        (
            "Ginger extract reduces nausea in pregnant women.",
            "Does ginger extract reduce nausea in pregnant women?",
        ),
        ("Night shifts are associated with obesity.", "Are night shifts associated with obesity?"),
        ("Statins may protect the ageing brain.", "Do statins protect the ageing brain?"),
        ("Zinc can shorten the common cold", "Can zinc shorten the common cold?"),
        (
            "Honey has been shown to relieve cough in toddlers",
            "Has honey been shown to relieve cough in toddlers?",
        ),
        (
            "Loss of p53 underlies resistance to cisplatin",
            "Does loss of p53 underlie resistance to cisplatin?",
        ),
        ("Gut bacteria degrade levodopa", "Do gut bacteria degrade levodopa?"),
        (
            "A mutation in kidney cells causes a rare anaemia",
            "Does a mutation in kidney cells cause a rare anaemia?",
        ),
        ("Screening identified a common variant", "Did screening identify a common variant?"),
        ("Fasting and exercise improve memory in mice", "Do fasting and exercise improve memory in mice?"),
    ],
)
def test_a_statement_title_is_asked_back(title: str, question: str) -> None:
    assert ask(title).text == question


@pytest.mark.parametrize(
    ("title", "question"),
    [
        (
            "Vitamin D does not improve bone density in athletes.",
            "Does vitamin D improve bone density in athletes?",
        ),
        ("Beta blockers cannot prevent migraine", "Can beta blockers prevent migraine?"),
        ("Massage fails to lower blood pressure", "Does massage lower blood pressure?"),
        (
            "Melatonin has no effect on delirium after surgery",
            "Does melatonin have any effect on delirium after surgery?",
        ),
    ],
)
def test_a_negated_title_is_asked_in_the_positive(title: str, question: str) -> None:
    assert ask(title).text == question


@pytest.mark.parametrize(
    ("title", "question"),
    [
        (
            "Peptide X blocks fibrosis and improves survival in rats",
            "Does peptide X block fibrosis and improve survival in rats?",
        ),
        (
            "Peptide X blocks fibrosis and is expressed in the liver",
            "Does peptide X block fibrosis?",
        ),
        (
            "Antibodies that bind tau slow its spread",
            "Do antibodies that bind tau slow its spread?",
        ),
    ],
)
def test_verbs_joined_to_the_first_follow_it_or_go(title: str, question: str) -> None:
    assert ask(title).text == question


@pytest.mark.parametrize(
    ("title", "question"),
    [
        (
            "Effect of Yoga on Chronic Back Pain: A Randomized Trial",
            "What is the effect of yoga on chronic back pain?",
        ),
        ("Prevalence of gout in Finnish farmers.", "What is the prevalence of gout in Finnish farmers?"),
        (
            "Comparison of ibuprofen and naproxen for acute gout",
            "How do ibuprofen and naproxen compare for acute gout?",
        ),
        ("Association of sleep loss with falls", "Is sleep loss associated with falls?"),
        ("Inhibition of platelet growth by aspirin", "Does aspirin inhibit platelet growth?"),
        ("Plasma ferritin as a marker of sepsis", "Is plasma ferritin a marker of sepsis?"),
        ("Treatment of warts with silver nitrate", "Can warts be treated with silver nitrate?"),
        ("Increased cortisol in shift workers", "Is cortisol increased in shift workers?"),
        ("A phase II trial of drug Q in melanoma", "What does a phase II trial of drug Q in melanoma show?"),
        (
            "Recent advances in cochlear implants for infants",
            "What is known about cochlear implants for infants?",
        ),
        ("[Diagnosis of scurvy].", "How is scurvy diagnosed?"),
    ],
)
def test_a_noun_phrase_title_gets_the_question_its_head_asks_for(title: str, question: str) -> None:
    assert ask(title).text == question


@pytest.mark.parametrize(
    ("title", "question"),
    [
        ("Does tea prevent stroke? A cohort study.", "Does tea prevent stroke?"),
        (
            "Migraine and the moon: is there an association?",
            "Migraine and the moon: is there an association?",
        ),
        ("Serum copper: a marker of frailty?", "Is serum copper a marker of frailty?"),
    ],
)
def test_a_question_title_is_taken_clean(title: str, question: str) -> None:
    assert ask(title).text == question


def test_names_and_symbols_keep_their_capitals_and_ordinary_words_lose_theirs() -> None:
    assert ask("DNA repair declines with age in muscle").text == "Does DNA repair decline with age in muscle?"
    assert ask("Alzheimer disease alters smell").text == "Does Alzheimer disease alter smell?"
    titled = ask("Daily Walking Improves Balance in Parkinson Disease")
    assert titled.text == "Does daily walking improve balance in Parkinson disease?"
    # The abstract shows that the word is a name: it stands there with a capital inside a sentence.
    drug = ask("Zelapar reduces tremor at rest", "In a trial we gave Zelapar to adults.")
    assert drug.text == "Does Zelapar reduce tremor at rest?"


@pytest.mark.parametrize(
    "title",
    [
        "Corrigendum: Ginger extract reduces nausea.",
        "Reply.",
        "",
        "What we learnt from our patients?",
        "Glia",
    ],
)
def test_a_title_without_a_good_question_fails_with_a_reason(title: str) -> None:
    result = ask(title)
    assert result.text is None
    assert result.failure


def test_an_abbreviation_is_known_by_its_definition() -> None:
    text = "We measured heart rate variability (HRV) and tumour necrosis factor (TNF; 5 ng) in 12 (IQR) dogs."
    assert long_forms(text) == {"HRV": "heart rate variability", "TNF": "tumour necrosis factor"}
