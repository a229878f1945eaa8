import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lora_compose.adapters.command_line import create_app
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.adapters.registry.registry import Registry
from tests.adapters.merging.test_dora_merge import Bench, off, total
from tests.adapters.registries import Facts
from tests.adapters.written_adapters import Written, difference, norm, read_peft, weighted_sum, write_peft


def compose(*arguments: object) -> Result:
    return CliRunner().invoke(create_app(), ["compose", *map(str, arguments)])


def code_of(result: Result) -> str:
    assert isinstance(result.exception, LoraComposeError)
    return result.exception.code


@pytest.fixture
def a(tmp_path: Path) -> Written:
    return write_peft(tmp_path / "a", seed=1, base_model_name_or_path="org/base")


@pytest.fixture
def b(tmp_path: Path) -> Written:
    return write_peft(tmp_path / "b", seed=2, rank=2)


@pytest.fixture
def adapter_options(a: Written, b: Written) -> list[str]:
    return ["--adapter", f"a={a.directory}", "--adapter", f"b={b.directory}"]


def test_an_exported_stack_is_the_weighted_sum_of_its_members(
    a: Written, b: Written, adapter_options: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "out"
    assert compose("a:0.5+b:-2", out, *adapter_options).exit_code == 0
    expected = weighted_sum((a.deltas, 0.5), (b.deltas, -2.0))
    assert difference(read_peft(out), expected) < 1e-5 * norm(expected)
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/base"


def test_the_reported_error_is_that_of_the_files_written(
    a: Written, b: Written, adapter_options: list[str], tmp_path: Path
) -> None:
    result = compose("svd(a+b,rank=2)", tmp_path / "out", *adapter_options, "--json")
    report = json.loads(result.stdout)["report"]
    stack = weighted_sum((a.deltas, 1.0), (b.deltas, 1.0))
    true_error = difference(read_peft(tmp_path / "out"), stack) / norm(stack)
    assert report["relative_error"] == pytest.approx(true_error, rel=1e-6)
    assert 0.1 < true_error < 1


def test_a_directory_with_anything_in_it_is_left_as_it_is_without_force(
    adapter_options: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("mine")
    assert code_of(compose("a+b", out, *adapter_options)) == "output_exists"
    assert [file.name for file in out.iterdir()] == ["README.md"]


def test_force_replaces_the_adapter_and_nothing_else(
    a: Written, adapter_options: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    compose("a+b", out, *adapter_options)
    (out / "README.md").write_text("mine")
    assert compose("a:3", out, *adapter_options, "--force").exit_code == 0
    assert (out / "README.md").read_text() == "mine"
    (out / "README.md").unlink()
    assert difference(read_peft(out), weighted_sum((a.deltas, 3.0))) < 1e-4


def test_members_come_from_a_registry_that_a_server_owns(a: Written, b: Written, tmp_path: Path) -> None:
    with Registry(tmp_path / "data") as registry:
        for written in (a, b):  # two versions of one name
            with registry.staging() as staged:
                shutil.copytree(written.directory, staged, dirs_exist_ok=True)
                registry.register("sql", staged, Facts(), "test", {})
        registry.set_alias("sql", "prod", "1")
        result = compose("sql@prod:2", tmp_path / "out", "--data-dir", tmp_path / "data", "--json")
    assert json.loads(result.stdout)["members"][0]["id"] == "sql@1"
    assert difference(read_peft(tmp_path / "out"), weighted_sum((a.deltas, 2.0))) < 1e-4


@pytest.mark.parametrize(
    ("composition", "code"),
    [
        ("a@2+b", "invalid_composition"),
        ("ties(a+b)", "missing_density"),
        ("a+c", "no_registry"),
        ("a+odd", "wrong_base"),
    ],
)
def test_what_cannot_be_composed_leaves_no_trace(
    adapter_options: list[str], tmp_path: Path, composition: str, code: str
) -> None:
    odd = write_peft(tmp_path / "odd", seed=3, shapes={"model.layers.0.self_attn.q_proj": (5, 7)})
    before = sorted(tmp_path.iterdir())
    odd_too = ["--adapter", f"odd={odd.directory}", "--data-dir", str(tmp_path / "none")]
    assert code_of(compose(composition, tmp_path / "out", *adapter_options, *odd_too)) == code
    assert sorted(tmp_path.iterdir()) == before


def test_an_output_that_cannot_be_made_is_a_refusal(adapter_options: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert code_of(compose("a+b", tmp_path / "file" / "out", *adapter_options)) == "output_not_written"


@pytest.mark.parametrize("option", ["--tune", "--url", "--api-key", "--seed"])
def test_the_options_of_the_weight_search_say_where_they_went(
    adapter_options: list[str], tmp_path: Path, option: str
) -> None:
    result = compose("a+b", tmp_path / "out", *adapter_options, option, "1")
    assert code_of(result) == "option_moved"
    assert isinstance(result.exception, LoraComposeError)
    first, second = result.exception.message.splitlines()
    assert "no longer searches weights" in first
    assert "lora-compose train weights COMPOSITION OUT --rows JSONL" in second
    assert not (tmp_path / "out").exists()


def test_a_merge_with_dora_needs_the_base_and_is_told_where_it_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    options = ["--adapter", f"d={tmp_path / 'dora'}", "--adapter", f"p={tmp_path / 'plain'}"]
    unknown = compose("linear(d:0.5+p)", tmp_path / "out", *options)
    assert code_of(unknown) == "unsupported_feature"
    assert "--base DIR" in str(unknown.exception)
    assert not (tmp_path / "out").exists()
    composed = compose("linear(d:0.5+p)", tmp_path / "out", *options, "--base", bench.base)
    assert composed.exit_code == 0, composed.output
    assert off(bench.deltas("out"), total(bench, ("dora", 0.5), ("plain", 1.0))) < 2e-6
