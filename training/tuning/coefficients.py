"""Learn coefficients of a stack by gradient: one for each adapter, each of its layers, or each module.

The members and the base do not change. A module's output is `W x + Σᵢ cᵢ sᵢ Bᵢ Aᵢ x`, and only the cᵢ are
trained, on the answers of composed examples. One coefficient for each adapter and module is the learned
concatenation (CAT) of LoRA Soups (arXiv 2410.13025). The result is one ordinary adapter: the factors are
concatenated, with the coefficients folded into lora_B, which is exact.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.peft.checkpoint import Lora, LoraModule
from lora_compose.training.evaluation.likelihood import IGNORED, answer_ids, answer_logits
from lora_compose.training.evaluation.models import Loaded
from lora_compose.training.evaluation.tasks import Task
from lora_compose.training.tuning.time_budget import TimeBudget

Granularity = Literal["adapter", "layer", "module"]
LAYER: Final = re.compile(r"\.(\d+)\.")
LEARNING_RATE: Final = 0.03
BATCH: Final = 16


@dataclass(frozen=True)
class Stacked:
    """Members with their weights, and one trained coefficient for each member and group of modules."""

    members: tuple[Lora, ...]
    granularity: Granularity
    groups: Mapping[str, str]
    """The group of each module."""
    values: Mapping[str, Tensor]
    """(members,) for each group, float32."""

    @classmethod
    def of(cls, members: Sequence[Lora], weights: Sequence[float], granularity: Granularity) -> "Stacked":
        """Every coefficient starts at the weight of its member.

        Raises AdapterRejected("unsupported_feature") for DoRA, biases and embeddings."""
        modules = [(name, module) for lora in members for name, module in lora.modules.items()]
        if any(m.magnitude is not None or m.bias is not None or m.embedding for _, m in modules):
            message = "Coefficients can be learned for LoRAs of linear layers, without DoRA and lora_bias."
            raise AdapterRejected(Code.UNSUPPORTED_FEATURE, message, "composition")
        groups = {name: _group(name, granularity) for name, _ in modules}
        start = torch.tensor([float(weight) for weight in weights])
        values = {group: start.clone().requires_grad_() for group in dict.fromkeys(groups.values())}
        return cls(tuple(members), granularity, groups, values)

    def check_fits(self, model: Any) -> None:
        """Raises AdapterRejected("wrong_base") if a member was trained on a base of other shapes."""
        for lora in self.members:
            for name, module in lora.modules.items():
                wanted = (module.lora_B.shape[0], module.lora_A.shape[1])
                own = _shape(model, name)
                if sorted(own) != sorted(wanted):
                    has = f"has {own} there" if own else "has no such layer"
                    message = f"An adapter is for {name} of shape {wanted}, and the base {has}"
                    raise AdapterRejected(Code.WRONG_BASE, message, "model")

    def coefficient(self, member: int, module: str) -> Tensor:
        """A scalar, with its gradient."""
        return self.values[self.groups[module]][member]

    @contextmanager
    def on(self, model: Any) -> Iterator[None]:
        """Add the members to the outputs of the model's layers while the context is open."""
        handles = [
            model.get_submodule(name).register_forward_hook(self._adding(name)) for name in self.groups
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _adding(self, name: str) -> Any:
        parts = [
            (i, lora.modules[name].lora_A.float(), lora.modules[name].lora_B.float() * scaling)
            for i, lora in enumerate(self.members)
            if name in lora.modules
            for scaling in (lora.modules[name].scaling,)
        ]

        def add(_: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            for i, lora_A, lora_B in parts:
                delta = functional.linear(functional.linear(inputs[0].float(), lora_A), lora_B)
                output = output + (self.coefficient(i, name) * delta).to(output.dtype)
            return output

        return add

    def adapter(self) -> Lora:
        """The members at their coefficients as one adapter. Its delta is exactly the weighted sum."""
        modules = {}
        for name in sorted(self.groups):
            parts = [
                (module.lora_B.double() * module.scaling * self.coefficient(i, name).item(), module.lora_A)
                for i, module in enumerate(lora.modules.get(name) for lora in self.members)
                if module is not None
            ]
            lora_B = torch.cat([B.float() for B, _ in parts], dim=1)
            modules[name] = LoraModule(torch.cat([A.float() for _, A in parts]), lora_B, 1.0)
        return Lora(modules)

    def to_dict(self) -> dict[str, list[float]]:
        """The coefficients of each group, in the order of the members."""
        return {group: [round(v, 4) for v in value.tolist()] for group, value in self.values.items()}


def _shape(model: Any, name: str) -> tuple[int, ...]:
    """The shape of a layer's weights; empty if the model has no such layer."""
    try:
        return tuple(model.get_submodule(name).weight.shape)
    except AttributeError:
        return ()


def _group(name: str, granularity: Granularity) -> str:
    if granularity == "adapter":
        return "all"
    layer = LAYER.search(name)
    return name if granularity == "module" or layer is None else f"layer {layer[1]}"


@dataclass(frozen=True)
class Plan:
    """What is learned, and for how long."""

    granularity: Granularity
    steps: int = 80
    seed: int = 0
    seconds: float = math.inf
    """For the learning, and for the scores of what is learned."""


def learn(
    base: Loaded,
    stacked: Stacked,
    task: Task,
    plan: Plan,
    on_progress: Callable[[int, float], None] = lambda _step, _loss: None,
) -> None:
    """Train the coefficients of `stacked` on the right answers of `task`. The base is not changed.

    At least one step is done, and no step that could end after `plan.seconds`. `on_progress(step, loss)` gets
    the loss in nats per token."""
    budget = TimeBudget(plan.seconds)
    model = base.model
    rows = [answer_ids(base.chat, question.prompt, question.answer) for question in task.questions]
    generator = torch.Generator().manual_seed(plan.seed)
    optimizer = torch.optim.Adam(list(stacked.values.values()), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.steps)
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    was_training = model.training
    model.eval()
    model.requires_grad_(False)
    try:
        with stacked.on(model):
            for step in budget.steps(plan.steps):
                chosen = torch.randperm(len(rows), generator=generator)[:BATCH].tolist()
                loss = answer_loss(model, [rows[i] for i in chosen])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                on_progress(step + 1, float(loss.detach()))
    finally:
        model.train(was_training)
        for parameter in frozen:
            parameter.requires_grad_()


def answer_loss(model: Any, rows: Sequence[tuple[list[int], int]]) -> Tensor:
    """Cross-entropy in nats per token of the answers of `rows`, which are token ids and a prompt's length."""
    logits, wanted = answer_logits(model, rows)
    return functional.cross_entropy(logits.transpose(1, 2), wanted, ignore_index=IGNORED)
