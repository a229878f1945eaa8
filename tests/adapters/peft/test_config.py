import json
import math
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from peft.utils.other import get_pattern_key

from lora_compose.adapters.errors import AdapterRejected
from lora_compose.adapters.peft.config import AdapterConfig, parse_config, read_config, unknown_fields
from tests.adapters.adapter_files import CONFIG

MODULES = [f"model.layers.{i}.{m}" for i in (0, 1, 10) for m in ("self_attn.q_proj", "mlp.up_proj", "q_proj")]
KEYS = [
    "q_proj",
    "up_proj",
    "layers.0.self_attn.q_proj",
    "layers.1.*",
    ".*proj",
    "proj",
    "^model.layers.0.q_proj",
]
KEYS += [
    "(q|up)_proj",
    r"layers\.\d+\.q_proj",
    "model.layers.1.mlp.up_proj",
    "mlp",
    "0.mlp.up_proj",
    "self_attn.q",
]


def written(directory: Path, content: bytes | dict[str, Any]) -> Path:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (directory / "adapter_config.json").write_bytes(data)
    return directory


def refusal(**changes: Any) -> AdapterRejected:
    with pytest.raises(AdapterRejected) as caught:
        parse_config(CONFIG | changes)
    return caught.value


def test_what_peft_saves_is_read_back(tmp_path: Path) -> None:
    LoraConfig(r=6, lora_alpha=9, target_modules=["q_proj"], alpha_pattern={"up": 2}).save_pretrained(
        tmp_path
    )
    config = read_config(tmp_path)
    assert (config.r, config.lora_alpha, config.alpha_pattern) == (6, 9.0, {"up": 2.0})
    assert unknown_fields(config.raw) == ()


def test_every_field_of_pefts_config_is_known_to_us() -> None:
    assert unknown_fields({field.name: None for field in fields(LoraConfig)} | CONFIG) == ()


patterns = st.lists(st.sampled_from(KEYS), unique=True, max_size=5).flatmap(
    lambda keys: st.fixed_dictionaries({key: st.integers(1, 64) for key in keys})
)


@given(patterns, patterns, st.booleans())
def test_rank_and_scaling_of_a_module_are_pefts(
    ranks: dict[str, int], alphas: dict[str, int], rslora: bool
) -> None:
    config = parse_config(CONFIG | {"rank_pattern": ranks, "alpha_pattern": alphas, "use_rslora": rslora})
    for module in MODULES:
        rank = ranks.get(get_pattern_key(list(ranks), module), CONFIG["r"])
        alpha = alphas.get(get_pattern_key(list(alphas), module), CONFIG["lora_alpha"])
        assert config.rank_of(module) == rank
        assert config.scaling_of(module) == pytest.approx(alpha / (math.sqrt(rank) if rslora else rank))


@pytest.mark.parametrize(
    "key", ["(", "a**", "(?i)q_proj", "(?:q){e<=1}", r"\p{L}+", "(?P<idx>a)(?P<idx>b)", "x*" * 300]
)
def test_a_pattern_that_is_no_pattern_is_refused(key: str) -> None:
    assert refusal(rank_pattern={key: 4}).code == "bad_adapter_config"


def test_a_pattern_made_to_take_for_ever_is_refused_in_seconds() -> None:
    config = parse_config(CONFIG | {"rank_pattern": {"([a-z._0-9]|[a-z]|[a-z.])*[0-9]_[0-9]": 4}})
    start = time.perf_counter()
    with pytest.raises(AdapterRejected) as caught:
        config.rank_of("model.layers.0.self_attn.q_proj_and_a_long_tail")
    assert caught.value.code == "bad_adapter_config"
    assert time.perf_counter() - start < 10


def test_a_pattern_for_each_of_a_thousand_modules_is_read_in_time() -> None:
    names = [f"model.layers.{i}.self_attn.{m}_proj" for i in range(250) for m in "qkvo"]
    config = parse_config(CONFIG | {"rank_pattern": {name: i + 1 for i, name in enumerate(names)}})
    assert [config.rank_of(name) for name in names] == list(range(1, 1001))


@pytest.mark.parametrize("r", [0, -1, "8", 8.5, 8.0, 1e9, 10**9, True, None, [8], 10**400])
def test_a_rank_that_is_no_rank_is_refused(r: object) -> None:
    assert refusal(r=r).code == "bad_rank"
    assert refusal(rank_pattern={"q_proj": r}).code == "bad_rank"


@pytest.mark.parametrize("alpha", ["16", math.nan, math.inf, 1e38, -1e38, True, None, 10**400])
def test_an_alpha_that_is_no_alpha_is_refused(alpha: object) -> None:
    assert refusal(lora_alpha=alpha).code == "bad_alpha"
    assert refusal(alpha_pattern={"q_proj": alpha}).code == "bad_alpha"


def test_alpha_zero_is_a_scaling_of_zero() -> None:
    assert parse_config(CONFIG | {"lora_alpha": 0}).scaling_of("q_proj") == 0


@pytest.mark.parametrize(
    "change",
    [
        {"peft_type": "IA3"}, {"bias": "other"},
        {"modules_to_save": ["lm_head"]}, {"init_lora_weights": "pissa_niter_4"},
        {"init_lora_weights": "OLoRA"},
        {"init_lora_weights": "corda"}, {"init_lora_weights": "loftq"}, {"init_lora_weights": "lora_ga"},
        {"init_lora_weights": "tomorrow"}, {"layer_replication": [[0, 2]]}, {"trainable_token_indices": [1]},
        {"target_parameters": ["experts.up"]}, {"alora_invocation_tokens": [1]}, {"use_qalora": True},
        {"use_bdlora": {"nblocks": 2}}, {"kasa_config": {"beta": 1}}, {"velora_config": {"scale": 1}},
        {"monteclora_config": {"n": 8}}, {"arrow_config": {"top_k": 3}}, {"megatron_config": {"tp": 2}},
        {"use_tomorrows_lora": True}, {"tomorrow_config": {"x": 1}},
    ],
)  # fmt: skip
def test_what_a_plain_sum_cannot_give_is_refused_by_field(change: dict[str, Any]) -> None:
    refused = refusal(**change)
    assert refused.code == "unsupported_feature"
    assert refused.param == next(iter(change))
    assert refused.param in refused.message


@pytest.mark.parametrize("init", [True, False, None, "gaussian", "eva", "orthogonal", "mica"])
def test_an_initialisation_that_leaves_the_base_alone_is_fine(init: object) -> None:
    assert parse_config(CONFIG | {"init_lora_weights": init}).r == CONFIG["r"]


@pytest.mark.parametrize(
    "change",
    [
        {"use_rslora": "yes"}, {"use_rslora": 1}, {"rank_pattern": []}, {"alpha_pattern": "x"},
        {"bias": None},
        {"target_modules": [1]}, {"base_model_name_or_path": 3},
        {"peft_type": 1}, {"init_lora_weights": 1}, {"use_dora": "no"},
    ],
)  # fmt: skip
def test_a_field_of_the_wrong_type_is_refused_by_name(change: dict[str, Any]) -> None:
    refused = refusal(**change)
    assert refused.code == "bad_adapter_config"
    assert refused.param == next(iter(change))


def test_a_config_peft_never_wrote_is_refused() -> None:
    with pytest.raises(AdapterRejected, match="peft_type"):
        parse_config({name: value for name, value in CONFIG.items() if name != "peft_type"})


def test_fields_that_are_left_out_have_pefts_values() -> None:
    assert LoraConfig().r == LoraConfig().lora_alpha == 8
    config = parse_config({"peft_type": "LORA"})
    assert (config.r, config.scaling_of("q_proj")) == (8, 1.0)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("olora", "changes the weights of the base"), ("pissa_niter_4", "changes the weights of the base"),
        ("pissa_niter_x", "no such initialisation"), ("Eva", "no such initialisation"),
        ("future", "no such initialisation"),
    ],
)  # fmt: skip
def test_an_initialisation_is_refused_for_what_it_is(value: str, words: str) -> None:
    assert words in refusal(init_lora_weights=value).message


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("LOHA", "adapters convert"), ("VERA", "adapters convert"), ("PREFIX_TUNING", "virtual tokens"),
        ("ADAPTION_PROMPT", "virtual tokens"), ("IA3", "cannot convert it"), ("lora", "in capitals"),
        ("XLORA", "one by one"), ("TOMORROW", "no such kind"),
    ],
)  # fmt: skip
def test_another_kind_is_refused_with_what_to_do(kind: str, words: str) -> None:
    assert words in refusal(peft_type=kind).message


@pytest.mark.parametrize(
    "field",
    [
        {"tags": ["swift"]},
        {"architectures": ["LlamaForCausalLM"]},
        {"later": False},
        {"later": "x"},
        {"later": 3},
    ],
)
def test_a_field_that_computes_nothing_is_ignored(field: dict[str, object]) -> None:
    assert unknown_fields(parse_config(CONFIG | field).raw) == tuple(field)


GOOD = json.dumps(CONFIG).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"3", b'"r"', b"[" * 100_000, b'{"a":' * 100_000, b"\xef\xbb\xbf" + GOOD,
        GOOD.replace(b'"r": 4', b'"r": 4, "r": 8'), GOOD.replace(b"{", b'{"x": NaN, ', 1),
        GOOD.replace(b"{", b'{"x": -Infinity, ', 1), GOOD.replace(b"tiny", b"\xff"),
        GOOD.replace(b"tiny", b"\\ud800"),
        GOOD.replace(b"{", b'{"x": %b, ' % (b"9" * 5000), 1), GOOD.decode().encode("utf-16"), GOOD + b"{}",
        GOOD.replace(b"tiny", b"x" * (1 << 20)),
    ],
)  # fmt: skip
def test_a_file_two_readers_may_read_differently_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(AdapterRejected) as caught:
        read_config(written(tmp_path, content))
    assert caught.value.code == "bad_adapter_config"
    assert str(tmp_path) not in caught.value.message
    assert len(caught.value.message) < 500


def test_brackets_inside_strings_are_not_nesting(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, CONFIG | {"base_model_name_or_path": '\\"[[[[[{{{{{{{{{{{{{{{{'}))
    assert isinstance(config, AdapterConfig)


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.sampled_from([*CONFIG]), some, max_size=5),
))  # fmt: skip
def test_whatever_is_in_the_file_the_answer_is_a_config_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, content: object
) -> None:
    directory = tmp_path_factory.getbasetemp()
    (directory / "adapter_config.json").write_bytes(
        content if isinstance(content, bytes) else json.dumps(content).encode()
    )
    with pytest.raises(AdapterRejected):
        read_config(directory)
