"""The table before the first step: what is trained on, and what was left out of it."""

from collections.abc import Iterator

from lora_compose.training.run_record import PreparedFacts, RunRecord, Schedule


def prepared_table(record: RunRecord) -> str:
    """The facts of a prepared run, one line each: a name and a value."""
    assert record.prepared is not None
    lines = [*_rows(record, record.prepared), *_tokens(record.prepared)]
    if record.prepared.schedule is not None:
        lines += _steps(record, record.prepared.schedule)
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in lines)


def _rows(record: RunRecord, facts: PreparedFacts) -> Iterator[tuple[str, str]]:
    given = facts.given if facts.given is not None else record.data.train_rows
    yield "rows given", str(given)
    yield "dropped", f"{facts.dropped} bad rows, {facts.left_out} without a token of an answer at max_length"
    yield "used", f"{record.data.train_rows - facts.left_out} to train, {record.data.held_out_rows} held out"
    if facts.good is not None:
        yield "labels", f"{facts.good} good, {facts.bad} bad"
    if facts.same:
        yield "equal pairs", f"{facts.same} whose two answers are the same"
    yield "cut", f"{facts.cut} longer than max_length; the longest row has {facts.longest} tokens"
    yield "without an end", f"{facts.endless} whose answer never ends"
    columns = {name: count for source in record.data.sources for name, count in source.left_out.items()}
    yield "columns left out", ", ".join(columns) or "none"


def _tokens(facts: PreparedFacts) -> Iterator[tuple[str, str]]:
    yield "tokens with a loss", f"{facts.learnt_tokens} of {facts.tokens}"
    yield "chat template", str(facts.template)
    yield "end tokens", facts.end or "none"
    yield "a row, loss in ⟦⟧", facts.example.replace("\n", "\\n")


def _steps(record: RunRecord, schedule: Schedule) -> Iterator[tuple[str, str]]:
    training = record.settings.training
    batch = training.get("per_device_train_batch_size", 0)
    accumulated = training.get("gradient_accumulation_steps", 1)
    rows = f"{batch}" if accumulated == 1 else f"{batch} × {accumulated}"
    yield "steps", f"{schedule.steps} of {rows} rows, {schedule.epochs:g} epochs"
    last = schedule.last_learning_rate
    yield (
        "learning rate",
        f"{schedule.learning_rate:g} after {schedule.warmup_steps} steps of warm-up, "
        + ("by the evaluations" if last is None else f"{last:.3g} at the last step"),
    )
