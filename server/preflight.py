"""The checks of a start that need no vLLM: TLS files, ports, model directory and data directory.

vLLM takes about ten seconds to import. What is found here is refused in one.
"""

import errno
import os
import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.server.config import ServerConfig
from lora_compose.server.options.http_options import HttpOptions

BACKLOG = 2048
NOT_ON_THIS_MACHINE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


def check_tls(options: HttpOptions) -> None:
    """Raise LoraComposeError if the certificate, the key or the certificates of clients cannot be used."""
    if options.ssl_certfile is None:
        return
    flags = f"--ssl-certfile {options.ssl_certfile}"
    flags += f" and --ssl-keyfile {options.ssl_keyfile}" if options.ssl_keyfile else ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(options.ssl_certfile, options.ssl_keyfile)
        if options.ssl_ca_certs is not None:
            flags = f"--ssl-ca-certs {options.ssl_ca_certs}"
            context.load_verify_locations(options.ssl_ca_certs)
        if options.ssl_ciphers is not None:
            flags = f"--ssl-ciphers {options.ssl_ciphers}"
            context.set_ciphers(options.ssl_ciphers)
    except (OSError, ssl.SSLError) as error:
        raise LoraComposeError(
            CommandCode.INVALID_OPTION, f"{flags} cannot be used: {error.strerror or error}."
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


def set_home(data_dir: Path) -> None:
    """Let libraries keep their caches in `data_dir` if this user has no home directory to write to.

    Containers that run as an arbitrary user have none. A Hub cache in the home directory is still read."""
    try:
        home = Path.home()
    except RuntimeError:
        home = None
    if home is not None and os.access(home, os.W_OK):
        return
    if home is not None and (home / ".cache" / "huggingface").is_dir():
        os.environ.setdefault("HF_HOME", str(home / ".cache" / "huggingface"))
    os.environ["HOME"] = str(data_dir.resolve())
    os.environ.setdefault("USER", "lora-compose")


def listen(config: ServerConfig) -> tuple[list[socket.socket], list[socket.socket]]:
    """Listening sockets of the main port and of the administration port.

    Raises LoraComposeError if an address cannot be used."""
    if config.http.uds is not None:
        main = [_listen_on_path(config.http.uds)]
    else:
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


def _listen_on_path(path: Path) -> socket.socket:
    """A Unix socket that listens. One that a server left behind is replaced."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            _remove_unused(path)
        made.bind(str(path))
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            sentence = f"--uds {path} is in use by another program, or is a file. Choose another --uds."
            raise LoraComposeError(CommandCode.PORT_IN_USE, sentence) from error
        raise LoraComposeError(
            CommandCode.ADDRESS_UNUSABLE, f"--uds {path} cannot be used: {error.strerror or error}."
        ) from error
    made.setblocking(False)
    return made


def _remove_unused(path: Path) -> None:
    """Remove the socket if no program listens on it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


def _unusable(host: str, port: int, host_flag: str, port_flag: str, error: OSError) -> LoraComposeError:
    if error.errno == errno.EADDRINUSE:
        sentence = f"{port_flag} {port} is in use by another program. Choose another {port_flag}."
        return LoraComposeError(CommandCode.PORT_IN_USE, sentence)
    if error.errno == errno.EACCES:
        sentence = f"{port_flag} {port} needs root. Choose a {port_flag} of 1024 or more."
        return LoraComposeError(CommandCode.ADDRESS_UNUSABLE, sentence)
    sentence = f"{host_flag} {host} with {port_flag} {port} cannot be used: {error.strerror}."
    return LoraComposeError(CommandCode.ADDRESS_UNUSABLE, sentence)
