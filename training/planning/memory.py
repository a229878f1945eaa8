"""The memory that one device needs for a training step, in bytes, part by part, from the model's shape.

The total is the sum of the parts. Gradients and activations are in memory together if gradients are
accumulated over more than one step. Without accumulation, the true peak of full fine-tuning is lower.

Activations are the tensors that autograd keeps for Hugging Face's blocks, counted term by term after arXiv
2205.05198 (section 4). Its 34·s·b·h is the same count for GPT with a two-matrix MLP and dropout everywhere.
For each token and block, with h = hidden, q = heads·head_dim, k = kv_heads·head_dim, f = intermediate, c =
bytes of the compute dtype, w = bytes of the weights' dtype:

- each norm: its input in float32, 4h; if its weight is trained, also the normalised input, w·h
- attention (sdpa): rotated queries, keys, values and the output, c·(2q + 2k) (with latent
  attention, the widths of its heads), and 4·heads for the softmax
- attention (eager): the same and the probabilities, heads·seq·(4 + c)
- MLP: gate and up projections and the activated gate, 3·c·f; GPT-2's GELU in elementary steps, 4·c·f; in a
  mixture, f is that of the experts that work on a token, whose copies and results take 2·active·c·h more, and
  the router's scores 8 bytes an expert
- input of the trained linear layers: c·width for each group that shares it, or one copy for each layer if
  dropout or a cast makes a copy; and r numbers for each adapter

With checkpointing, only each block's input is kept, w·h, and one block at a time is computed again. The
working memory is the larger of two peaks: the loss, or the backward pass of a block.

NF4 is the 4-bit format of bitsandbytes: QLoRA, arXiv 2305.14314, section 3.

The plan for several cards under FSDP (fully sharded data parallel) is less exact. Weights, gradients and
optimizer states are split over the cards. Activations are not, because every card has its own batch. While a
block works, its weights and those of the next block are gathered on every card. Embeddings and head are
gathered as one unit for the loss. This was not measured here. Answer.AI trained 70B on two 24 GB cards with
offloading (2024-03), and the plan gives the same result.
"""

from dataclasses import dataclass, fields
from math import ceil
from typing import Final

from lora_compose.training.planning.settings import ADAM_8, PlanSettings
from lora_compose.training.planning.shapes import Block, Group, Linear, ModelShape

TILE_TOKENS = 4096
TILE_VOCABULARY = 32768
"""TRL computes the loss in tiles of at most this many tokens and logits."""
CPU_TILES = 8
"""Tiles in memory at the same time on a CPU, where torch's own operations replace the kernel."""


def kept_activations(shape: ModelShape, settings: PlanSettings) -> int:
    """Bytes in memory at the end of the forward pass."""
    ends = shape.hidden * (4 + settings.weight_bytes)  # the last norm's input and output
    if settings.gradient_checkpointing:
        blocks: float = shape.layers * shape.hidden * settings.weight_bytes
    else:
        blocks = sum(block.count * layer_bytes(shape, block, settings) for block in shape.blocks)
    return ceil(settings.tokens * (blocks + ends))


def layer_bytes(shape: ModelShape, block: Block, settings: PlanSettings) -> float:
    """Bytes of the activations of one block, for each token."""
    inputs = sum(_input_bytes(group, settings) for group in block.groups)
    return (
        _norms(shape, block, settings) + _attention(shape, settings) + _mlp(shape, block, settings) + inputs
    )


def _norms(shape: ModelShape, block: Block, settings: PlanSettings) -> int:
    own = settings.weight_bytes if settings.method == "full" else 0
    width = block.norm_width
    if shape.head_norms:
        width += shape.queries + shape.keys
    return width * (4 + own)


def _attention(shape: ModelShape, settings: PlanSettings) -> int:
    c = settings.compute_bytes
    kept = c * (shape.queries + shape.attended + shape.keys + shape.values) + 4 * shape.heads
    if settings.attention == "eager":
        kept += shape.heads * settings.seq_len * (4 + c)
    return kept


def _mlp(shape: ModelShape, block: Block, settings: PlanSettings) -> int:
    inside = block.mlp_width * (3 if shape.gated else 4)
    return settings.compute_bytes * (inside + block.dispatched) + 8 * block.routed


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
    if group.source == "attention":  # this input is the attention's output, which is counted there
        return kept
    return kept + group.width * settings.compute_bytes


def _has_own_copies(settings: PlanSettings) -> bool:
    """Whether dropout or a cast makes a copy of the shared input for each trained layer."""
    if settings.method == "full":
        return settings.weight_bytes != settings.compute_bytes
    return settings.adapter_bytes != settings.compute_bytes or settings.lora_dropout > 0


def backward_working(shape: ModelShape, settings: PlanSettings) -> int:
    """Bytes of the gradients inside one block: of the residual, and of two tensors of the MLP.

    With checkpointing, also the block's activations, which are computed again.
    """

    def of(block: Block) -> float:
        gradients = settings.compute_bytes * (2 * shape.hidden + 2 * block.mlp_width + block.dispatched)
        again = layer_bytes(shape, block, settings) if settings.gradient_checkpointing else 0
        return gradients + again

    return ceil(settings.tokens * max(map(of, shape.blocks)))


def loss_bytes(shape: ModelShape, settings: PlanSettings) -> int:
    """Bytes of the logits and of the tensors that the loss computes from them.

    With full logits: the logits in the compute dtype, and their log-softmax and gradient in float32. In
    tiles, as in TRL's SFT and DPO: one tile, and float32 gradients of the hidden states and of a trained
    head.
    """
    if settings.full_logits:
        capped = 2 * settings.compute_bytes if shape.softcap else 0
        return settings.tokens * shape.vocab * (settings.compute_bytes + 4 + 4 + capped)
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
"""The values of an 8-bit scale, and the mean that is subtracted from the scales before."""


def nf4_bytes(linear: Linear) -> int:
    """Bytes of the packed weights, two in a byte."""
    return ceil(linear.weights / 2)


def constant_bytes(linear: Linear, double_quant: bool) -> int:
    """Bytes of the quantization constants.

    0.5 bits for each weight, or 8/64 + 32/(64 * 256) = 0.127 bits with double quantization.
    """
    scales = ceil(linear.weights / BLOCK)
    if not double_quant:
        return scales * 4 + CODE_BYTES
    return scales + ceil(scales / NESTED_BLOCK) * 4 + CODE_BYTES + NESTED_CODE_BYTES


GIB = 1 << 30
ADAM_8_BYTES = 2 * (1 + 4 / 256)
"""Two states of one byte, and a float32 scale for each 256 values (arXiv 2110.02861)."""
CONTEXT_BYTES = GIB * 3 // 4
"""CUDA's context, kernels and cuBLAS workspaces."""
FRAGMENTATION = 0.05
"""Share of the memory allocated in each step that the allocator cannot reuse. An allowance, not measured."""


@dataclass(frozen=True)
class Memory:
    """Bytes by part. docs/planning.md describes the parts."""

    weights: int
    """Weights of the base; with QLoRA, the quantized weights and those that are not quantized."""
    quantization_constants: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    """Kept from the forward pass to the backward pass."""
    working: int
    """In memory for a short time: the larger of the loss and the backward pass of a block."""
    overhead: int
    """The device's context, and memory that the allocator cannot reuse."""

    @property
    def total(self) -> int:
        return sum(self.parts().values())

    @property
    def resident(self) -> int:
        """Bytes in memory between steps. They do not depend on the batch."""
        return self.weights + self.quantization_constants + self.adapter + self.gradients + self.optimizer

    def parts(self) -> dict[str, int]:
        """The parts by name, in the order in which they are printed."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def memory_of(shape: ModelShape, settings: PlanSettings) -> Memory:
    """The memory for training `shape` with `settings`. Raises what `PlanSettings.check_targets` raises."""
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
    """Bytes of the base's weights.

    QLoRA quantizes only the linear layers of the blocks, and not embeddings, head, norms and biases.
    """
    if settings.method != "qlora":
        return shape.parameters * settings.weight_bytes
    modules = [(block.count, linear) for block in shape.blocks for linear in block.modules]
    packed = sum(count * nf4_bytes(linear) for count, linear in modules)
    quantized = sum(count * linear.weights for count, linear in modules)
    return packed + (shape.parameters - quantized) * settings.weight_bytes


def quantization_constants(shape: ModelShape, settings: PlanSettings) -> int:
    if settings.method != "qlora":
        return 0
    double = settings.double_quant
    return sum(b.count * constant_bytes(linear, double) for b in shape.blocks for linear in b.modules)


def trained_parameters(shape: ModelShape, settings: PlanSettings) -> tuple[int, int]:
    """(number of trained parameters, bytes of one). An adapted matrix has r * (d_in + d_out)."""
    if settings.method == "full":
        return shape.parameters, settings.weight_bytes
    adapted = sum(
        block.count * linear.adapter_width
        for block in shape.blocks
        for linear in block.linears
        if settings.trains(linear)
    )
    return settings.rank * adapted, settings.adapter_bytes


def optimizer_bytes(trained: int, size: int, settings: PlanSettings) -> int:
    """Bytes of Adam's two states, in the parameter's dtype or in 8 bits."""
    return ceil(trained * ADAM_8_BYTES) if settings.optimizer in ADAM_8 else trained * 2 * size


def working_bytes(shape: ModelShape, settings: PlanSettings, activations: int) -> int:
    """The largest of the short peaks of the loss, the backward pass of a block, and the optimizer's step.

    In the optimizer's step, activations are already free. On a GPU, `adamw_torch` copies the trained
    parameters.
    """
    backward = backward_working(shape, settings) + _matrix_copies(shape, settings)
    trained, size = trained_parameters(shape, settings)
    step = trained * size if settings.optimizer == "adamw_torch" and settings.device == "cuda" else 0
    return max(loss_bytes(shape, settings), backward, step - activations)


def _matrix_copies(shape: ModelShape, settings: PlanSettings) -> int:
    largest = max(linear.weights for linear in shape.linears)
    blocks = [(block.count, sum(linear.weights for linear in block.linears)) for block in shape.blocks]
    if settings.method == "qlora":
        modules = (linear.weights for block in shape.blocks for linear in block.modules)
        return max(modules) * settings.compute_bytes
    copies = 0
    if settings.weight_bytes != settings.compute_bytes:
        # Autocast copies the weights of all layers, or of the layer that is computed again.
        is_one = settings.gradient_checkpointing and settings.method != "full"
        weights = max(w for _, w in blocks) if is_one else sum(count * w for count, w in blocks)
        copies = weights * settings.compute_bytes
    if settings.method == "full":  # a new gradient, before it is added to the accumulated one
        copies += max(largest, shape.vocab * shape.hidden) * settings.weight_bytes
    return copies


def _overhead(settings: PlanSettings, changing: int) -> int:
    return 0 if settings.device == "cpu" else CONTEXT_BYTES + ceil(FRAGMENTATION * changing)


BLOCKS_AT_ONCE = 2
"""The block that works, and the next block, which is gathered meanwhile."""


def per_card(shape: ModelShape, settings: PlanSettings, cards: int, offload: bool = False) -> int:
    """Bytes on each of `cards` cards.

    With `offload`, resident parts are in host memory when they are not used.
    """
    memory = memory_of(shape, settings)
    changing = memory.activations + memory.working + memory.overhead
    resident = 0 if offload else memory.resident // cards
    return resident + changing + _gathered(shape, settings, memory.quantization_constants)


def _gathered(shape: ModelShape, settings: PlanSettings, constants: int) -> int:
    ends = (shape.embedding_parameters + shape.head_parameters) * settings.weight_bytes
    blocks = weight_bytes(shape, settings) + constants - ends
    return ends + BLOCKS_AT_ONCE * blocks // shape.layers
