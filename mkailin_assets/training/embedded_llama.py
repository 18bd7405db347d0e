"""Small Llamas with seeded random weights: the base models of the embedded profile."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


class Shape(NamedTuple):
    """What decides the size of a Llama beside its vocabulary."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int


# With 4,096 tokens about 1.4 million parameters.
SMALL = Shape(hidden=128, intermediate=352, layers=2, heads=4, key_value_heads=2)


def build_base(
    tokenizer: "PreTrainedTokenizerFast", shape: Shape, max_length: int, seed: int
) -> "LlamaForCausalLM":
    """A Llama of that shape for that tokenizer, which reads `max_length` tokens.

    Input and output embeddings are separate, so that an adapter can train and save each by its own name.
    """
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_value_heads,
            max_position_embeddings=max_length,
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
