import json

from lora_compose.server.generation.vllm_errors import contract_body


def test_a_bug_of_vllm_s_keeps_its_text_to_the_log() -> None:
    body = json.dumps({"error": {"message": "'X' object has no attribute 'y'", "param": None}}).encode()
    told = contract_body(500, body)["error"]
    assert (told["code"], "object" in told["message"]) == ("internal_error", False)


def test_a_refusal_of_vllm_s_says_what_it_said() -> None:
    body = json.dumps({"error": {"message": "n must be at most 2", "param": "n"}}).encode()
    told = contract_body(400, body)["error"]
    assert (told["message"], told["param"]) == ("n must be at most 2", "n")
