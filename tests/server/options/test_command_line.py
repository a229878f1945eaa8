"""How the words of `serve` are separated, and what is refused before vLLM is imported."""

from pathlib import Path

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.options.catalogue import OwnOption
from lora_compose.server.options.command_line import split

OWN = {
    option.flag.removeprefix("--"): option
    for option in (
        OwnOption("--model"),
        OwnOption("--port"),
        OwnOption("--adapter-root", is_repeatable=True),
        OwnOption("--api-key", is_repeatable=True),
        OwnOption("--lora-modules", is_repeatable=True),
        OwnOption("--middleware", is_repeatable=True),
        OwnOption("--allowed-origins", is_repeatable=True),
        OwnOption("--strict", takes_value=False),
        OwnOption("--allow-credentials", takes_value=False),
    )
}


def own(*words: str) -> list[str]:
    return split(words, OWN).own


def of_vllm(*words: str) -> list[str]:
    return split(words, OWN).vllm


def refusal(*words: str) -> str:
    with pytest.raises(LoraComposeError) as refused:
        split(words, OWN)
    assert refused.value.code == "invalid_option"
    return refused.value.message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--max-loras 8", ["--max-loras=8"]),
        ("--max_loras=8", ["--max-loras=8"]),
        ("-tp 2", ["--tensor-parallel-size=2"]),
        ("-O3", ["--optimization-level=3"]),
        ("-O 2", ["--optimization-level=2"]),
        ("--max-loras 8 --max-loras 9", ["--max-loras=9"]),
        ("--max-model-len 4k", ["--max-model-len=4k"]),
        ("--max-model-len -1", ["--max-model-len=-1"]),
        ("--enforce-eager", ["--enforce-eager"]),
        ("--enforce-eager --no-enforce-eager", ["--no-enforce-eager"]),
        ("--served-model-name a b --served-model-name c", ["--served-model-name", "a", "b", "c"]),
        ("--compilation-config.mode 3", ["--compilation-config.mode", "3"]),
        ("-cc.pass_config.fuse=true", None),
        ("--hf-token", ["--hf-token"]),
    ],
)
def test_vllm_gets_long_flags_and_the_last_value(words: str, expected: list[str] | None) -> None:
    if expected is None:
        expected = ["--compilation-config.pass_config.fuse", "true"]
        words = words.replace("-cc", "--compilation_config")
    assert of_vllm(*words.split()) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["org/model"], ["--model=org/model"]),
        (["--max-loras", "8", "org/model"], ["--model=org/model"]),
        (["--api-key", "a", "b", "--api-key", "c"], ["--api-key=a", "--api-key=b", "--api-key=c"]),
        (["--adapter_root", "x", "--adapter-root=y"], ["--adapter-root=x", "--adapter-root=y"]),
        (["--allowed-origins", '["a", "b"]'], ["--allowed-origins=a", "--allowed-origins=b"]),
        (["--lora-modules", "a=1", '{"name": "b"}'], ["--lora-modules=a=1", '--lora-modules={"name": "b"}']),
        (["--port", "1", "--port", "2"], ["--port=2"]),
        (["--allow-credentials", "--no-allow-credentials"], []),
        (["--strict"], ["--strict"]),
    ],
)
def test_ours_are_read_as_vllm_reads_them(words: list[str], expected: list[str]) -> None:
    assert own(*words) == expected
    assert of_vllm(*words) == (["--max-loras=8"] if "--max-loras" in words else [])


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("--max-lora 8", "--max-lora is not an option of `lora-compose serve`. Did you mean --max-loras?"),
        ("--adapter-roots x", "Did you mean --adapter-root?"),
        ("--lora-paths x", "Use --lora-modules NAME=PATH"),
        ("--xyzzy", "--xyzzy is not an option of `lora-compose serve`."),
        ("--xyzzy.a 1", "--xyzzy is not an option"),
        ("--task embed", "Use --runner and --convert"),
        ("--swap-space=4", "Use --kv-offloading-size"),
        ("a b", "give one model"),
        ("a --model b", "give one model"),
        ("--max-loras", "--max-loras needs a value"),
        ("--max-loras many", "--max-loras (many) must be a whole number"),
        ("--gpu-memory-utilization lots", "must be a number"),
        ("--max-model-len 4kb", "must be a number, as 2048, 4k or 1G"),
        ("--max-lora-rank 12", "must be one of 1, 8, 16"),
        ("--dtype float23", "Did you mean float32?"),
        ("--default-chat-template-kwargs {", "must be JSON"),
        ("--enable-chunked-prefill=False", "takes no value. Use --no-enable-chunked-prefill"),
        ("--port abc", "--port (abc) must be a whole number"),
        (
            "--allowed-origins http://a",
            """must be a JSON list of texts, as --allowed-origins '["http://a"]'""",
        ),
        ("--allowed-origins []", "must be a JSON list"),
        ("--compilation-config.mode", "needs a value"),
        ("--compilation-config {} --compilation-config.mode 3", "give the value once"),
        ("--kv-transfer-config.kv_role both", "KV cache outside the server"),
        ("--api-key.x 1", "has no parts"),
    ],
)
def test_what_is_wrong_is_refused_with_the_nearest_or_the_right_value(words: str, part: str) -> None:
    assert part in refusal(*words.split())


@pytest.mark.parametrize(
    "words",
    [
        "--headless",
        "--data-parallel-size 2",
        "-dp 2",
        "--grpc",
        "--no-enable-lora",
        "--worker-extension-cls x",
    ],
)
def test_an_option_that_cannot_be_honoured_says_what_to_use(words: str) -> None:
    assert "is an option of vLLM that this server does not offer." in refusal(*words.split())


@pytest.mark.parametrize(
    ("words", "passed"),
    [
        ("--api-server-count 1", []),
        ("--data-parallel-size=1", []),
        ("--nnodes 1 --node-rank 0", []),
        ("--no-enable-sleep-mode", []),
        ("--enable-lora", ["--enable-lora"]),
        ("--enable-request-id-headers", ["--enable-request-id-headers"]),
    ],
)
def test_what_asks_for_what_the_server_does_anyway_is_accepted(words: str, passed: list[str]) -> None:
    assert of_vllm(*words.split()) == passed


def configured(tmp_path: Path, text: str, *words: str) -> tuple[list[str], list[str]]:
    file = tmp_path / "options.yaml"
    file.write_text(text)
    line = split(["--config", str(file), *words], OWN)
    return line.own, line.vllm


def test_a_file_gives_options_of_both_and_the_command_line_wins(tmp_path: Path) -> None:
    text = (
        "model: org/m\nport: 9000\nmax_loras: 4\nadapter-root: [x, y]\napi-key: [k1, k2]\nstrict: true\n"
        "enforce-eager: false\nspeculative-config:\n  method: ngram\nallowed-origins: ['*']\nseed: null\n"
        "served-model-name: [a, b]\nlora-modules:\n- name: sql\n  path: /sql\n"
    )
    own_words, vllm_words = configured(
        tmp_path, text, "--port=1", "--max-loras=8", "--served-model-name", "c"
    )
    assert own_words == [
        *("--model=org/m", "--port=1", "--adapter-root=x", "--adapter-root=y", "--api-key=k1"),
        *("--api-key=k2", "--strict", "--allowed-origins=*"),
        '--lora-modules={"name": "sql", "path": "/sql"}',
    ]
    assert vllm_words == [
        "--max-loras=8",
        "--no-enforce-eager",
        '--speculative-config={"method": "ngram"}',
        *("--served-model-name", "c"),
    ]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (
            "max-lora: 8",
            "options.yaml: --max-lora is not an option of `lora-compose serve`. Did you mean --max-loras?",
        ),
        ("max-lora:", "Did you mean --max-loras?"),
        ("headless: true", "does not offer"),
        ("max-loras: many", "must be a whole number"),
        ("max-loras: [1, 2]", "takes one value, not a list"),
        ("port: [1, 2]", "takes one value, not a list"),
        ("config: other.yaml", "cannot name another one"),
        ("- a", "must have lines of the form"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_file_is_refused_as_the_command_line_is(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(LoraComposeError) as refused:
        configured(tmp_path, text)
    assert part in refused.value.message


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(f"--config={tmp_path / 'x'}")
    assert "may be given once" in refusal("--config", "a", "--config", "b")
