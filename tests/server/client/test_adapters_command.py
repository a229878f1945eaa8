from pathlib import Path

import pytest

from lora_compose.adapters.command_line import main

CONFIG = "adapter_config.json"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            ["checkpoint-9/" + CONFIG, "checkpoint-10/" + CONFIG],
            "subdirectories: checkpoint-9, checkpoint-10.",
        ),
        ([CONFIG, "adapter_model.bin"], "lora-compose adapters convert"),
        (None, "No such file or directory"),
    ],
)
def test_a_directory_that_cannot_be_uploaded_is_refused_before_a_server_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: list[str] | None, words: str
) -> None:
    for name in files or ():
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).write_text("{}")
    with pytest.raises(SystemExit) as ended:
        main(["adapters", "add", "sql", str(tmp_path / "a"), "--url", "http://127.0.0.1:9"])
    assert words in str(ended.value.code)
    assert capsys.readouterr().out == ""
