from demo.language import VOCABULARY, make_tokenizer
from demo.task import ADDITION, HELD_OUT


def test_every_character_is_one_token() -> None:
    tokenizer = make_tokenizer()
    assert len(VOCABULARY) == 32
    assert tokenizer.tokenize("37+85=") == list("37+85=")
    assert tokenizer.decode(tokenizer.encode("122")) == "122"
    assert tokenizer("5")["input_ids"] == [VOCABULARY.index("5")]


def test_prompts_are_padded_on_the_left() -> None:
    tokenizer = make_tokenizer()
    padded = tokenizer(["1", "123"], padding=True)["input_ids"]
    assert padded[0] == [tokenizer.pad_token_id] * 2 + padded[0][2:]


def test_held_out_prompts_are_held_out() -> None:
    training, held_out = ADDITION.split()
    assert len(held_out) == HELD_OUT
    assert len(training) + len(held_out) == 8100
    assert not set(training) & set(held_out)
    assert ADDITION.split(100) == (training, held_out[:100])


def test_only_the_exact_answer_is_rewarded() -> None:
    assert ADDITION.answer("37+85=") == "122"
    assert ADDITION.exact_match(["37+85="] * 4, ["122", "0122", "122 ", ""]) == [1.0, 0.0, 0.0, 0.0]
