"""The parts of the GPU check: one function each, which takes a `CheckRun` and reports findings.

Each part runs in a process of its own, which `parts/table.py` lists and `__main__.py` starts, so that a crash
or a hang of one leaves the others alone. The modules import vLLM; the table does not.
"""
