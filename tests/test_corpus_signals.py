"""What is measured of a question-answer pair."""

import json
import socket
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from corpus_tables import evaluated, qa

from mkailin_assets.corpus import signals
from mkailin_assets.corpus.quality import QualityRules
from mkailin_assets.preferences.mentions import Mentions
from mkailin_assets.pubmed.citations import read_pubmed_file
from mkailin_resources.models.extractive.sentences import split_sentences

DEFAULTS = QualityRules()


def value(signal: pl.Expr, **columns: str | None) -> Any:
    return pl.DataFrame([columns], schema=dict.fromkeys(columns, pl.String)).select(signal).item()


def words(*texts: str | None) -> pl.Series:
    return pl.DataFrame({"text": texts}, schema={"text": pl.String}).select(signals.words(pl.col("text")))[
        "text"
    ]


def copied(answer: str | None, *given: str | None) -> float | None:
    together = pl.DataFrame({"given": [given]}, schema={"given": pl.List(pl.String)})
    offered = together.select(signals.words(signals.joined(pl.col("given")))).to_series()
    return signals.copied_shares(words(answer), offered).item()


@pytest.fixture(scope="module")
def pubmedqa(real_data: Path) -> pl.DataFrame:
    """PubMedQA's labelled development items: question, answer, contexts, decision."""
    items = json.loads((real_data / "pubmedqa" / "pqal_dev500.json").read_text()).values()
    return pl.DataFrame(
        {
            "question": [item["QUESTION"] for item in items],
            "answer": [item["LONG_ANSWER"] for item in items],
            "contexts": [" ".join(item["CONTEXTS"]) for item in items],
            "decision": [item["final_decision"] for item in items],
        }
    )


@pytest.fixture(scope="module")
def citations(real_data: Path) -> pl.DataFrame:
    """Real English citations with their abstracts: title, text."""
    files = sorted((real_data / "nlm" / "pubmed" / "baseline").glob("*.gz"))
    parts = [part for file in files for part in read_pubmed_file(file.open("rb"), file.name)]
    text = pl.col("abstract").list.eval(pl.element().struct.field("text")).list.join(" ", ignore_nulls=True)
    return (
        pl.concat(parts)
        .filter(pl.col("language").list.contains("eng"))
        .select("title", text=text)
        .filter(pl.col("text") != "")
    )


@pytest.fixture(scope="module")
def sentences(citations: pl.DataFrame) -> pl.Series:
    """10,000 sentences of them."""
    every = (sentence for text in citations["text"] for sentence in split_sentences(text))
    return pl.Series(list(islice(every, 10_000)))


def test_words_are_counted_as_people_do() -> None:
    count = signals.word_count(pl.col("t"))
    assert value(count, t="IL-6 didn't rise (p = 0.05), did it?") == 7
    assert value(count, t=None) == 0


def test_support_is_the_share_of_content_words_that_the_contexts_hold() -> None:
    support = signals.support(signals.words(pl.col("a")), signals.words(pl.col("c")))
    assert value(support, a="The zinc lozenges were shortening colds.", c="Zinc and colds!") == 0.5
    assert value(support, a="Zinc.", c=None) == 0
    assert value(support, a="It was so.", c="It was so.") is None
    assert value(support, a=None, c="Zinc") is None


def test_overlap_is_the_jaccard_similarity_of_words() -> None:
    overlap = signals.title_overlap(pl.col("q"), pl.col("t"))
    assert value(overlap, q="Does zinc shorten colds?", t="Zinc shortens colds") == pytest.approx(2 / 5)
    assert value(overlap, q="Does zinc?", t=None) is None


def test_support_tells_a_pair_from_a_foreign_one(pubmedqa: pl.DataFrame) -> None:
    listed = pubmedqa.select(signals.words(pl.col("question", "answer", "contexts")))
    for text, least in (("answer", DEFAULTS.min_answer_support), ("question", DEFAULTS.min_question_support)):
        own = listed.select(signals.support(pl.col(text), pl.col("contexts")) >= least)
        foreign = listed.select(signals.support(pl.col(text), pl.col("contexts").shift(1)) >= least)
        assert own.to_series().mean() > 0.97
        assert foreign.to_series().mean() < 0.05
    assert pubmedqa.select(signals.asks(pl.col("question"))).to_series().mean() > 0.85


def test_copied_are_words_in_spans_of_eight_or_more() -> None:
    eight = "zinc lozenges shorten the common cold in adults"
    assert copied(f"{eight}.", f"We show that {eight.upper()}, not in children.") == 1
    assert copied(f"We find that {eight} only.", eight) == pytest.approx(8 / 12)
    assert copied("Zinc lozenges shorten the common cold in children.", eight) == 0
    assert copied(f"{eight} and {eight} again", "before", eight) == pytest.approx(16 / 18)
    nine = f"{eight} too"
    assert copied(nine, f"{nine} and more") == 1
    assert copied("", eight) is None
    assert copied(None, None) is None


def test_a_copied_span_lies_in_one_text_and_in_the_contexts_of_its_own_row() -> None:
    assert (
        copied("one two three four five six seven eight", "one two three four", "five six seven eight") == 0
    )
    eight = "one two three four five six seven eight"
    assert signals.copied_shares(words(eight, "other"), words("other", eight)).to_list() == [0, 0]
    assert signals.copied_shares(words("", eight, "a b"), words(eight, eight, "")).to_list() == [None, 1, 0]


@pytest.mark.parametrize(
    ("question", "answer", "decision"),
    [
        ("Does zinc shorten colds?", "Zinc shortened colds in children.", "yes"),
        ("Does zinc shorten colds?", "Zinc did not shorten colds.", "no"),
        ("Does zinc shorten colds?", "No, colds were shortened by sleep.", "no"),
        ("Does zinc shorten colds?", "Yes. No difference was left.", "yes"),
        ("What shortens colds?", "Zinc does not.", None),
        (None, "Zinc does not.", None),
        ("Does zinc shorten colds?", " ", None),
        ("Does zinc shorten colds?", None, None),
    ],
)
def test_a_decision_is_read_from_the_answer(
    question: str | None, answer: str | None, decision: str | None
) -> None:
    read = signals.read_decisions(
        pl.Series([question], dtype=pl.String), pl.Series([answer], dtype=pl.String)
    )
    assert read.item() == decision


def test_the_reader_seldom_contradicts_an_expert_but_too_often_to_drop_by_it(pubmedqa: pl.DataFrame) -> None:
    read = signals.read_decisions(pubmedqa["question"], pubmedqa["answer"])
    both = pubmedqa.select("decision", read=read).filter(
        pl.col("decision") != "maybe", pl.col("read") != "maybe"
    )
    opposite = both.select(pl.col("decision") != pl.col("read")).to_series().sum()
    assert 0.05 < opposite / pubmedqa.filter(pl.col("decision") != "maybe").height < 0.12
    assert not DEFAULTS.drop_opposite_decisions


def test_specificity_is_the_highest_information_content_of_the_headings_named() -> None:
    names = {"neoplasms": "D1", "breast neoplasms": "D2", "breast cancer": "D2", "humans": "D3"}
    specificity = signals.heading_specificity(Mentions(names), {"D1": 0.2, "D2": 0.7})
    asked = [
        "Do neoplasms and breast cancer differ in humans?",
        "Are neoplasms rare?",
        "Are humans rare?",
        "",
    ]
    assert specificity(asked) == [0.7, 0.2, None, None]
    assert specificity([]) == []


def test_science_is_english_whatever_latin_it_names(pubmedqa: pl.DataFrame, citations: pl.DataFrame) -> None:
    pairs = pubmedqa.select(pl.concat_str("question", "answer", separator=" ")).to_series()
    assert signals.languages(pairs).unique().to_list() == ["en"]
    abstracts = citations.select(pl.concat_str("title", "text", separator=" ")).to_series()
    told = signals.languages(abstracts)
    assert set(told.drop_nulls()) == {"en"}
    assert told.null_count() < 0.01 * len(told)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (
            "Does zinc shorten colds? Zink verkürzt die Dauer einer Erkältung bei Kindern und Erwachsenen.",
            "de",
        ),
        (
            "Does zinc shorten colds? Le zinc raccourcit la durée du rhume chez les enfants et les adultes.",
            "fr",
        ),
        ("Does zinc shorten colds? 锌可以缩短儿童和成人感冒的持续时间。", "zh"),
        (
            "Does Plasmodium falciparum resist? We found that most of the parasites were not killed by it.",
            "en",
        ),
        ("Staphylococcus aureus colonisation. Staphylococcus aureus", None),
        ("12 34", None),
        ("", None),
        (None, None),
    ],
)
def test_an_answer_in_another_language_is_told(text: str | None, language: str | None) -> None:
    assert signals.languages(pl.Series([text], dtype=pl.String)).item() == language


def test_a_reading_grade_is_that_of_flesch_and_kincaid() -> None:
    grade = signals.reading_grade(pl.col("t"))
    # 6 words of 7 syllables in one sentence; 4 of 16 in one.
    assert value(grade, t="The cat sat on the table.") == pytest.approx(0.39 * 6 + 11.8 * 7 / 6 - 15.59)
    hard = "Methodological considerations necessitate randomisation."
    assert value(grade, t=hard) == pytest.approx(0.39 * 4 + 11.8 * 20 / 4 - 15.59)
    assert value(grade, t="12.5% (3/24)") is None
    assert value(grade, t=None) is None


def test_science_is_not_offensive(sentences: pl.Series, pubmedqa: pl.DataFrame) -> None:
    assert (signals.toxicities(sentences) > DEFAULTS.max_toxicity).sum() <= 1
    pairs = pubmedqa.select(pl.concat_str("question", "answer", separator=" ")).to_series()
    assert signals.toxicities(pairs).max() < DEFAULTS.max_toxicity


@pytest.mark.parametrize(
    "text",
    [
        "Does anal sex raise the risk of HIV infection among men who have sex with men?",
        "Is the penis affected in Peyronie disease? Cancer of the penis is rare in circumcised men.",
        "Does ovariohysterectomy cause urinary incontinence in bitches? Semen of pigs was stored.",
        "Is the wild ass a reservoir of equine herpesvirus? Great tits were not infected.",
        "Mentally retarded children with Down syndrome die of bloody diarrhoea more often.",
        "Homosexual men with rectal gonorrhoea were ashamed of their vagina-like wounds.",
    ],
)
def test_anatomy_and_sexual_health_are_not_offensive(text: str) -> None:
    assert signals.toxicities(pl.Series([text])).item() < DEFAULTS.max_toxicity


@pytest.mark.parametrize(
    "slur",
    [
        "The authors are fucking idiots.",
        "You are a stupid asshole and I hate you.",
        "Shut up, moron!",
        "What a piece of shit this study is.",
    ],
)
def test_a_slur_is_found_in_any_place_of_a_long_answer(slur: str, pubmedqa: pl.DataFrame) -> None:
    first, second = pubmedqa["answer"].head(2)
    texts = pl.Series([slur, f"{first} {slur} {second}", f"{first} {slur}", None, ""])
    found = signals.toxicities(texts).to_list()
    assert all(score > DEFAULTS.max_toxicity for score in found[:3])
    assert found[3:] == [None, None]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Contact: Jane Doe (jane.doe@uni-koeln.de).", "e-mail address"),
        ("Tel.: +31-20-5665-633", "telephone number"),
        ("Phone: (212) 639-8000", "telephone number"),
        ("Call us at +1 212 639 8000.", "telephone number"),
        ("Card 4111 1111 1111 1111 was charged.", "credit card number"),
        ("IBAN DE89 3704 0044 0532 0130 00", "bank account"),
        ("Her number is 536-90-4399.", "social security number"),
        ("Logged in from IP address 192.168.10.44", "IP address"),
    ],
)
def test_personal_data_is_found_and_named(text: str, kind: str) -> None:
    found = signals.personal_data(pl.Series(["Nothing.", text, f"Before {text} {text}", None]))
    assert found.to_list() == [[], [kind], [kind], []]


@pytest.mark.parametrize(
    "text",
    [
        "ClinicalTrials.gov NCT01234567; ISRCTN12345678; EudraCT 2004-000446-20; CTRI/2013/06/003753.",
        "PMID: 12345678, PMC1234567, doi:10.1016/j.cell.2020.01.001, https://code.google.com/p/perm/",
        "Doses of 0.5, 1.25 and 2.5 mg/kg (n = 1,234; 95% CI 0.40-0.87; p = 0.0001).",
        "Grants R01-CA-123456, 81772345 and 2016YFC1302600; PD-0332991 and PF-04449913 640 mg.",
        "Choline acetyltransferase (EC 2.3.1.6) and insulysin (EC 3.4.24.56), SPSS 16.0.1.2.",
        "(CD4+350-500, CD8+ 350-500 cells), Na+ 140, K+ 4.5 mM; +1.5 (0.2); 1518 +/- 1214, 1730 +/- 2368.",
        "Telephone interviews at 6 and 12 months (n=1234) and phone surveys of 2,345 adults in 2012-2014.",
        "CAS 50-78-2; rs1234567890; chr17:41196312-41277500; ISBN 978-3-16-148410-0; 1:2:3:4:5:6:7:8.",
        "The IC50 @ 5 nM; an A@B test; 5@10.",
    ],
)
def test_what_science_is_full_of_is_no_personal_data(text: str) -> None:
    assert signals.personal_data(pl.Series([text])).item().is_empty()


def test_of_real_sentences_none_holds_personal_data_but_with_an_address_or_telephone(
    sentences: pl.Series,
) -> None:
    held = sentences.filter(signals.personal_data(sentences).list.len() > 0)
    assert held.str.contains(r"@|(?i)\b(?:tel|fax|phone)\b").all()
    assert len(held) < 5


def test_an_address_is_judged_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def connect(_: socket.socket, address: Any) -> None:
        asked.append(address)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    signals._recognizers.cache_clear()
    assert signals.personal_data(pl.Series(["jane.doe@uni-koeln.de"])).to_list() == [["e-mail address"]]
    assert not asked


def test_a_pair_with_an_address_leaves_unless_that_is_wanted() -> None:
    row = qa(1, long_answer=f"{qa(1)['long_answer']} Contact: jane.doe@example.org.")
    assert evaluated(row)["reasons"].to_list() == [["holds personal data"]]
    assert evaluated(row, rules=QualityRules(drop_personal_data=False))["kept"].all()


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece", ["x@y.org ", "a.", "tel 1-2-3-4-5-6-7 ", "+1 ", "4111-", "DE89 3704 ", "ip 1.1."]
)
def test_looking_for_personal_data_takes_no_longer_than_the_text(piece: str) -> None:
    text = piece * (50_000 // len(piece))
    signals.personal_data(pl.Series([text + "@" + text]))


def test_odd_characters_are_those_of_no_science() -> None:
    odd = signals.odd_characters(pl.col("t"))
    science = (
        "\u03b1-synuclein \u00b1 37 \u00b0C \u2265 5 \u00b5m, n\u00e4ive caf\u00e9\u2122 \u00a9 CO\u2082 "
        "\u2642\u2640 \u2192 \u2713 \u2606 \u201cx\u201d \u2013\t\r\n\u2009"
    )
    assert value(odd, t=science) == 0
    damage, pictures = "a\x00b\x07c\x94d\ue009e\ufffdf\uffff", "\U0001f642g\u2764\ufe0fh\U0001f468\U0001f3fd"
    assert value(odd, t=damage) == 6
    assert value(odd, t=pictures) == 4
    assert value(odd, t=None) == 0
