"""The training settings of a plan, named as the options of TRL and PEFT."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.planning.shapes import Linear, ModelShape

Method = Literal["full", "lora", "qlora"]
DType = Literal["float32", "bfloat16", "float16"]
Attention = Literal["sdpa", "eager"]
Device = Literal["cuda", "cpu"]

BYTES: Final[dict[str, int]] = {"float32": 4, "bfloat16": 2, "float16": 2}
ALL_LINEAR: Final = "all-linear"
ADAM_32: Final = ("adamw_torch", "adamw_torch_fused")
ADAM_8: Final = ("adamw_8bit", "paged_adamw_8bit")
OPTIMIZERS: Final = (*ADAM_32, *ADAM_8)


@dataclass(frozen=True)
class PlanSettings:
    """The settings of a plan. Raises LoraComposeError("bad_plan") for invalid values."""

    method: Method = "qlora"
    seq_len: int = 1024
    """Tokens in a row, with padding."""
    batch: int = 1
    """Rows in a step on one device."""
    rank: int = 16
    target_modules: tuple[str, ...] = (ALL_LINEAR,)
    lora_dropout: float = 0.0
    optimizer: str = "adamw_torch_fused"
    gradient_checkpointing: bool = True
    dtype: DType | None = None
    """Type of weights that are not quantized.

    None: float32 for full, as in mixed precision, otherwise bfloat16.
    """
    compute_dtype: DType = "bfloat16"
    """Type of the arithmetic, as set by autocast."""
    double_quant: bool = True
    attention: Attention = "sdpa"
    full_logits: bool = False
    """Compute the loss over all logits at once, as a plain Trainer does. TRL computes it in tiles."""
    device: Device = "cuda"

    def __post_init__(self) -> None:
        for name in ("seq_len", "batch", "rank"):
            if getattr(self, name) < 1:
                raise _bad(f"{name} must be at least 1, not {getattr(self, name)}", name)
        if not 0 <= self.lora_dropout < 1:
            raise _bad(f"lora_dropout must be in [0, 1), not {self.lora_dropout}", "lora_dropout")
        if self.optimizer not in OPTIMIZERS:
            raise _bad(
                f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {self.optimizer!r}", "optimizer"
            )
        if self.method not in get_args(Method):
            raise _bad(f"method must be one of {', '.join(get_args(Method))}, not {self.method!r}", "method")

    @property
    def tokens(self) -> int:
        """Tokens in one step on one device."""
        return self.seq_len * self.batch

    @property
    def weight_bytes(self) -> int:
        """Bytes of a weight that is not quantized."""
        return BYTES[self.dtype or ("float32" if self.method == "full" else "bfloat16")]

    @property
    def compute_bytes(self) -> int:
        return BYTES[self.compute_dtype]

    @property
    def adapter_bytes(self) -> int:
        """Bytes of an adapter's weight. PEFT uses float32; on a quantized base, TRL casts it to bfloat16."""
        return 2 if self.method == "qlora" else 4

    def trains(self, linear: Linear) -> bool:
        """Whether this layer's weights, or the weights of its adapter, are trained."""
        if self.method == "full":
            return True
        in_all = ALL_LINEAR in self.target_modules and linear.in_all_linear
        return in_all or linear.name in self.target_modules

    def check_targets(self, shape: ModelShape) -> None:
        """Raises LoraComposeError("unknown_target_module") for a name that no layer of the model has."""
        names = dict.fromkeys(linear.name for linear in shape.linears)
        for target in self.target_modules:
            if target != ALL_LINEAR and target not in names:
                message = (
                    f"{shape.model_type} does not have a module {target!r}. It has {', '.join(names)}. "
                    f"{ALL_LINEAR} means all of them"
                )
                raise LoraComposeError(CommandCode.UNKNOWN_TARGET_MODULE, message, "target_modules")


def _bad(message: str, param: str) -> LoraComposeError:
    return LoraComposeError(CommandCode.BAD_PLAN, message, param)
