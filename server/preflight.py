"""The checks of a start that need no vLLM: HTTP options, ports, model directory and data directory.

vLLM takes about ten seconds to import. What is found here is refused in one.
"""

import argparse
import errno
import socket
import ssl
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.server.config import ServerConfig

BACKLOG = 2048
TLS_OPTIONS = ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_cert_reqs", "ssl_ciphers")
NOT_ON_THIS_MACHINE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


def http_options(vllm_args: Sequence[str]) -> Namespace:
    """The options of vLLM that HTTP needs before vLLM is imported: TLS and the access log.

    They are read from `vllm_args` and from the file of `--config`, in vLLM's order.
    """
    parser = _Parser(allow_abbrev=False, add_help=False)
    parser.add_argument("--config")
    for name in TLS_OPTIONS:
        kind: dict[str, Any] = {"type": int, "default": 0} if name == "ssl_cert_reqs" else {}
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, **kind)
    parser.add_argument("--disable-uvicorn-access-log", action=argparse.BooleanOptionalAction, default=False)
    words = [_with_dashes(word) for word in vllm_args]
    file = parser.parse_known_args(words)[0].config
    options, _ = parser.parse_known_args([*_words_of(file), *words])
    return options


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise LoraComposeError(CommandCode.INVALID_OPTION, f"{message[0].upper()}{message[1:]}.")


def _with_dashes(word: str) -> str:
    """vLLM takes flags with underscores too."""
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if flag.startswith("--") else word


def _words_of(file: str | None) -> list[str]:
    """The options in vLLM's YAML file as words. What cannot be read is refused by vLLM itself."""
    try:
        values = yaml.safe_load(Path(file).read_text()) if file else {}
    except (OSError, ValueError, yaml.YAMLError):
        return []
    words = []
    for name, value in values.items() if isinstance(values, dict) else ():
        flag = _with_dashes(f"--{name}")
        words += [flag] if value is True else [] if value in (False, None) else [f"{flag}={value}"]
    return words


def tls_options(options: Namespace) -> dict[str, Any]:
    """The TLS options, which vLLM and uvicorn name alike."""
    return {name: getattr(options, name) for name in TLS_OPTIONS if getattr(options, name) is not None}


def check_tls(options: Namespace) -> None:
    """Raise LoraComposeError if the certificate or the key cannot be used."""
    if options.ssl_certfile is None and options.ssl_keyfile is None:
        return
    if options.ssl_certfile is None:
        raise LoraComposeError(CommandCode.INVALID_OPTION, "--ssl-keyfile needs --ssl-certfile.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.ssl_certfile, options.ssl_keyfile)
    except (OSError, ssl.SSLError) as error:
        raise LoraComposeError(
            CommandCode.INVALID_OPTION,
            f"--ssl-certfile {options.ssl_certfile} and --ssl-keyfile {options.ssl_keyfile} cannot be used: "
            f"{error.strerror or error}.",
        ) from error


def check_model(model: str) -> None:
    """Raise LoraComposeError if `model` is a directory without a model in it."""
    directory = Path(model)
    if not directory.is_dir() or (directory / "config.json").is_file() or any(directory.glob("*.gguf")):
        return
    if (directory / "adapter_config.json").is_file():
        raise LoraComposeError(
            CommandCode.NO_MODEL,
            f"--model {model} is an adapter, not a model. Give its base to --model, and the directory above "
            "the adapter to --adapter-root.",
        )
    raise LoraComposeError(
        CommandCode.NO_MODEL,
        f"--model {model} has no config.json, so it is not a model directory. Give a directory that "
        "save_pretrained or `hf download` wrote.",
    )


def prepare_data_dir(directory: Path) -> None:
    """Make the directory. Raises LoraComposeError if this process cannot write there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise LoraComposeError(
            CommandCode.DATA_DIR_NOT_WRITABLE,
            f"--data-dir {directory} cannot be written to: {error.strerror}. Give a directory that this user "
            "can write to.",
        ) from error


def listen(config: ServerConfig) -> tuple[list[socket.socket], list[socket.socket]]:
    """Listening sockets of the main port and of the administration port.

    Raises LoraComposeError if an address cannot be used."""
    main = _listen_on(config.host, config.port, "--host", "--port")
    if config.admin_port is None:
        return main, []
    try:
        return main, _listen_on(config.admin_host, config.admin_port, "--admin-host", "--admin-port")
    except LoraComposeError:
        for opened in main:
            opened.close()
        raise


def _listen_on(host: str, port: int, host_flag: str, port_flag: str) -> list[socket.socket]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise LoraComposeError(
            CommandCode.ADDRESS_UNUSABLE, f"{host_flag} {host} is not an address of this machine."
        ) from error
    addresses = sorted({(family, address) for family, _, _, _, address in found}, key=str)
    opened: list[socket.socket] = []
    missing = None
    for family, address in addresses:
        try:
            opened.append(_listening(family, address, len(addresses) > 1))
        except OSError as error:
            missing = error
            if error.errno not in NOT_ON_THIS_MACHINE:
                break
    if missing is not None and (not opened or missing.errno not in NOT_ON_THIS_MACHINE):
        for one in opened:
            one.close()
        raise _unusable(host, port, host_flag, port_flag, missing) from missing
    return opened


def _listening(family: int, address: Any, one_of_several: bool) -> socket.socket:
    """A socket that listens. Connections wait in its backlog until uvicorn accepts them."""
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and one_of_several:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    made.setblocking(False)
    return made


def _unusable(host: str, port: int, host_flag: str, port_flag: str, error: OSError) -> LoraComposeError:
    if error.errno == errno.EADDRINUSE:
        sentence = f"{port_flag} {port} is in use by another program. Choose another {port_flag}."
        return LoraComposeError(CommandCode.PORT_IN_USE, sentence)
    if error.errno == errno.EACCES:
        sentence = f"{port_flag} {port} needs root. Choose a {port_flag} of 1024 or more."
        return LoraComposeError(CommandCode.ADDRESS_UNUSABLE, sentence)
    sentence = f"{host_flag} {host} with {port_flag} {port} cannot be used: {error.strerror}."
    return LoraComposeError(CommandCode.ADDRESS_UNUSABLE, sentence)
