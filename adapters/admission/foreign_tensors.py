"""Says which tool or mistake gave a tensor a name that is not that of a LoRA factor, and what to do."""

import re

from lora_compose.adapters.admission.base_model import BaseShapes

_CONVERT = "Convert it with `lora-compose adapters convert DIR OUT --model BASE`"
_IMAGES = "This server serves language models"
_SAVE = "Save the adapter with PEFT's save_pretrained"

# (pattern in the name, what it is, what to do)
_NAMES: tuple[tuple[str, str, str], ...] = (
    (r"^lora_(unet|te\d?|transformer)_", "belongs to a LoRA of kohya's scripts for image models", _IMAGES),
    (r"^(unet|text_encoder(_2)?)\.", "belongs to a LoRA of an image model (diffusers)", _IMAGES),
    (r"\.lora_(down|up)\.|\.alpha$", "has kohya's name for a factor", "Write it as PEFT's lora_A or lora_B"),
    (r"hada_w[12]|lokr_w[12]", "belongs to LoHa or LoKr", _CONVERT),
    (r"vera_(lambda|A|B)", "belongs to VeRA", _CONVERT),
    (r"\.lora_E|ranknum", "belongs to AdaLoRA", "Train a LoRA"),
    (r"ia3_l", "belongs to (IA)3, which multiplies activations", "Train a LoRA"),
    (
        r"^prompt_(embeddings|encoder)|adaption_(prompt|gate)",
        "adds virtual tokens to the prompt",
        "Train a LoRA",
    ),
    (r"\.b?oft_[rRs]", "belongs to OFT or BOFT, which rotate weights", "Train a LoRA"),
    (r"\.lora_[ab]$", "is of MLX (mlx_lm)", "Transpose it, and give it PEFT's name"),
    (r"^blk\.\d+\.", "has a name of llama.cpp (GGUF)", "Register the PEFT adapter that it was made from"),
    (r"_orig_mod\.", "has the prefix of torch.compile", f"{_SAVE} before compiling, or remove the prefix"),
    (
        r"^module\.|_fsdp_wrapped_module\.|_forward_module\.",
        "has the prefix of a wrapper (DDP, FSDP, DeepSpeed)",
        f"{_SAVE} from the unwrapped model, or remove the prefix",
    ),
    (r"^base_model\.model\.base_model\.", "has PEFT's prefix twice", f"{_SAVE}, or remove one prefix"),
    (
        r"^(?!base_model\.model\.).*\.lora_[AB](\.[^.]+)?\.weight$",
        "lacks the prefix base_model.model., so PEFT ignores it",
        f"{_SAVE}, or add the prefix",
    ),
    (
        r"^(?!.*(lora|adapter)).*\.(weight|bias)$",
        "is a weight of the model itself",
        "If the file has a whole model, serve it with `lora-compose serve --model DIR`",
    ),
)


def what_tensor_is(tensor: str) -> str:
    """What a tensor is whose name is not that of a factor, and what to do, to follow its name."""
    for pattern, what, advice in _NAMES:
        if re.search(pattern, tensor):
            return f"{what}. {advice}"
    wanted = "base_model.model.<module>.lora_A.weight or .lora_B.weight, as PEFT writes it"
    return f"is not a LoRA factor. Its name must be {wanted}"


def other_prefix(module: str, base: BaseShapes) -> str:
    """A hint if the base has the module under a longer or shorter name, or nothing."""
    for known in base.linears:
        if known.endswith(f".{module}"):
            return f". The base calls it {known}: the adapter was trained on the model without its head"
        if module.endswith(f".{known}"):
            return f". The base calls it {known}: the adapter was trained on a model that contains this one"
    return ""
