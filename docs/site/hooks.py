"""What makes a site of the repository's Markdown: its tree, and what is made from the code.

The site's tree is the repository's, so that a link is right on the site if it is right on the
repository's own pages. What Markdown points to and is no page is copied as it is.
"""

import dataclasses
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

from mbpo_jax.config import ALGORITHMS, CONFIG_CLASSES, AlgorithmRecord, Config, readers

ROOT = Path(__file__).parents[2]
DOCS = "docs"
PAGES = ("README.md", "experiments/README.md", "benchmarks/README.md")
"""Pages beside those of docs/."""
TOUR = "docs/tour"
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
TITLE = re.compile(r"^# .*$", re.MULTILINE)
RUN = "run"
"""Name of the settings that stand in no group."""
GROUPS: dict[str, Any] = {
    RUN: Config(),
    **{name: group for name, group in vars(Config()).items() if type(group) in CONFIG_CLASSES},
}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Put every page where the repository has it, and beside it all that it points to."""
    site = Files([])

    def add(path: str) -> File:
        file = File(path, str(ROOT), config.site_dir, config.use_directory_urls)
        site.append(file)
        return file

    for file in files:
        if file.src_dir == config.docs_dir:
            add(posixpath.join(DOCS, file.src_uri))
        else:  # the theme's
            site.append(file)
    for path in PAGES:
        add(path)
    waiting = list(site.documentation_pages())
    while waiting:
        page = waiting.pop()
        for target in sorted(set(LINK.findall(page.content_string))):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(page.src_uri), target))
            # What is not there is left to mkdocs, which names the page that points to it.
            if site.get_file_from_path(path) is None and (ROOT / path).is_file():
                added = add(path)
                waiting += [added] if added.is_documentation_page() else []
    for file in executed_tour(config):
        if known := site.get_file_from_path(file.src_uri):
            site.remove(known)
        site.append(file)
    return site


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put what the code says into a page, and write its blocks of code as MkDocs has them."""
    del config, files
    folder, _, name = page.file.src_uri.removesuffix(".md").rpartition("/")
    markdown = re.sub(r"^```(\w+) file=(\S+)$", r'```\1 title="\2"', markdown, flags=re.MULTILINE)
    if page.file.src_uri != f"{TOUR}.md":  # the notebook has a page here
        markdown = markdown.replace("tour.ipynb)", "tour.md)")
    if folder == "docs/algorithms":
        record = facts(name, ALGORITHMS[name])
        return TITLE.sub(lambda title: f"{title.group()}\n\n{record}", markdown, count=1)
    if page.file.src_uri == "docs/settings.md":
        return f"{markdown}\n{settings()}"
    return markdown


def executed_tour(config: MkDocsConfig) -> Iterator[File]:
    """Yield the page of the notebook as it was executed, in the place of its source."""
    notebook = nbformat.read(ROOT / f"{TOUR}.ipynb", as_version=4)
    resources = {"output_files_dir": posixpath.basename(TOUR)}
    markdown, resources = MarkdownExporter().from_notebook_node(notebook, resources)
    yield File.generated(config, f"{TOUR}.md", content=markdown)
    for path, content in resources["outputs"].items():
        yield File.generated(config, f"{DOCS}/{path}", content=content)


def facts(name: str, record: AlgorithmRecord) -> str:
    """Return what the record of an algorithm says, as Markdown."""
    source = re.sub(r"arXiv:([\d.]+\d)", r"[\g<0>](https://arxiv.org/abs/\1)", record.source)
    needs = [
        "a dynamics model, learned or the true system" * record.has_model,
        "which it differentiates" * record.differentiates_model,
        "numbered states" * record.is_tabular,
    ]
    rows = {
        "source": source,
        "needs": ", ".join(filter(None, needs)) or "an environment",
        "made by": f"`{record.maker}`",
        "settings it reads": ", ".join(map(setting_link, settings_of(name))),
        "numbers of its own": f"preset `{record.preset}`" if record.preset else "",
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items() if value)
    head = f"| `{name}` | {record.summary} |\n|---|---|"
    return f"`mbpo-jax train ENV --algorithm {name}`\n\n{head}\n{table}\n"


def settings_of(algorithm: str) -> Iterator[str]:
    """Yield what an algorithm reads and not all do: groups that it reads whole, single settings."""
    for group, values in GROUPS.items():
        paths = [path_of(group, name) for name in names_of(group, values)]
        read = [path for path in paths if algorithm in readers(path) != list(ALGORITHMS)]
        yield from [group] if group != RUN and read == paths else read


def names_of(group: str, values: Any) -> list[str]:
    """Return the names of a group's settings; those of a run are not its groups."""
    names = [field.name for field in dataclasses.fields(values)]
    return [name for name in names if group != RUN or name not in GROUPS]


def path_of(group: str, name: str) -> str:
    """Return the path of a setting."""
    return name if group == RUN else f"{group}.{name}"


def setting_link(path: str) -> str:
    """Return a link to a setting, or to a group of them."""
    group, _, single = path.partition(".")
    anchor = group if group in GROUPS else RUN
    shown = f"`{path}`" if single or anchor == RUN else f"`{path}.*`"
    return f"[{shown}](../settings.md#{anchor})"


def settings() -> str:
    """Return every group of settings as a table, with who reads it."""
    return "\n".join(group_table(group, values) for group, values in GROUPS.items())


def group_table(group: str, values: Any) -> str:
    """Return a group's settings, their defaults and what they mean."""
    cls = type(values)
    documented = griffe.load(cls.__module__, search_paths=[str(ROOT)])[cls.__name__]
    lines = [f"## {group} {{ #{group} }}", "", first_line(cls.__doc__ or ""), ""]
    lines += ["| setting | default | meaning | read by |", "|---|---|---|---|"]
    for name in names_of(group, values):
        docstring = documented.members[name].docstring
        meaning = " ".join(docstring.value.split()) if docstring else ""
        path = path_of(group, name)
        default = "unset" if (value := getattr(values, name)) is None else f"`{value}`"
        row = (f"`{path}`", default, meaning.replace("|", "\\|"), who_reads(path))
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def who_reads(path: str) -> str:
    """Return the algorithms that read a setting, as links."""
    names = readers(path)
    if len(names) == len(ALGORITHMS):
        return "all"
    return ", ".join(f"[`{name}`](algorithms/{name}.md)" for name in names)


def first_line(docstring: str) -> str:
    """Return the first line of a docstring."""
    return docstring.partition("\n")[0]
