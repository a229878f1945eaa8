"""PEFT's files and rules: the config, the modules that it targets, and reading and writing the factors."""
