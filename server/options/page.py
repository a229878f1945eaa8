"""Writes docs/vllm-options.md, and answers `lora-compose serve --help=WORD`.

python -m lora_compose.server.options.page > docs/vllm-options.md
"""

import sys
from collections import Counter

from lora_compose.server.options import environment
from lora_compose.server.options.catalogue import VllmOption, options, read
from lora_compose.server.options.decisions import REFUSED, honoured_by

HEAD = """# vLLM's options

Written by `python -m lora_compose.server.options.page`. `lora-compose serve` knows every option of `vllm
serve` (vLLM {version}). Each is honoured or refused: none is accepted and ignored. A refusal comes within two
seconds, before vLLM is imported, and says what to use instead. What an option means is in
[vLLM's documentation](https://docs.vllm.ai/en/latest/cli/serve.html). `lora-compose serve --help=WORD` lists
the options with WORD in their name.

Of {total} options, {honoured} are honoured ({counts})
and {refused} are refused.

- `lora-compose serve MODEL` is the same as `lora-compose serve --model MODEL`.
- Flags may have underscores in place of dashes. An abbreviated flag is refused, with the nearest known one.
- `--config FILE` reads options from a YAML file. Its keys are flags without the dashes in front, also those
  of lora-compose itself. The command line wins. A key that is not known is refused.
- If an option is given twice, the last value counts, as in vLLM. `--api-key`, `--lora-modules`,
  `--middleware` and `--served-model-name` may be given several times, and every value counts.
"""

ENVIRONMENT = """
## Environment variables

These variables are read by vLLM's HTTP server, its request handlers and its logging. Every other variable of
vLLM reaches the engine unchanged.

| variable | honoured by, or refused |
|---|---|
"""


def page() -> str:
    """The complete text of docs/vllm-options.md."""
    by = Counter(honoured_by(name) for name in options())
    refused = by.pop(None)
    counts = ", ".join(f"{count} by {_of(who)}" for who, count in by.most_common())
    head = HEAD.format(
        version=read()["vllm"],
        total=by.total() + refused,
        honoured=by.total(),
        counts=counts,
        refused=refused,
    )
    lines = [head]
    group = ""
    for option in options().values():
        if option.group != group:
            group = option.group
            lines += [
                f"\n## {group[0].upper()}{group[1:]}\n",
                "| option | honoured by, or refused |",
                "|---|---|",
            ]
        lines.append(f"| `{option.flag}` | {_fate(option)} |")
    return (
        "\n".join(lines) + "\n" + ENVIRONMENT + "".join(map("| `{0[0]}` | {0[1]} |\n".format, _variables()))
    )


def describe(word: str) -> str:
    """The options of vLLM with `word` in their name or as their group, one on each line; all for "all"."""
    wanted = word.lower().lstrip("-").replace("_", "-")
    found = [
        option
        for option in options().values()
        if wanted == "all" or wanted == option.group.lower() or wanted in option.name
    ]
    if not found:
        return f"No option of vLLM has {word} in its name. Try --help=all."
    return "\n".join(f"{_usage(option)}  {_fate(option)}" for option in found)


def _of(who: str | None) -> str:
    return "lora-compose's server" if who == "server" else str(who)


def _fate(option: VllmOption) -> str:
    refusal = REFUSED.get(option.name)
    if refusal is None:
        return _of(honoured_by(option.name))
    if refusal.when_off:
        return f"always on; `--no-{option.name}` is refused. {refusal.reason}."
    unless = f" unless {' or '.join(refusal.harmless)}" if refusal.harmless else ""
    return f"**refused**{unless}. {refusal.reason}."


def _usage(option: VllmOption) -> str:
    flags = "/".join(option.flags)
    if option.values == 0:
        return flags
    value = "{" + ",".join(option.choices) + "}" if option.choices else option.kind.upper()
    return f"{flags} {value}" + (" ..." if option.values == "+" else "")


def _variables() -> list[tuple[str, str]]:
    rows = {
        **dict.fromkeys(environment.SERVER, _of("server")),
        **dict.fromkeys(environment.HANDLERS, "vLLM's handlers"),
        **dict.fromkeys(environment.ENGINE, "vLLM's engine"),
        **dict.fromkeys(environment.OTHER_COMMANDS, "nothing here: read by other commands of vLLM"),
        **{name: f"**refused** if it is on. {hint}." for name, hint in environment.REFUSED_IF_ON.items()},
        **{name: f"**refused** if it is off. {hint}." for name, hint in environment.REFUSED_IF_OFF.items()},
        **{name: f"**refused**. {hint}." for name, hint in environment.REFUSED_IF_SET.items()},
        environment.KEY: "lora-compose's server: one more key that may do everything, as with `--api-key`",
    }
    return sorted(rows.items())


if __name__ == "__main__":
    sys.stdout.write(page())
