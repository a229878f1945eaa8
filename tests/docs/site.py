"""Checks the built site: every link and every picture of a page leads to a file and a place in the site.

`python -m tests.docs.site DIR` prints the broken ones and the counts; the exit code is 1 if there is one.
It also finds what a page would load from another host: the site must work without a network. Files of the
repository that a page links, such as results of benchmarks, are copied into the site first.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from typing_extensions import override

from tests.docs.blocks import ROOT

LOADED: Final = frozenset({("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src")})
"""What a browser fetches without a click."""


@dataclass
class Page(HTMLParser):
    """The links of a page, and the places in it that a link may name."""

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    places: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if (place := values.get("id")) is not None:
            self.places.add(place)
        for name in ("href", "src"):
            address = values.get(name)
            if address is not None and not (tag == "link" and values.get("rel") == "canonical"):
                self.links.append(address)
                if (tag, name) in LOADED:
                    self.loaded.append(address)


def bring_files(site: Path) -> None:
    """Copy the files of the repository outside docs/ that pages link into the site, and change the links."""
    for file, page in read(site).items():
        text = file.read_text()
        for address in page.links:
            source = (ROOT / "docs" / file.relative_to(site).parent / address).resolve()
            if address.startswith("..") and source.is_file() and not source.is_relative_to(ROOT / "docs"):
                target = site / "files" / source.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
                text = text.replace(f'"{address}"', f'"{os.path.relpath(target, file.parent)}"')
        file.write_text(text)


def read(site: Path) -> dict[Path, Page]:
    """Every page of the site by its file."""
    pages = {}
    for file in sorted(site.rglob("*.html")):
        pages[file] = Page()
        pages[file].feed(file.read_text())
    return pages


def broken(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """A line for each link that leads nowhere, and for each file that is loaded from another host."""
    for file, page in pages.items():
        if file.name == "404.html":
            continue  # Its addresses are those of a site at the root of a host.
        name = file.relative_to(site)
        yield from (f"{name}: loads {url}" for url in page.loaded if urlsplit(url).netloc)
        for address in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file.resolve()
            if target.is_dir():
                target /= "index.html"
            if not target.is_relative_to(site) or not target.is_file():
                yield f"{name}: {address} does not exist"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
                yield f"{name}: {address} has no such place"


def main() -> None:
    """Check the site in the directory that is the only argument."""
    site = Path(sys.argv[1]).resolve()
    bring_files(site)
    pages = read(site)
    found = list(broken(site, pages))
    links = sum(len(page.links) for page in pages.values())
    sys.stdout.writelines(f"{line}\n" for line in found)
    sys.stdout.write(f"{len(pages)} pages, {links} links, {len(found)} broken\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
