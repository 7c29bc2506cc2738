"""`python -m demo.screenshots`: the README's pictures, of a job and of its report, from the demo's run.

Needs the system's Chromium. The server is started once more on what the demo left, and nothing is computed.
"""

import argparse
import shutil
from pathlib import Path

import httpx
from playwright.sync_api import Page, ViewportSize, sync_playwright

from demo.server import Server, embedded_server

HERE = Path(__file__).parent
PICTURES = {"job": ("/jobs/{}", 560), "report": ("/jobs/{}/report", 1100)}
"""Address and height of each."""
WIDTH = 1000


def last_jump(server: Server) -> str:
    """Give the id of the newest extrapolation that was recommended, else of the newest."""
    headers = {"Authorization": f"Bearer {server.api_key}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as api:
        jobs = api.get("/jobs", params={"state": "succeeded", "limit": 100}).json()["items"]
        made = [job["id"] for job in jobs if job["task"] == "extrapolate"]
        if not made:
            raise SystemExit("the demo left no jump: run `make demo` again")
        good = (job for job in made if api.get(f"/jobs/{job}/report").json()["recommended"])
        return str(next(good, made[0]))


def take(page: Page, server: Server, folder: Path) -> None:
    """Sign in as people do, and take the pictures."""
    page.goto(f"{server.url}/login")
    page.fill("#key", server.api_key)
    page.get_by_role("button", name="Sign in").click()
    job = last_jump(server)
    for name, (path, height) in PICTURES.items():
        page.set_viewport_size(ViewportSize(width=WIDTH, height=height))
        page.goto(server.url + path.format(job))
        page.screenshot(path=folder / f"{name}.png")


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=HERE / "runs", help="folder that the demo left")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "images")
    arguments = parser.parse_args()
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("there is no chromium here: install it (Debian: apt install chromium)")
    if not (arguments.runs / "server" / "data").is_dir():
        raise SystemExit(f"the demo has left nothing in {arguments.runs}: run `make demo` first")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with embedded_server(arguments.runs / "server", workers=1) as server, sync_playwright() as playwright:
        # Chromium's own sandbox does not start as root; nothing but the server's pages is opened.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        take(browser.new_page(color_scheme="light"), server, arguments.out)
        browser.close()


if __name__ == "__main__":
    main()
