"""Where metrics go beside run.json (`report_to`): TensorBoard, MLflow, Weights & Biases, and others."""

from importlib.util import find_spec
from typing import Any, Final

from lora_compose.adapters.errors import CommandCode, LoraComposeError

PACKAGES: Final = {
    "tensorboard": "tensorboard",
    "mlflow": "mlflow",
    "wandb": "wandb",
    "trackio": "trackio",
    "comet_ml": "comet_ml",
    "swanlab": "swanlab",
}
"""The package that a reporter needs, by the name in `report_to`."""


def check_reporters(report_to: Any) -> None:
    """Raises LoraComposeError("package_missing") for a reporter whose package is not installed."""
    names = [report_to] if isinstance(report_to, str) else list(report_to or [])
    missing = [PACKAGES[name] for name in names if name in PACKAGES and find_spec(PACKAGES[name]) is None]
    if missing:
        raise LoraComposeError(
            CommandCode.PACKAGE_MISSING,
            f"report_to needs {' and '.join(missing)}, which is not installed. Install it with: "
            f"python -m pip install {' '.join(missing)}",
            "report_to",
        )
