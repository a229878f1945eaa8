"""The steps of a run and its learning rates, computed before the first step as transformers does."""

import math
from typing import Any

from lora_compose.training.run_record import Schedule


def schedule_of(arguments: Any, rows: int) -> Schedule:
    """The schedule for `rows` tokenized rows. `arguments` is TRL's config. For one process."""
    batch = arguments.per_device_train_batch_size
    batches = rows // batch if arguments.dataloader_drop_last else math.ceil(rows / batch)
    each = max(math.ceil(batches / arguments.gradient_accumulation_steps), 1)
    steps = arguments.max_steps if arguments.max_steps > 0 else math.ceil(arguments.num_train_epochs * each)
    return Schedule(
        steps=steps,
        warmup_steps=arguments.get_warmup_steps(steps),
        learning_rate=arguments.learning_rate,
        last_learning_rate=_last_rate(arguments, steps),
        epochs=round(steps / each, 3),
    )


def _last_rate(arguments: Any, steps: int) -> float | None:
    """The learning rate of the last step. None if the schedule does not depend on the steps alone."""
    import torch
    from transformers import get_scheduler

    if steps < 1:
        return None
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=arguments.learning_rate)
    scheduler = get_scheduler(
        arguments.lr_scheduler_type,
        optimizer,
        num_warmup_steps=arguments.get_warmup_steps(steps),
        num_training_steps=steps,
        scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
    )
    factors = getattr(scheduler, "lr_lambdas", None)
    return float(arguments.learning_rate * factors[0](steps - 1)) if factors else None
