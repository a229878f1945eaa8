"""What a training step keeps of its forward pass, from the architecture.

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
"""

from math import ceil

from training.planning.settings import Settings
from training.planning.shapes import Group, ModelShape

TILE_TOKENS = 4096
TILE_VOCABULARY = 32768
"""TRL's loss works on tiles of at most so many tokens and logits."""
CPU_TILES = 8
"""How many such tiles torch's own operations hold at a time, where there is no kernel for it."""


def kept_activations(shape: ModelShape, settings: Settings) -> int:
    """Bytes the step holds at the end of its forward pass."""
    ends = shape.hidden * (4 + settings.weight_bytes)  # the last norm's input and output
    inputs = shape.hidden * settings.weight_bytes
    a_block = inputs if settings.gradient_checkpointing else layer_bytes(shape, settings)
    return ceil(settings.tokens * (shape.layers * a_block + ends))


def layer_bytes(shape: ModelShape, settings: Settings) -> float:
    """Of one block, a token."""
    inputs = sum(_input_bytes(group, settings) for group in shape.groups)
    return _norms(shape, settings) + _attention(shape, settings) + _mlp(shape, settings) + inputs


def _norms(shape: ModelShape, settings: Settings) -> int:
    own = settings.weight_bytes if settings.method == "full" else 0
    width = shape.norms * shape.hidden
    if shape.head_norms:
        width += shape.queries + shape.keys
    return width * (4 + own)


def _attention(shape: ModelShape, settings: Settings) -> int:
    c = settings.compute_bytes
    kept = c * (2 * shape.queries + 2 * shape.keys) + 4 * shape.heads
    if settings.attention == "eager":
        kept += shape.heads * settings.seq_len * (4 + c)
    return kept


def _mlp(shape: ModelShape, settings: Settings) -> int:
    return settings.compute_bytes * shape.intermediate * (3 if shape.gated else 4)


def _input_bytes(group: Group, settings: Settings) -> float:
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


def _has_own_copies(settings: Settings) -> bool:
    """Whether each trained layer turns the input it shares into a copy of its own."""
    if settings.method == "full":
        return settings.weight_bytes != settings.compute_bytes
    return settings.adapter_bytes != settings.compute_bytes or settings.lora_dropout > 0


def backward_working(shape: ModelShape, settings: Settings) -> int:
    """Gradients of one block's own tensors: the residual's, and two of the MLP's beside one it replaces.

    With checkpointing, the block's tensors too, computed again."""
    gradients = settings.compute_bytes * (2 * shape.hidden + 2 * shape.intermediate)
    again = layer_bytes(shape, settings) if settings.gradient_checkpointing else 0
    return ceil(settings.tokens * (gradients + again))


def loss_bytes(shape: ModelShape, settings: Settings) -> int:
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
