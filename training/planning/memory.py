"""The memory one device needs for a training step, part by part, from shapes alone. Pure, and in bytes.

The parts are added up: gradients and activations are held together as soon as gradients are accumulated over
more than one step; without that, the true peak of full fine-tuning is lower.

What a training step keeps of its forward pass, from the architecture.

Counted term by term as autograd keeps it for Hugging Face's blocks, after arXiv 2205.05198 (section 4), whose
34·s·b·h is the same count for GPT with a two-matrix MLP and dropout everywhere. Per token of a block, with h
hidden, q = heads·head_dim, k = kv_heads·head_dim, f = intermediate, c the bytes of the compute dtype:

- each norm: its input in float32, 4h, and where its weight is trained the normalised input, w·h
- attention (sdpa): rotated queries, keys, values and the output, c·(2q + 2k), and 4·heads for the softmax
- attention (eager): the same and the probabilities, heads·seq·(4 + c)
- MLP: gate and up projections and the activated gate, 3·c·f; GPT-2's GELU in its elementary steps 4·c·f
- the input of each trained linear layer, c·width once a group that shares it, or one copy a layer where
  dropout or a cast makes its own; an adapter's r numbers beside it

With checkpointing only each block's input is kept, w·h, and one block at a time is computed again. The peak
is what is kept and the larger of two moments: the loss, or a block's backward pass.

Bytes of a linear layer in bitsandbytes' NF4: QLoRA, arXiv 2305.14314, section 3.

Memory on each of several cards under FSDP (fully sharded data parallel), more roughly than one card's.

What is resident is cut into as many shards as there are cards; activations are not, every card has a batch of
its own. While a block works its weights are gathered whole, the next one's too; embeddings and the head are
one unit that is gathered for the loss. Not measured here; Answer.AI trained 70B on two 24 GB cards with
offloading (2024-03), which is also what this says.
"""

from dataclasses import dataclass, fields
from math import ceil
from typing import Final

from lora_compose.training.planning.architectures import Group, Linear, ModelShape
from lora_compose.training.planning.settings import ADAM_8, PlanSettings

TILE_TOKENS = 4096
TILE_VOCABULARY = 32768
"""TRL's loss works on tiles of at most so many tokens and logits."""
CPU_TILES = 8
"""How many such tiles torch's own operations hold at a time, where there is no kernel for it."""


def kept_activations(shape: ModelShape, settings: PlanSettings) -> int:
    """Bytes the step holds at the end of its forward pass."""
    ends = shape.hidden * (4 + settings.weight_bytes)  # the last norm's input and output
    inputs = shape.hidden * settings.weight_bytes
    a_block = inputs if settings.gradient_checkpointing else layer_bytes(shape, settings)
    return ceil(settings.tokens * (shape.layers * a_block + ends))


def layer_bytes(shape: ModelShape, settings: PlanSettings) -> float:
    """Of one block, a token."""
    inputs = sum(_input_bytes(group, settings) for group in shape.groups)
    return _norms(shape, settings) + _attention(shape, settings) + _mlp(shape, settings) + inputs


def _norms(shape: ModelShape, settings: PlanSettings) -> int:
    own = settings.weight_bytes if settings.method == "full" else 0
    width = shape.norms * shape.hidden
    if shape.head_norms:
        width += shape.queries + shape.keys
    return width * (4 + own)


def _attention(shape: ModelShape, settings: PlanSettings) -> int:
    c = settings.compute_bytes
    kept = c * (2 * shape.queries + 2 * shape.keys) + 4 * shape.heads
    if settings.attention == "eager":
        kept += shape.heads * settings.seq_len * (4 + c)
    return kept


def _mlp(shape: ModelShape, settings: PlanSettings) -> int:
    return settings.compute_bytes * shape.intermediate * (3 if shape.gated else 4)


def _input_bytes(group: Group, settings: PlanSettings) -> float:
    trained = sum(settings.trains(linear) for linear in group.linears)
    if not trained:
        return 0
    adapted = settings.method != "full"
    kept = settings.adapter_bytes * settings.rank * trained if adapted else 0
    if _has_own_copies(settings):
        size = min(settings.compute_bytes, settings.adapter_bytes) if adapted else settings.compute_bytes
        mask = 1 if adapted and settings.lora_dropout else 0
        return kept + trained * group.width * (size + mask)
    if group.source == "attention":  # the attention keeps its output anyway
        return kept
    return kept + group.width * settings.compute_bytes


def _has_own_copies(settings: PlanSettings) -> bool:
    """Whether each trained layer turns the input it shares into a copy of its own."""
    if settings.method == "full":
        return settings.weight_bytes != settings.compute_bytes
    return settings.adapter_bytes != settings.compute_bytes or settings.lora_dropout > 0


def backward_working(shape: ModelShape, settings: PlanSettings) -> int:
    """Gradients of one block's own tensors: the residual's, and two of the MLP's beside one it replaces.

    With checkpointing, the block's tensors too, computed again."""
    gradients = settings.compute_bytes * (2 * shape.hidden + 2 * shape.intermediate)
    again = layer_bytes(shape, settings) if settings.gradient_checkpointing else 0
    return ceil(settings.tokens * (gradients + again))


def loss_bytes(shape: ModelShape, settings: PlanSettings) -> int:
    """Logits and what the loss makes of them.

    All at once: the logits in the compute dtype, their log-softmax and their gradient in float32. In tiles,
    as TRL's SFT and DPO do it: one tile, and float32 gradients of the hidden states and of a trained head."""
    if settings.full_logits:
        return settings.tokens * shape.vocab * (settings.compute_bytes + 4 + 4)
    rows = min(settings.tokens, TILE_TOKENS)
    grad = shape.hidden * 4 * (settings.tokens + (shape.vocab if settings.method == "full" else 0))
    if settings.device == "cpu":
        return rows * min(shape.vocab, TILE_VOCABULARY) * 4 * CPU_TILES + grad
    return rows * TILE_VOCABULARY * settings.compute_bytes + grad


BLOCK: Final = 64
"""Weights that share one scale."""
NESTED_BLOCK: Final = 256
"""Scales that share one scale, under double quantization."""
CODE_BYTES: Final = 16 * 4
"""The sixteen values of NF4."""
NESTED_CODE_BYTES: Final = 256 * 4 + 4
"""The values of an 8-bit scale, and the mean that is taken off the scales first."""


def nf4_bytes(linear: Linear) -> int:
    """The packed weights: two a byte."""
    return ceil(linear.weights / 2)


def constant_bytes(linear: Linear, double_quant: bool) -> int:
    """What it takes to read them: 0.5 bits a weight, or 8/64 + 32/(64 * 256) = 0.127 quantized twice."""
    scales = ceil(linear.weights / BLOCK)
    if not double_quant:
        return scales * 4 + CODE_BYTES
    return scales + ceil(scales / NESTED_BLOCK) * 4 + CODE_BYTES + NESTED_CODE_BYTES


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


def memory_of(shape: ModelShape, settings: PlanSettings) -> Memory:
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


def weight_bytes(shape: ModelShape, settings: PlanSettings) -> int:
    """Quantized: the blocks' linear layers alone. The embeddings, the head, norms and biases stay."""
    if settings.method != "qlora":
        return shape.parameters * settings.weight_bytes
    packed = shape.layers * sum(nf4_bytes(linear) for linear in shape.linears)
    quantized = shape.layers * sum(linear.weights for linear in shape.linears)
    return packed + (shape.parameters - quantized) * settings.weight_bytes


def quantization_constants(shape: ModelShape, settings: PlanSettings) -> int:
    if settings.method != "qlora":
        return 0
    return shape.layers * sum(constant_bytes(linear, settings.double_quant) for linear in shape.linears)


def trained_parameters(shape: ModelShape, settings: PlanSettings) -> tuple[int, int]:
    """How many parameters get gradients, and the bytes of one: r * (d_in + d_out) for each adapted layer."""
    if settings.method == "full":
        return shape.parameters, settings.weight_bytes
    adapted = sum(linear.d_in + linear.d_out for linear in shape.linears if settings.trains(linear))
    return shape.layers * settings.rank * adapted, settings.adapter_bytes


def optimizer_bytes(trained: int, size: int, settings: PlanSettings) -> int:
    """Adam's two states, in the parameter's dtype or in 8 bits."""
    return ceil(trained * ADAM_8_BYTES) if settings.optimizer in ADAM_8 else trained * 2 * size


def working_bytes(shape: ModelShape, settings: PlanSettings, activations: int) -> int:
    """The largest of what the loss, a block's backward pass and the optimizer's step need for a moment.

    The step comes when activations are gone; `adamw_torch` makes a copy of what it trains on a GPU."""
    backward = backward_working(shape, settings) + _matrix_copies(shape, settings)
    trained, size = trained_parameters(shape, settings)
    step = trained * size if settings.optimizer == "adamw_torch" and settings.device == "cuda" else 0
    return max(loss_bytes(shape, settings), backward, step - activations)


def _matrix_copies(shape: ModelShape, settings: PlanSettings) -> int:
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


def _overhead(settings: PlanSettings, changing: int) -> int:
    return 0 if settings.device == "cpu" else CONTEXT_BYTES + ceil(FRAGMENTATION * changing)


BLOCKS_AT_ONCE = 2
"""The one at work and the one that is fetched meanwhile."""


def per_card(shape: ModelShape, settings: PlanSettings, cards: int, offload: bool = False) -> int:
    """Bytes on each of `cards`. With `offload`, what is resident lives in host memory between uses."""
    memory = memory_of(shape, settings)
    changing = memory.activations + memory.working + memory.overhead
    resident = 0 if offload else memory.resident // cards
    return resident + changing + _gathered(shape, settings, memory.quantization_constants)


def _gathered(shape: ModelShape, settings: PlanSettings, constants: int) -> int:
    ends = (shape.embedding_parameters + shape.head_parameters) * settings.weight_bytes
    blocks = weight_bytes(shape, settings) + constants - ends
    return ends + BLOCKS_AT_ONCE * blocks // shape.layers
