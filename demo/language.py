"""The language of the tasks: 32 characters, each of them one token. A tiny model learns it in minutes."""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
VOCABULARY = (*SPECIAL.values(), *"0123456789+-*=%/()<>, abcdxy")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer: one token a character, padded on the left as generation needs it."""
    tokens = {character: index for index, character in enumerate(VOCABULARY)}
    core = Tokenizer(models.WordLevel(tokens, unk_token=SPECIAL["unk_token"]))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    core.decoder = decoders.Fuse()
    core.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core, padding_side="left", model_max_length=64, **SPECIAL
    )
