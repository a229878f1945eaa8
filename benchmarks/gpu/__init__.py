"""Checks of the product on a GPU, and the kit that takes them to a machine where it is not installed.

What lives here: `python -m lora_compose.benchmarks.gpu` runs the engine's hooks inside this process, in parts
(`parts/`): right answers against a dense float32 model, speed on an 8B shape, LoRA kernels, fusion. `http/`
checks the whole server over HTTP. `build_kit.sh` and `thin_fatbin.py` make the kit. `docs/gpu.md` has what
was measured.

Each finding is one line of JSON that names the device. `--cpu` rehearses every check on a machine without a
GPU.

This is the only package of `benchmarks` that imports engine internals (`lora_compose.server.engine`) and
vLLM: it checks the hooks themselves, and no HTTP interface shows them. `http/` also uses the testbed's demo
(`lora_compose.training.testbed`), whose answers have a known right value. What does not live here: benchmarks
whose figures mean something on a CPU. Those are in the other packages, and they speak HTTP.
"""
