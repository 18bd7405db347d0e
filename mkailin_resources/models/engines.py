"""The engines of language models in this process, all together."""

from mkailin_resources.models import transformers_model, vllm_model


def release_engines() -> None:
    """Free the memory of every model that this process holds: what is trained next needs it."""
    transformers_model.release()
    vllm_model.release()
