"""Adapters for a real language model, SmolLM2-135M-Instruct: their data, recipes, weights and scores.

python -m lora_compose.training.testbed.smollm2.write_data
python -m lora_compose.training.testbed.smollm2.train_adapters
"""
