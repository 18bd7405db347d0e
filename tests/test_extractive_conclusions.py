"""The conclusion agent: it asks about the main claim, in words that can be read alone."""

import pytest

from mkailin_resources.models.extractive import ConclusionQuestioner
from mkailin_resources.models.extractive.sentences import read_abstract, split_sentences
from mkailin_resources.models.interface import Document, GenerationRequest, GenerationResult, Section

BACKGROUND = Section("BACKGROUND", "BACKGROUND", "Falls are common. Exercise may help.")


def ask(*sections: Section, title: str = "Exercise and falls.") -> GenerationResult:
    request = GenerationRequest("1", "question", Document(title, sections))
    [result] = ConclusionQuestioner().generate([request])
    return result


def concluding(text: str, label: str = "CONCLUSIONS", category: str | None = "CONCLUSIONS") -> Section:
    return Section(label, category, text)


@pytest.mark.parametrize(
    ("conclusion", "question"),
    [
        (
            "Our findings suggest that balance training may reduce falls in older adults.",
            "Does balance training reduce falls in older adults?",
        ),
        (
            "In conclusion, balance training is a safe way to prevent falls.",
            "Is balance training a safe way to prevent falls?",
        ),
        (
            "We conclude that balance training did not reduce falls in older adults.",
            "Did balance training reduce falls in older adults?",
        ),
        (
            "In frail adults, balance training reduces falls, suggesting that strength matters.",
            "In frail adults, does balance training reduce falls?",
        ),
        (
            "There was no significant difference in falls between trained and untrained adults.",
            "Was there any significant difference in falls between trained and untrained adults?",
        ),
    ],
)
def test_the_cue_is_stripped_and_the_claim_asked(conclusion: str, question: str) -> None:
    assert ask(BACKGROUND, concluding(conclusion)).text == question


@pytest.mark.parametrize(
    "label", ["CONCLUSION", "INTERPRETATION", "CONCLUSIONS AND RELEVANCE", "Conclusions"]
)
def test_the_conclusion_is_known_by_its_label(label: str) -> None:
    section = concluding("Balance training reduces falls in older adults.", label, None)
    assert read_abstract(Document("", (BACKGROUND, section))).conclusion == (section.text,)


def test_in_an_unstructured_abstract_the_conclusion_is_known_by_its_cue() -> None:
    text = (
        "Falls are common. We trained 40 adults for 12 weeks. Falls halved. "
        "These results suggest that balance training prevents falls. It is cheap."
    )
    abstract = read_abstract(Document("", (Section(None, None, text),)))
    assert abstract.conclusion == (
        "These results suggest that balance training prevents falls.",
        "It is cheap.",
    )
    assert [section.text for section in abstract.body] == [
        "Falls are common. We trained 40 adults for 12 weeks. Falls halved."
    ]
    assert ask(Section(None, None, text)).text == "Does balance training prevent falls?"


def test_a_heading_inside_an_unstructured_abstract_marks_the_conclusion() -> None:
    text = (
        "METHODS: We trained 40 adults. RESULTS: Falls halved. CONCLUSION: Balance training prevents falls."
    )
    abstract = read_abstract(Document("", (Section(None, None, text),)))
    assert abstract.conclusion == ("Balance training prevents falls.",)


@pytest.mark.parametrize(
    "conclusion",
    [
        "It reduced falls in these patients.",
        "This intervention improves balance.",
        "The drug was well tolerated in our sample.",
        "Further studies are needed to confirm the effect.",
    ],
)
def test_a_claim_that_does_not_stand_alone_fails_with_a_reason(conclusion: str) -> None:
    result = ask(BACKGROUND, concluding(conclusion))
    assert result.text is None
    assert result.failure
    assert "stands alone" in result.failure


def test_a_claim_that_points_back_gives_way_to_the_next() -> None:
    conclusion = concluding("This intervention was popular. Balance training reduces falls in older adults.")
    assert ask(BACKGROUND, conclusion).text == "Does balance training reduce falls in older adults?"


def test_an_abbreviation_that_the_abstract_defines_is_written_out() -> None:
    background = Section("BACKGROUND", None, "Falls follow orthostatic hypotension (OH) in old age.")
    result = ask(background, concluding("OH increases the risk of falls."))
    assert result.text == "Does orthostatic hypotension increase the risk of falls?"


def test_a_citation_without_abstract_fails_with_a_reason() -> None:
    assert ask().failure == "the citation has no abstract"


def test_sentences_do_not_break_at_abbreviations_and_numbers() -> None:
    text = (
        "We used E. coli (approx. 2.5 ml) vs. controls, as in Fig. 2. Growth stopped (p < 0.05). It was slow."
    )
    assert split_sentences(text) == [
        "We used E. coli (approx. 2.5 ml) vs. controls, as in Fig. 2.",
        "Growth stopped (p < 0.05).",
        "It was slow.",
    ]
