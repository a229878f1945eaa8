"""Product text and documentation avoid words that a reader with English as a second language stumbles over.

`python -m tests.test_plain_words` prints every finding of every kind, and their counts. The list is short on
purpose: it holds the habits that came back most often. It does not judge whether a sentence is clear.
"""

import ast
import io
import json
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from lora_compose.server.config import ServerConfig
from lora_compose.server.fusion.policy import FusePolicySettings

ROOT = Path(__file__).resolve().parents[1]
PACKAGES: Final = ("adapters", "server", "training", "benchmarks")
KINDS: Final = ("messages", "help", "metrics", "logs", "docs", "docstrings", "comments")
HELP_CLASSES: Final = frozenset({ServerConfig.__name__, FusePolicySettings.__name__})
"""Dataclasses whose field docstrings are the help of command line options."""
WRITTEN_BY_CODE: Final = {
    "docs/http-api.md": (re.compile("^", re.MULTILINE), "messages"),
    "docs/operations/metrics.md": (re.compile(r"^\| `", re.MULTILINE), "metrics"),
}
"""Lines of pages whose words come from code, so they are of the code's kind."""

WORDS: Final = {
    "nobody": r"nobody",
    "whoever, whatever, whom": r"who(?:so)?ever|whatever|whom(?:ever)?",
    "tell, told": r"tells?|told|telling",
    "for ever": r"for ever|forever",
    "is none": r"(?-i:(?:is|are|was|were|be) none)",
    "of those, of ours": r"of (?:those|ours|theirs|yours)",
    "as it is": r"as (?:it is|they are)(?! \w+(?:ed|en|ing)\b)",
    "is had": r"(?:is|are|be|was|were) had",
    "no more": r"good no more|no more(?=\s*(?:[.,;:!?)|]|\Z))",
    "metaphor": r"strangers?|storms?|knock(?:s|ed|ing)?|doors?|houses?|worlds?(?![ _-]size)|rooms?",
    "old words": r"mend(?:s|ed|ing)?|anew|whence|thereof|wherein|lest|hitherto|of no (?:use|worth)",
    "so is": r"so (?:is|are|was|were|does|do|did|has|have)(?! to\b)",
}
"""Whole words and phrases, in any case; a blank is any white space."""
PATTERNS: Final = {
    name: re.compile(rf"(?<![\w-])(?:{words})(?![\w-])".replace(" ", r"\s+"), re.IGNORECASE)
    for name, words in WORDS.items()
} | {
    "who, as a subject": re.compile(r"(?:\A|[.!?:;|]\s+|\n\n|- )Who\s(?![^.?!]*\?)[^.?!|]+[.,]"),
    "for, as because": re.compile(r",\s+for\s+(?:it|they|there|others|everybody|we|you|that|these|its|he)\s"),
    "is no": re.compile(r"(?<![Tt]here\s)\b(?:is|are)\s+no\s+(?!longer|more|less|better|worse|[a-z]+er\b)"),
    "begins with Of or As": re.compile(r"\A(?:Of|As)\s"),
}


@dataclass(frozen=True)
class Prose:
    """A piece of text, where it begins, and its kind. `is_folded`: its lines are not those of the file."""

    kind: str
    path: Path
    line: int
    text: str
    is_folded: bool = False


@dataclass(frozen=True)
class Finding:
    """A word of the list in a file."""

    kind: str
    path: Path
    line: int
    word: str
    excerpt: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: [{self.word}] …{self.excerpt}…"


def findings_in(prose: Prose) -> Iterator[Finding]:
    """Every word of the list in `prose`. Code between backticks and addresses of links are skipped."""
    text = re.sub(r"`(?:[^`\n]|\n(?!\n))*`", lambda code: re.sub(r"\S", "x", code[0]), prose.text)
    text = re.sub(r"\]\([^)\s]*\)", lambda link: "x" * len(link[0]), text)
    for word, pattern in PATTERNS.items():
        for match in pattern.finditer(text):
            line = prose.line + (0 if prose.is_folded else text.count("\n", 0, match.start()))
            around = prose.text[max(0, match.start() - 40) : match.end() + 40]
            yield Finding(prose.kind, prose.path, line, word, " ".join(around.split()))


def python_prose(path: Path) -> Iterator[Prose]:
    """Docstrings, string literals that look like prose, and comments."""
    source = path.read_text()
    yield from _literals(path, ast.parse(source))
    yield from _comments(path, source)


def _literals(path: Path, tree: ast.Module) -> Iterator[Prose]:
    kinds = {id(node): kind for parent in ast.walk(tree) for node, kind in _kinds_within(parent)}
    default = "metrics" if path.name.endswith("metrics.py") else "messages"
    inside = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)
    }
    for node in ast.walk(tree):
        kind = kinds.get(id(node), default)
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            text = node.value
        else:
            continue
        if kind == "docstrings" or re.search(r"[A-Za-z]\S*\s+\S*[A-Za-z]|\s", text):
            yield Prose(kind, path, node.lineno, text, is_folded=not _is_triple(node, text))


def _is_triple(node: ast.expr, text: str) -> bool:
    return node.end_lineno is not None and text.count("\n") == node.end_lineno - node.lineno


def _kinds_within(parent: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """The kinds of the literals directly in `parent`, if it decides them."""
    if isinstance(parent, ast.Call):
        yield from _kinds_in_call(parent, _kind_of_call(ast.unparse(parent.func)))
    elif isinstance(parent, ast.Dict):
        for key, value in zip(parent.keys, parent.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "help":
                yield from ((node, "help") for node in ast.walk(value))
    elif isinstance(parent, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        is_help = _is_command(parent) or (isinstance(parent, ast.ClassDef) and parent.name in HELP_CLASSES)
        for place, statement in enumerate(parent.body):
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                is_field = place > 0 or not isinstance(parent, ast.ClassDef)
                yield statement.value, "help" if is_help and is_field else "docstrings"


def _kinds_in_call(call: ast.Call, kind: str) -> Iterator[tuple[ast.AST, str]]:
    for argument in call.args if kind else ():
        yield from ((node, kind) for node in ast.walk(argument))
    for keyword in call.keywords:
        if keyword.arg == "help" or kind in {"metrics", "logs"}:
            yield from ((node, kind or "help") for node in ast.walk(keyword.value))


def _kind_of_call(function: str) -> str:
    name = function.rpartition(".")[2]
    if function.split(".")[0] in {"logger", "log"}:
        return "logs"
    if name in {"Counter", "Gauge", "Histogram", "Info"}:
        return "metrics"
    return "help" if name in {"Option", "Argument", "Typer"} else ""


def _is_command(node: ast.AST) -> bool:
    """Whether a function's docstring is the help of a command: it is registered or has options of typer."""
    if not isinstance(node, ast.FunctionDef):
        return False
    decorators = " ".join(map(ast.unparse, node.decorator_list))
    return bool(re.search(r"\.(command|callback)\b", decorators)) or "typer." in ast.unparse(node.args)


def _comments(path: Path, source: str) -> Iterator[Prose]:
    """Each run of comment lines as one text."""
    block: Prose | None = None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, text = token.start[0], token.string.lstrip("#").strip()
        if block is not None and line == block.line + block.text.count("\n") + 1:
            block = replace(block, text=f"{block.text}\n{text}")
            continue
        if block is not None:
            yield block
        block = Prose("comments", path, line, text)
    if block is not None:
        yield block


def page_prose(path: Path) -> Iterator[Prose]:
    """A Markdown page without its code blocks; lines that code writes are of that code's kind."""
    name = str(path.relative_to(ROOT))
    text = re.sub(
        r"^( *)```.*?^\1```",
        lambda block: re.sub(r"\S", "x", block[0]),
        path.read_text(),
        flags=re.MULTILINE | re.DOTALL,
    )
    pattern, kind = WRITTEN_BY_CODE.get(name, (None, "docs"))
    if pattern is None:
        yield Prose("docs", path, 1, text)
        return
    for number, line in enumerate(text.splitlines(), 1):
        yield Prose(kind if pattern.match(line) else "docs", path, number, line)


def operations_prose() -> Iterator[Prose]:
    """What operators read beside the pages: alerts, the dashboard, the image, the unit, `make help`."""
    operations = ROOT / "docs" / "operations"
    yield Prose("docs", operations / "alerts.yaml", 1, (operations / "alerts.yaml").read_text())
    dashboard = operations / "grafana-dashboard.json"
    for number, line in enumerate(dashboard.read_text().splitlines(), 1):
        if (field := re.match(r'\s*"(?:title|description|legendFormat)": (".*"),?$', line)) is not None:
            yield Prose("docs", dashboard, number, json.loads(field[1]))
    commented = (ROOT / "Makefile", operations / "Containerfile", operations / "lora-compose.service")
    for path in commented:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if (comment := re.search(r"(?:^|\s)##? (.*)", line)) is not None:
                yield Prose("docs", path, number, comment[1])


MADE_DATA: Final = (
    ROOT / "training/testbed/smollm2/messages.py",
    ROOT / "training/testbed/smollm2/questions.py",
)
"""Sentences that people in made-up messages write. They are data, not words of ours."""


@cache
def all_findings() -> dict[str, list[Finding]]:
    """By kind, in the order of files and lines."""
    code = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    pages = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))
    prose = [piece for path in code if path not in MADE_DATA for piece in python_prose(path)]
    prose += [piece for path in pages for piece in page_prose(path)]
    found: dict[str, list[Finding]] = {kind: [] for kind in KINDS}
    for piece in (*prose, *operations_prose()):
        found[piece.kind] += findings_in(piece)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_no_word_of_the_list_is_in(kind: str) -> None:
    found = all_findings()[kind]
    lines = "\n".join(map(str, found))
    assert not found, f"{len(found)} places in {kind} to write in plainer words:\n{lines}"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("A rank in the config that is none.", "is none"),
        ("No key, or one that is good no more.", "no more"),
        ("Who waits too long is overtaken.", "who, as a subject"),
        ("The others were told\nso.", "tell, told"),
        ("It stays so for\never.", "for ever"),
        ("Where tokens are paid for so is a large body.", "so is"),
        ("It is made here, for nobody waits.", "nobody"),
        ("The door: authentication.", "metaphor"),
        ("`lineage` is no JSON object.", "is no"),
        ("Of prompts and answers.", "begins with Of or As"),
    ],
)
def test_a_bad_habit_is_found(text: str, word: str) -> None:
    found = list(findings_in(Prose("docs", ROOT / "README.md", 1, text)))
    assert word in {finding.word for finding in found}


@pytest.mark.parametrize(
    "text",
    [
        "Returns None if there are no adapters.",
        "`told` is a variable and `is none` is code.",
        "There are no more than four adapters. There is no alias.",
        "Who may do what? The table of roles says it.",
        "The file is loaded as it is written.",
        "A doorway, an indoor_scene, world size 2.",
        "Wait for it, then continue.",
    ],
)
def test_plain_text_and_code_are_not_found(text: str) -> None:
    assert [str(found) for found in findings_in(Prose("docs", ROOT / "README.md", 1, text))] == []


def test_literals_are_kinds_within_by_where_they_stand(tmp_path: Path) -> None:
    source = '''"""Module."""
import logging
logger = logging.getLogger(__name__)
@app.command()
def run(x=Option(help="an option here")):
    """A command's help."""
    # A comment
    # of two lines
    logger.info("a log line")
    raise ValueError(f"a message {x} here")
'''
    path = tmp_path / "module.py"
    path.write_text(source)
    kinds = {piece.text: piece.kind for piece in python_prose(path)}
    assert kinds == {
        "Module.": "docstrings",
        "an option here": "help",
        "A command's help.": "help",
        "A comment\nof two lines": "comments",
        "a log line": "logs",
        "a message … here": "messages",
    }


def main() -> None:
    """Print every finding by kind, then the counts."""
    found = all_findings()
    for kind in KINDS:
        sys.stdout.writelines(f"{kind}: {finding}\n" for finding in found[kind])
    for kind in KINDS:
        words = Counter(finding.word for finding in found[kind])
        listed = ", ".join(f"{word} {count}" for word, count in words.most_common())
        sys.stdout.write(f"{kind:<11}{len(found[kind]):>5}  {listed}\n")
    sys.stdout.write(f"{'all':<11}{sum(map(len, found.values())):>5}\n")


if __name__ == "__main__":
    main()
