from lora_compose.adapters.errors import CommandCode, NotFound
from lora_compose.server.doctor.check import Check, examine, ok


def failing(error: Exception) -> Check:
    def look() -> None:
        raise error

    return Check("installation", "odd", look)  # type: ignore[arg-type]


def test_what_a_check_finds_is_its_result() -> None:
    assert examine(Check("model", "config", lambda: ok("fine"))).to_dict() == {
        "section": "model", "name": "config", "status": "ok", "sentence": "fine", "advice": "",
    }  # fmt: skip


def test_a_check_that_raises_has_failed_with_the_exception_s_first_line() -> None:
    found = examine(failing(OSError(5, "Input/output error")))
    assert (found.status, found.sentence) == ("fail", "OSError: [Errno 5] Input/output error")
    assert found.advice


def test_a_refusal_keeps_its_own_sentence_and_code() -> None:
    found = examine(failing(NotFound(CommandCode.NO_REGISTRY, "There is no registry.")))
    assert (found.status, found.sentence) == ("fail", "There is no registry.")
    assert "no_registry" in found.advice
