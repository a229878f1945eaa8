"""PEFT's files and rules: the config, which modules it targets, and the factors in and out of safetensors."""
