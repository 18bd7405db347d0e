"""Settings of retrieval: which encoder, tuned or not, which retriever, and what a wrong one says."""

import pytest

from mkailin_assets.definitions import definitions
from mkailin_resources.profiles import InvalidSetting, Settings


def settings(**given: str) -> Settings:
    return Settings.from_environment({f"MKAILIN_{name}": value for name, value in given.items()})


@pytest.mark.parametrize(
    ("given", "retriever"),
    [
        ({}, "lexical"),
        ({"ENCODER": "corpus"}, "lexical"),
        ({"ENCODER": "org/encoder"}, "hybrid"),
        ({"RETRIEVER": "hybrid"}, "hybrid"),
        ({"ENCODER": "org/encoder", "RETRIEVER": "dense"}, "dense"),
    ],
)
def test_the_retriever_is_the_one_that_measured_best_for_the_encoder_unless_one_is_set(
    given: dict[str, str], retriever: str
) -> None:
    assert settings(**given).retriever == retriever


def test_an_encoder_is_tuned_only_if_asked_with_the_settings_given() -> None:
    assert settings(ENCODER="org/encoder").encoder.tuning is None
    assert settings(ENCODER="org/encoder", TUNE_ENCODER="yes").encoder.tuning == {}
    tuned = settings(ENCODER="org/encoder", TUNE_ENCODER='{"max_steps": 50}').encoder
    assert tuned.tuning == {"max_steps": 50}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"RETRIEVER": "sparse"}, "MKAILIN_RETRIEVER is 'sparse'; set it to one of: .*dense, hybrid"),
        ({"ENCODER": "e", "POOLING": "max"}, "MKAILIN_POOLING is 'max'; set it to one of: mean, cls"),
        ({"ENCODER": "e", "TUNE_ENCODER": "maybe"}, "set it to no, yes or a JSON object"),
        ({"TUNE_ENCODER": "yes"}, "name one in MKAILIN_ENCODER"),
        ({"QUERY_ENCODER": "q"}, "name one in MKAILIN_ENCODER"),
        ({"ENCODER": "d", "QUERY_ENCODER": "q", "TUNE_ENCODER": "yes"}, "unset MKAILIN_QUERY_ENCODER"),
        ({"ENCODER": "two words"}, "MKAILIN_ENCODER: 'two words' names no model"),
        ({"ENCODER": "d", "QUERY_ENCODER": "q+adapter"}, "MKAILIN_QUERY_ENCODER .* takes no adapter"),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_may_be(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        settings(**wrong)


@pytest.mark.parametrize(
    ("changed", "out_of_date"),
    [
        ({"ENCODER": "other"}, {"retriever_checkpoint"}),
        ({"ENCODER": "e", "QUERY_ENCODER": "q"}, {"retriever_checkpoint"}),
        ({"ENCODER": "e", "TUNE_ENCODER": '{"max_steps": 5}'}, {"retriever_checkpoint"}),
        (
            {"ENCODER": "e", "RETRIEVER": "dense"},
            {"candidate_contexts", "distilled_contexts", "retrieval_report", "evaluator_audit"},
        ),
        (
            {"ENCODER": "e", "RETRIEVAL_BENCHMARK": "folder"},
            {
                *("retrieval_report", "training_corpus", "corpus_exclusions"),
                *("question_exemplars", "evaluator_checkpoint", "preferred_generator"),
                *("benchmark_answers", "benchmark_report", "benchmark_comparisons"),
                *("ablated_corpus", "ablation_report"),
            },
        ),
    ],
)
def test_a_changed_setting_makes_out_of_date_what_it_decides(
    changed: dict[str, str], out_of_date: set[str]
) -> None:
    def versions(**given: str) -> dict[str, str | None]:
        specs = definitions(settings(**given)).resolve_all_asset_specs()
        return {spec.key.to_user_string(): spec.code_version for spec in specs}

    before, after = versions(ENCODER="e"), versions(**changed)
    assert {name for name in before if before[name] != after[name]} == out_of_date
