"""The shipped tokenizer reads any text exactly and renders chats as the base was trained on them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import TemplateError
from transformers import AutoTokenizer

from lora_compose.training.testbed.paths import BASE_DIR

PRINTABLE = "".join(map(chr, range(32, 127))) + "\n\t"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(BASE_DIR)


def test_every_printable_ascii_character_is_one_token_and_decodes_back(tokenizer: Any) -> None:
    ids = tokenizer.encode(PRINTABLE, add_special_tokens=False)
    assert len(ids) == len(set(ids)) == len(PRINTABLE)
    assert tokenizer.decode(ids) == PRINTABLE


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=50))
def test_any_text_decodes_back(tokenizer: Any, text: str) -> None:
    if any(token in text for token in tokenizer.all_special_tokens):
        return
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_a_chat_is_rendered_with_one_start_and_an_end_after_each_reply(tokenizer: Any) -> None:
    chat = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "say a"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "say b"},
    ]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<s><|system|>be kind<|user|>say a<|assistant|>a</s><|user|>say b<|assistant|>"
    assert tokenizer.encode(text, add_special_tokens=False).count(tokenizer.bos_token_id) == 1


def test_the_loss_mask_covers_the_reply_and_its_end(tokenizer: Any) -> None:
    chat = [{"role": "user", "content": "say ab"}, {"role": "assistant", "content": "ab"}]
    encoded = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    spoken = [i for i, m in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(spoken) == "ab</s>"


def test_an_unknown_role_is_refused(tokenizer: Any) -> None:
    with pytest.raises(TemplateError, match="narrator"):
        tokenizer.apply_chat_template([{"role": "narrator", "content": "once"}])
