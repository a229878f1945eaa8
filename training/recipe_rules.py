"""Rules for a recipe that the libraries would check only after hours of training, or not at all."""

from typing import TYPE_CHECKING

from lora_compose.training.recipe_defaults import AUTO

if TYPE_CHECKING:
    from lora_compose.training.recipe import Recipe


def faults_of(recipe: "Recipe") -> list[str]:
    """What is wrong with the settings of a recipe, one sentence each."""
    return [message for is_met, message in _rules(recipe) if not is_met]


def _rules(recipe: "Recipe") -> list[tuple[bool, str]]:
    data, score, model, training = recipe.data, recipe.score, recipe.model, recipe.training
    labels = recipe.labels
    labelled = labels.label_column is not None or labels.good_from is not None or bool(labels.good_labels)
    stops = score.patience is not None
    scored = score.domain_tasks or score.general_tasks
    evaluates = str(training.eval_strategy) not in ("no", "IntervalStrategy.NO")
    return [
        (model.model_name_or_path is not None, "model_name_or_path is missing: name the base model"),
        (bool(training.output_dir), "output_dir is missing: name the directory of the run"),
        (bool(data.domain), "domain is missing: name the files to train on"),
        (
            bool(data.general) == (data.ratio is not None),
            "general and ratio (GENERAL:DOMAIN) must be given together",
        ),
        (0 <= data.held_out_share < 1, f"held_out_share ({data.held_out_share}) must be in [0, 1)"),
        (not (data.held_out and data.held_out_share), "give held_out or held_out_share, not both"),
        (
            not evaluates or bool(data.held_out or data.held_out_share),
            "eval_strategy needs held_out or held_out_share",
        ),
        (
            not data.held_out or evaluates,
            "held_out needs an evaluation: set eval_strategy (steps or epoch)",
        ),
        (
            not data.held_out_share or evaluates,
            "held_out_share needs an evaluation: set eval_strategy (steps or epoch)",
        ),
        (not stops or evaluates, "patience needs eval_strategy"),
        (not stops or training.load_best_model_at_end, "patience needs load_best_model_at_end: true"),
        (
            not score.score_each_evaluation or bool(scored),
            "score_each_evaluation needs domain_tasks or general_tasks",
        ),
        (not model.load_in_4bit or model.use_peft, "load_in_4bit (QLoRA) needs use_peft"),
        (recipe.start.init_adapter is None or model.use_peft, "init_adapter needs use_peft"),
        (recipe.publish.publish is None or model.use_peft, "publish needs use_peft: it registers an adapter"),
        (
            recipe.method == "kto" or not labelled,
            "label_column, good_from and good_labels are only for kto",
        ),
        (
            labels.good_from is None or not labels.good_labels,
            "give good_from (for numbers) or good_labels (for words), not both",
        ),
        (
            recipe.method != "kto"
            or training.loss_type != "kto"
            or (training.per_device_train_batch_size > 1 and training.per_device_eval_batch_size > 1),
            "kto compares each row with others of its batch: per_device_train_batch_size and "
            "per_device_eval_batch_size must be at least 2. gradient_accumulation_steps does not count",
        ),
        *_rank_rules(recipe),
        (
            not recipe.publish.require or bool(scored or score.general_text),
            "require needs domain_tasks, general_tasks or general_text",
        ),
    ]


def _rank_rules(recipe: "Recipe") -> list[tuple[bool, str]]:
    rank = recipe.adapter.rank
    return [
        (
            rank is None or rank == AUTO or (rank.isdecimal() and int(rank) > 0),
            f"rank ({rank}) must be {AUTO} or a number above 0",
        ),
        (rank is None or "lora_r" not in recipe.given, "give rank or lora_r, not both"),
        (rank is None or recipe.model.use_peft, "rank needs use_peft"),
        (
            rank is None or recipe.start.init_adapter is None,
            "rank cannot be changed: init_adapter has a rank already",
        ),
    ]
