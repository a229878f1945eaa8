"""Registers the adapters of `--lora-modules` when the server starts, as versions like all others.

The person who starts the server names them, so their places need no --adapter-root and no --allow-hf: these
two options limit clients. The checks of the files are the same.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.registry.store import Version
from lora_compose.server.options.lora_modules import LoraModule
from lora_compose.server.registration import Offer, Registration

logger = logging.getLogger(__name__)


def register_modules(
    registration: Registration, modules: Sequence[LoraModule], base_names: Collection[str]
) -> None:
    """Register each. Files that are registered already stay the version that they are.

    Raises LoraComposeError that names the first adapter that is refused. `base_names` are all names of the
    base, the directory or hub id of the model included.
    """
    anywhere = replace(registration, adapter_roots=(Path("/"),), allow_hf=True)
    for module in modules:
        if module.base_model_name is not None and module.base_model_name not in base_names:
            raise LoraComposeError(
                CommandCode.INVALID_OPTION,
                f"--lora-modules {module.name}: base_model_name {module.base_model_name} is not served here.",
            )
        try:
            version = _register(anywhere, module)
        except LoraComposeError as error:
            sentence = f"--lora-modules {module.name}={module.path}: {error.message}"
            raise LoraComposeError(error.code, sentence) from error
        _report(version, registration.registry.versions(version.name)[-1])


def _register(registration: Registration, module: LoraModule) -> Version:
    offer = Offer(module.name)
    if module.directory is None:
        return registration.from_hub(offer, module.path)[0]
    return registration.from_path(offer, str(module.directory))[0]


def _report(version: Version, newest: Version) -> None:
    logger.info("registered %s from --lora-modules", version.id)
    if newest.id != version.id:
        logger.warning(
            "%s means %s, which was registered after %s of --lora-modules. Requests can name %s",
            version.name,
            newest.id,
            version.id,
            version.id,
        )
