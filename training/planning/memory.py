"""The memory one device needs for a training step, part by part, from shapes alone. Pure, and in bytes.

The parts are added up: gradients and activations are held together as soon as gradients are accumulated over
more than one step; without that, the true peak of full fine-tuning is lower.
"""

from dataclasses import dataclass, fields
from math import ceil

from training.planning.activations import backward_working, kept_activations, loss_bytes
from training.planning.quantization import constant_bytes, nf4_bytes
from training.planning.settings import ADAM_8, Settings
from training.planning.shapes import ModelShape

GIB = 1 << 30
ADAM_8_BYTES = 2 * (1 + 4 / 256)
"""Two states of a byte, and a float32 scale each 256 (arXiv 2110.02861)."""
CONTEXT_BYTES = GIB * 3 // 4
"""CUDA's context, kernels and cuBLAS workspaces."""
FRAGMENTATION = 0.05
"""An allowance, not measured: of what each step allocates anew, what the allocator cannot reuse."""


@dataclass(frozen=True)
class Memory:
    """Bytes by part. What they hold is said in docs/planning.md."""

    weights: int
    """Of the base; under QLoRA the quantized ones and those that stay as they are."""
    quantization_constants: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    """Held from the forward pass to the backward pass."""
    working: int
    """Alive for a moment: the larger of the loss's and of a block's backward pass."""
    overhead: int
    """The device's context and the allocator's waste."""

    @property
    def total(self) -> int:
        return sum(self.parts().values())

    @property
    def resident(self) -> int:
        """What is there between steps, whatever the batch."""
        return self.weights + self.quantization_constants + self.adapter + self.gradients + self.optimizer

    def parts(self) -> dict[str, int]:
        """By name, in the order they are printed."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def memory_of(shape: ModelShape, settings: Settings) -> Memory:
    """What `shape` needs under `settings`. LoraComposeError for a target module the model does not have."""
    settings.check_targets(shape)
    constants = quantization_constants(shape, settings)
    activations = kept_activations(shape, settings)
    working = working_bytes(shape, settings, activations)
    trained, size = trained_parameters(shape, settings)
    return Memory(
        weights=weight_bytes(shape, settings),
        quantization_constants=constants,
        adapter=0 if settings.method == "full" else trained * size,
        gradients=trained * size,
        optimizer=optimizer_bytes(trained, size, settings),
        activations=activations,
        working=working,
        overhead=_overhead(settings, activations + working),
    )


def weight_bytes(shape: ModelShape, settings: Settings) -> int:
    """Quantized: the blocks' linear layers alone. The embeddings, the head, norms and biases stay."""
    if settings.method != "qlora":
        return shape.parameters * settings.weight_bytes
    packed = shape.layers * sum(nf4_bytes(linear) for linear in shape.linears)
    quantized = shape.layers * sum(linear.weights for linear in shape.linears)
    return packed + (shape.parameters - quantized) * settings.weight_bytes


def quantization_constants(shape: ModelShape, settings: Settings) -> int:
    if settings.method != "qlora":
        return 0
    return shape.layers * sum(constant_bytes(linear, settings.double_quant) for linear in shape.linears)


def trained_parameters(shape: ModelShape, settings: Settings) -> tuple[int, int]:
    """How many parameters get gradients, and the bytes of one: r * (d_in + d_out) for each adapted layer."""
    if settings.method == "full":
        return shape.parameters, settings.weight_bytes
    adapted = sum(linear.d_in + linear.d_out for linear in shape.linears if settings.trains(linear))
    return shape.layers * settings.rank * adapted, settings.adapter_bytes


def optimizer_bytes(trained: int, size: int, settings: Settings) -> int:
    """Adam's two states, in the parameter's dtype or in 8 bits."""
    return ceil(trained * ADAM_8_BYTES) if settings.optimizer in ADAM_8 else trained * 2 * size


def working_bytes(shape: ModelShape, settings: Settings, activations: int) -> int:
    """The largest of what the loss, a block's backward pass and the optimizer's step need for a moment.

    The step comes when activations are gone; `adamw_torch` makes a copy of what it trains on a GPU."""
    backward = backward_working(shape, settings) + _matrix_copies(shape, settings)
    trained, size = trained_parameters(shape, settings)
    step = trained * size if settings.optimizer == "adamw_torch" and settings.device == "cuda" else 0
    return max(loss_bytes(shape, settings), backward, step - activations)


def _matrix_copies(shape: ModelShape, settings: Settings) -> int:
    largest = max(linear.weights for linear in shape.linears)
    if settings.method == "qlora":
        return largest * settings.compute_bytes
    copies = 0
    if (
        settings.weight_bytes != settings.compute_bytes
    ):  # autocast's: of all layers, or of the one computed again
        layers = 1 if settings.gradient_checkpointing and settings.method != "full" else shape.layers
        copies = layers * sum(linear.weights for linear in shape.linears) * settings.compute_bytes
    if settings.method == "full":  # a gradient before it is added to the one accumulated
        copies += max(largest, shape.vocab * shape.hidden) * settings.weight_bytes
    return copies


def _overhead(settings: Settings, changing: int) -> int:
    return 0 if settings.device == "cpu" else CONTEXT_BYTES + ceil(FRAGMENTATION * changing)
