"""Register the adapter of a finished run, in the registry on this machine or at a running server.

The alias moves only if the scores meet the requirements. Without an alias, an adapter that misses a
requirement is not registered, because a name without a version means the newest version.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from lora_compose.adapters.command_line import default_data_dir
from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.peft.files import CONFIG_FILE, WEIGHTS_FILE
from lora_compose.server.client.http import Client
from lora_compose.training.evaluation.requirements import parse_requirements, unmet
from lora_compose.training.recipe_options import PublishArguments
from lora_compose.training.run import FinishedRun, PreparedRun, save_adapter
from lora_compose.training.run_record import FinishedRecord, RunRecord

if TYPE_CHECKING:
    from lora_compose.adapters.admission.admit import Admission
    from lora_compose.adapters.admission.base_model import BaseShapes


TRAINING_FACTS: Final = (
    "learning_rate",
    "max_steps",
    "num_train_epochs",
    "seed",
    "beta",
    "desirable_weight",
    "undesirable_weight",
)
"""Settings of training that are registered with the adapter."""


ALL_ZERO = (
    "every delta is zero, so the adapter does not change the base; check the learning rate and the steps"
)


def check_target(target: PublishArguments, api_key: str | None = None) -> None:
    """Check that the registry or the server can be reached, before the base is loaded.

    Raises the errors of the registry, for example if a server owns its data directory, or of the client.
    """
    if target.publish is None:
        return
    if target.publish_url is not None:
        with Client(str(target.publish_url), api_key) as client:
            client.models()
        return
    from lora_compose.adapters.registry.registry import Registry

    with Registry(_data_dir(target)):
        pass


def check_adapter(run: PreparedRun, target: PublishArguments) -> None:
    """Check that the registry would admit the adapter before its first step.

    Raises LoraComposeError("base_not_local"), or AdapterRejected with what is not supported.
    """
    base = Path(run.record.base)
    if target.publish is None or (target.publish_url is not None and not base.is_dir()):
        return
    with TemporaryDirectory(prefix="lora-compose-check-") as scratch:
        save_adapter(run, Path(scratch))
        _admit(run.record, Path(scratch))


def publish(run: FinishedRun, target: PublishArguments, api_key: str | None = None) -> dict[str, Any]:
    """Register the adapter. The result has `id`, `alias` and `unmet`.

    `id` is the version, None if the adapter was not registered. `alias` is the alias that was moved, or None.
    `unmet` lists the requirements that are missed.
    """
    assert target.publish is not None
    if changes_nothing(run.adapter):
        return {"id": None, "alias": None, "unmet": [ALL_ZERO]}
    missed = unmet(parse_requirements(target.require), run.scores) if target.require else []
    if missed and target.alias is None:
        return {"id": None, "alias": None, "unmet": missed}
    alias = target.alias if not missed else None
    lineage = lineage_of(run.record, missed) | base_facts(run.record)
    if target.publish_url is not None:
        version = _over_http(run.adapter, target, alias, lineage, api_key)
    else:
        version = _on_this_machine(run, target, alias, lineage)
    return {"id": version, "alias": alias, "unmet": missed}


def changes_nothing(directory: Path) -> bool:
    """Whether every lora_B of an adapter is zero and it has no other tensors that change the base."""
    from safetensors import safe_open

    with safe_open(directory / WEIGHTS_FILE, framework="pt") as weights:
        names = [name for name in weights.keys() if ".lora_A." not in name]  # noqa: SIM118
        plain = all(".lora_B.weight" in name for name in names)
        return plain and not any(bool(weights.get_tensor(name).any()) for name in names)


def lineage_of(record: FinishedRecord, missed: list[str]) -> dict[str, Any]:
    """The facts of a run that are registered with its adapter.

    Sources have file names without directories.
    """
    settings = record.settings
    return {
        "method": record.method,
        "base": Path(record.base).name,
        "data": [
            source.model_dump() | {"source": Path(source.source).name} for source in record.data.sources
        ],
        "mix": [share.model_dump() for share in record.data.mix],
        "recipe": {
            **{name: settings.training.get(name) for name in TRAINING_FACTS},
            **{name: settings.model[name] for name in ("lora_r", "lora_alpha", "use_rslora", "load_in_4bit")},
        },
        "steps": record.steps,
        "scores": record.scores,
        "base_scores": record.base_scores,
        "missed": missed,
        "versions": record.versions,
    }


def base_facts(record: FinishedRecord) -> dict[str, str]:
    """The fingerprint of the base, so that a server knows on which weights the adapter was trained.

    Empty if the files of the base were not on this machine."""
    return {} if record.base_fingerprint is None else {"base_fingerprint": record.base_fingerprint}


def _over_http(
    directory: Path, target: PublishArguments, alias: str | None, lineage: dict[str, Any], api_key: str | None
) -> str:
    fields = {"name": str(target.publish), "lineage": json.dumps(lineage)}
    if alias is not None:
        fields["alias"] = alias
    with (
        Client(str(target.publish_url), api_key) as client,
        (directory / CONFIG_FILE).open("rb") as config,
        (directory / WEIGHTS_FILE).open("rb") as weights,
    ):
        return str(client.upload(fields, {CONFIG_FILE: config, WEIGHTS_FILE: weights})["id"])


def _admit(record: RunRecord, directory: Path) -> "tuple[Admission, BaseShapes]":
    """Check the adapter in `directory` as a registry for the run's base does."""
    import torch

    from lora_compose.adapters.admission.admit import AdmissionLimits, admit
    from lora_compose.adapters.admission.base_model import BaseShapes

    base = Path(record.base)
    if not base.is_dir():
        raise LoraComposeError(
            CommandCode.BASE_NOT_LOCAL,
            "To publish without a server, the base model must be a local directory. Otherwise give "
            "publish_url.",
            "publish",
        )
    shapes = BaseShapes.of(base, base.name)
    limits = AdmissionLimits(max_lora_rank=record.settings.model["lora_r"], dtype=torch.float32)
    return admit(directory, shapes, limits), shapes


def _data_dir(target: PublishArguments) -> Path:
    return Path(target.data_dir) if target.data_dir else default_data_dir()


def _on_this_machine(
    run: FinishedRun, target: PublishArguments, alias: str | None, lineage: dict[str, Any]
) -> str:
    from lora_compose.adapters.registry.registry import Registry
    from lora_compose.adapters.registry.store import Base
    from lora_compose.adapters.registry.versions import Terms

    with (
        Registry(_data_dir(target)) as registry,
        registry.stage(run.adapter / CONFIG_FILE, run.adapter / WEIGHTS_FILE) as staged,
    ):
        admission, shapes = _admit(run.record, staged)
        facts = {"base_model_name_or_path": admission.base_model_name_or_path, "training": lineage}
        terms = Terms(alias, Base(shapes.fingerprint, shapes.name))
        version, _ = registry.register(
            str(target.publish), staged, admission, f"train:{run.record.method}", facts, terms
        )
        return version.id
