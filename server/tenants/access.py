"""The table of what each role may do. Other requests are allowed for an operator only."""

import re
from dataclasses import dataclass

from lora_compose.server.paths import COMPOSING, NAME_IN_PATH, PROBES, RESPONSES, TRANSLATED
from lora_compose.server.tenants.key import Key


@dataclass(frozen=True)
class Rule:
    """`roles` may use `methods` on paths that match completely. An admin of some adapters counts as admin."""

    methods: frozenset[str]
    path: re.Pattern[str]
    roles: frozenset[str]


def _rule(methods: str, path: str, *roles: str) -> Rule:
    return Rule(frozenset(methods.split()), re.compile(path), frozenset(roles))


NAMED = f"/v1/adapters/{NAME_IN_PATH}"
SAVED = f"/v1/compositions/{NAME_IN_PATH}"
RULES = (
    _rule("POST", "|".join(map(re.escape, (*COMPOSING, *TRANSLATED))), "inference", "admin"),
    _rule("GET HEAD", r"/v1/models(/.*)?", "inference", "admin", "monitor"),
    _rule("GET HEAD", rf"/v1/adapters|{NAMED}", "inference", "admin"),
    _rule("GET HEAD", rf"/v1/compositions|{SAVED}", "inference", "admin"),
    _rule("GET HEAD", r"/|/api/(tags|ps|version)|/info|/lora-adapters", "inference", "admin"),
    _rule("POST", r"/api/show|/lora-adapters", "inference", "admin"),
    _rule("GET HEAD", r"/metrics", "monitor"),
    _rule("GET HEAD", r"/openapi\.json|/docs|/version|/load", "inference", "admin", "monitor"),
    _rule("GET HEAD", rf"{RESPONSES}/[^/]+|/tokenizer_info", "inference", "admin"),
    _rule("POST", rf"{RESPONSES}/[^/]+/cancel", "inference", "admin"),
    _rule("POST", r"/v1/adapters|/v1/compositions", "admin"),
    _rule("DELETE", rf"{NAMED}|{SAVED}", "admin"),
    _rule("PUT DELETE", rf"{NAMED}/aliases/[^/]+", "admin"),
    _rule("POST", r"/v1/(un)?load_lora_adapter", "admin"),
)


def may(key: Key, method: str, path: str) -> bool:
    """Whether the key's role allows the request. The routes check which adapters the key may name."""
    return key.is_operator or key.role in roles_of(method, path)


def is_public(method: str, path: str) -> bool:
    """Whether the main port answers the request if administration has its own port."""
    return path in PROBES or "inference" in roles_of(method, path)


def roles_of(method: str, path: str) -> frozenset[str]:
    """The roles of the first rule that matches; empty if only an operator may."""
    for rule in RULES:
        if method in rule.methods and rule.path.fullmatch(path):
            return rule.roles
    return frozenset()
