"""The base model of the embedded profile: a small Llama with seeded random weights."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


def build_base(tokenizer: "PreTrainedTokenizerFast", max_length: int, seed: int) -> "LlamaForCausalLM":
    """A Llama of two layers, 128 wide: about 1.4 million parameters with 4,096 tokens.

    Input and output embeddings are separate, so that an adapter can train and save each by its own name.
    """
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=max_length,
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
