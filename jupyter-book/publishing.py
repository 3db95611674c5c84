"""What makes a folder of pages a published site: its address, a card for other sites, a site map, a page for lost readers."""

from __future__ import annotations

import hashlib
import os
import re
from datetime import UTC, datetime
from html import escape, unescape
from pathlib import Path

import generate  # notebooks/generate.py

OWNER, NAME = generate.SLUG.split("/")
ADDRESS = f"https://{OWNER.lower()}.github.io/{NAME}/"
VERSIONS = ("torch", "onnx", "onnxruntime")  # of the version line
NOT_PAGES = {"_static", "netron", "pages", "models"}  # folders
LOST = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>No such page - The ONNX Scroll</title><link rel="icon" href="{root}_static/favicon.svg">
<style>
:root {{ color-scheme: light dark; }}
body {{ max-width: 34rem; margin: 15vh auto; padding: 0 1.25rem; font: 1.1rem/1.6 system-ui, sans-serif; }}
h1 {{ font: 600 2rem/1.2 Georgia, serif; }}
</style></head><body><main>
<h1>There is no page at this address</h1>
<p>It may have moved: lessons are shorter now, and what lies deeper has pages of its own.</p>
<ul><li><a href="{root}index.html">First page, with all lessons</a></li>
<li><a href="{root}search.html">Search</a></li></ul>
</main></body></html>
"""


def version_line(pins: str, release: str, ran: datetime) -> str:
    """Course and packages, and the day on which the notebooks ran. pins: text of `constraints.txt`."""
    found = {name: re.search(rf"^{name}==(.+)$", pins, re.MULTILINE) for name in VERSIONS}
    packages = " · ".join(f"{name} {pin[1]}" for name, pin in found.items() if pin)
    return f"The ONNX Scroll {release} · {packages} · run on {ran:%Y-%m-%d}"


def ran_on(outputs: Path) -> datetime:
    """When the last one of the executed notebooks was written."""
    return datetime.fromtimestamp(max(file.stat().st_mtime for file in outputs.rglob("*.ipynb")), UTC)


def finish(site: Path) -> None:
    """Give each page its card, and write the site map and the page for addresses that lead nowhere."""
    pages = [page for page in sorted(site.rglob("*.html")) if page.relative_to(site).parts[0] not in NOT_PAGES]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        page.write_text(
            text.replace("</head>", f"{card(text, page.relative_to(site).as_posix())}\n</head>", 1), encoding="utf-8"
        )
    listed = [page.relative_to(site).as_posix() for page in pages if page.stem not in ("search", "genindex")]
    entries = "\n".join(f"<url><loc>{ADDRESS}{'' if name == 'index.html' else name}</loc></url>" for name in listed)
    (site / "sitemap.xml").write_text(
        f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{entries}\n</urlset>\n',
        encoding="utf-8",
    )
    (site / "robots.txt").write_text(f"User-agent: *\nAllow: /\nSitemap: {ADDRESS}sitemap.xml\n", encoding="utf-8")
    (site / "404.html").write_text(LOST.format(root=f"/{NAME}/"), encoding="utf-8")
    write_service_worker(site)


def write_service_worker(site: Path) -> None:
    """The service worker at the root of the site; with COURSE_OFFLINE=0 one that takes an earlier one away."""
    digest = hashlib.sha256()
    for file in sorted(file for file in site.rglob("*") if file.is_file()):
        digest.update(file.relative_to(site).as_posix().encode() + file.read_bytes())
    name = "none.js" if os.environ.get("COURSE_OFFLINE") == "0" else "worker.js"
    text = (Path(__file__).parent / "offline" / name).read_text(encoding="utf-8")
    (site / "service_worker.js").write_text(text.replace("{{ build }}", digest.hexdigest()[:16]), encoding="utf-8")


def card(page: str, name: str) -> str:
    """Tags that other sites read when somebody sends the page. page: its HTML. name: such as "notebooks/00_start_here.html"."""
    title = unescape(re.search(r"<title>(.*?)</title>", page, re.DOTALL)[1]).partition("—")[0].strip()  # type: ignore[index]
    text = page.partition("<article")[2]
    paragraphs = (
        " ".join(unescape(re.sub(r"<[^>]+>", "", p)).split()) for p in re.findall(r"<p>(.*?)</p>", text, re.DOTALL)
    )
    about = next((p for p in paragraphs if len(p) > 60), "")  # a lesson begins with a line that tells its time
    about = about if len(about) <= 200 else about[:200].rpartition(" ")[0] + " …"
    tags = {
        "og:type": "article",
        "og:site_name": "The ONNX Scroll",
        "og:title": title,
        "og:description": about,
        "og:url": ADDRESS + name,
        "og:image": f"{ADDRESS}_static/card.png",
        "og:image:alt": "The ONNX Scroll: a course on ONNX and ONNX Runtime in which every statement is run",
        "twitter:card": "summary_large_image",
    }
    lines = [f'<meta property="{key}" content="{escape(value)}">' for key, value in tags.items() if value]
    return "\n".join([f'<meta name="description" content="{escape(about)}">' if about else "", *lines]).strip()
