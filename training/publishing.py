"""A finished run into the registry, on this machine or of a running server, with how it came about.

The alias moves only where the requirements hold; without an alias, what does not hold them is not registered,
since a bare name means its newest version.
"""

import json
from pathlib import Path
from typing import Any

from lora_compose.adapters.command_line import default_data_dir
from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.peft.files import CONFIG_FILE, WEIGHTS_FILE
from lora_compose.server.client.http import Client
from lora_compose.training.evaluation.requirements import parse_requirements, unmet
from lora_compose.training.recipe import PublishArguments
from lora_compose.training.run import FinishedRun
from lora_compose.training.run_record import FinishedRecord


def publish(run: FinishedRun, asked: PublishArguments, api_key: str | None = None) -> dict[str, Any]:
    """`{"id", "alias", "unmet"}`: the version (None: not registered), the alias moved, what is missed."""
    assert asked.publish is not None
    missed = unmet(parse_requirements(asked.require), run.scores) if asked.require else []
    if missed and asked.alias is None:
        return {"id": None, "alias": None, "unmet": missed}
    alias = asked.alias if not missed else None
    lineage = lineage_of(run.record, missed)
    if asked.publish_url is not None:
        version = _over_http(run.adapter, asked, alias, lineage, api_key)
    else:
        version = _on_this_machine(run, asked, alias, lineage)
    return {"id": version, "alias": alias, "unmet": missed}


def lineage_of(record: FinishedRecord, missed: list[str]) -> dict[str, Any]:
    """What is kept of a run with its adapter. A source is kept by its file name, without its directory."""
    settings = record.settings
    return {
        "method": record.method,
        "base": Path(record.base).name,
        "data": [
            source.model_dump() | {"source": Path(source.source).name} for source in record.data.sources
        ],
        "mix": [share.model_dump() for share in record.data.mix],
        "recipe": {
            **{
                name: settings.training.get(name)
                for name in ("learning_rate", "max_steps", "num_train_epochs", "seed", "beta")
            },
            **{name: settings.model[name] for name in ("lora_r", "lora_alpha", "use_rslora", "load_in_4bit")},
        },
        "steps": record.steps,
        "scores": record.scores,
        "base_scores": record.base_scores,
        "missed": missed,
        "versions": record.versions,
    }


def _over_http(
    directory: Path, asked: PublishArguments, alias: str | None, lineage: dict[str, Any], api_key: str | None
) -> str:
    fields = {"name": str(asked.publish), "lineage": json.dumps(lineage)}
    if alias is not None:
        fields["alias"] = alias
    with (
        Client(str(asked.publish_url), api_key) as client,
        (directory / CONFIG_FILE).open("rb") as config,
        (directory / WEIGHTS_FILE).open("rb") as weights,
    ):
        return str(client.upload(fields, {CONFIG_FILE: config, WEIGHTS_FILE: weights})["id"])


def _on_this_machine(
    run: FinishedRun, asked: PublishArguments, alias: str | None, lineage: dict[str, Any]
) -> str:
    import torch

    from lora_compose.adapters.admission.admit import AdmissionLimits, admit
    from lora_compose.adapters.admission.base_model import BaseShapes
    from lora_compose.adapters.registry.registry import Registry

    base = Path(run.record.base)
    if not base.is_dir():
        raise LoraComposeError(
            CommandCode.BASE_NOT_LOCAL,
            "Publishing without a server needs the base as a directory: give publish_url.",
            "publish",
        )
    shapes = BaseShapes.of(base, base.name)
    limits = AdmissionLimits(max_lora_rank=run.record.settings.model["lora_r"], dtype=torch.float32)
    data_dir = Path(asked.data_dir) if asked.data_dir else default_data_dir()
    with (
        Registry(data_dir) as registry,
        registry.stage(run.adapter / CONFIG_FILE, run.adapter / WEIGHTS_FILE) as staged,
    ):
        admission = admit(staged, shapes, limits)
        told = {"base_fingerprint": shapes.fingerprint, "training": lineage}
        version, _ = registry.register(
            str(asked.publish), staged, admission, f"train:{run.record.method}", told, alias
        )
        return version.id
