"""Finds the packages. Their import names start with `lora_compose`; their folders are at the top."""

from setuptools import find_packages, setup

ROOTS = ("adapters", "server", "training", "benchmarks")
FOUND = find_packages(include=[pattern for root in ROOTS for pattern in (root, f"{root}.*")])

setup(
    packages=[f"lora_compose.{name}" for name in FOUND],
    package_dir={f"lora_compose.{root}": root for root in ROOTS},
)
