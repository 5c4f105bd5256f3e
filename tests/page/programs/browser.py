"""Looks at the page in Chromium, and prints what was seen as JSON. Runs in the environment of Playwright.

Every step is tried, whatever becomes of the others; one that fails gives its error.

    python browser.py CHROMIUM OPERATIONS_URL HTTP_URL
"""

from __future__ import annotations

import json
import re
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Error, Page, sync_playwright

CHECKS = (Path(__file__).parent / "checks.js").read_text()
WAIT = 20_000  # milliseconds, for anything that is waited for


class Looking:
    """The steps.

    Args:
        browser: Chromium.
        ops: the page's URL, without a path.
        http: that of REST.
    """

    def __init__(self, browser: Browser, ops: str, http: str) -> None:
        self.browser = browser
        self.ops = ops
        self.http = http
        self.console: list[str] = []
        self.foreign: list[str] = []

    def context(self, width: int = 1200, scheme: str = "light") -> BrowserContext:
        """A browser window of its own."""
        viewport = {"width": width, "height": 900}
        made = self.browser.new_context(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type]
        made.set_default_timeout(WAIT)
        return made

    def watched(self, context: BrowserContext, url: str) -> Page:
        """Opens a page, and notes what it says and asks for."""
        page = context.new_page()
        page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.console.append(f"exception: {error}"))
        page.on("request", lambda request: self._asked(request.url))
        page.goto(url)
        return page

    def _asked(self, url: str) -> None:
        if not url.startswith((f"{self.ops}/", f"{self.http}/", "data:")):
            self.foreign.append(url)

    def opened(self, page: Page, name: str, version: str = "1") -> None:
        """Opens a model by its link."""
        link = page.locator("a.name", has_text=re.compile(f"^{re.escape(name)}$"))
        row = page.locator("#models tr", has=link).filter(has_text=f"version {version}")
        row.locator("a.name").click()
        page.wait_for_function(
            "([name, version]) => document.querySelector('#model-title')?.textContent === name"
            " && document.querySelector('#model-head').textContent.includes(`version ${version}`)",
            arg=[name, version],
        )

    def called(self, page: Page, fields: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fills in the form, calls, and returns the commands and the answer."""
        for label, value in (fields or {}).items():
            control = page.get_by_label(label, exact=True)
            if isinstance(value, bool):
                control.set_checked(value)
            else:
                control.fill(value)
        commands = {
            each.get_attribute("data-command"): each.text_content()
            for each in page.locator("pre[data-command]").all()
        }
        page.get_by_role("button", name="Call the model").click()
        head = page.locator("#answer .head")
        head.wait_for()
        page.wait_for_function("() => !document.querySelector('button.main').hasAttribute('aria-disabled')")
        return {
            "head": head.text_content(),
            "text": page.locator("#answer").inner_text(),
            "raw": page.locator("#answer pre").text_content(),
            "commands": commands,
        }

    # The steps.

    def overview(self) -> Any:
        """The list of models, and whether figures move; at 1200 pixels."""
        page = self.watched(self.context(), f"{self.ops}/")
        page.wait_for_selector("#models tr")
        page.get_by_role("status").filter(has_text="Ready").wait_for()
        rate = "() => Number(document.querySelector('#tiles .value').textContent.replace(',', ''))"
        page.wait_for_function(f"() => ({rate})() > 0")
        row = page.locator("#models tr", has_text="scale").filter(has_text="version 2")
        page.wait_for_function("(row) => /ms|µs/.test(row.textContent)", arg=row.element_handle())
        path = page.locator("#tiles svg .line").first.get_attribute("d") or ""
        page.wait_for_function(
            "(before) => document.querySelector('#tiles svg .line').getAttribute('d').length > before.length",
            arg=path,
        )
        return {
            "rows": [each.inner_text() for each in page.locator("#models tr").all()],
            "title": page.title(),
            "release": page.locator("#release").text_content(),
        }

    def forms(self) -> Any:
        """The answers and the commands of every form."""
        page = self.watched(self.context(), f"{self.ops}/")
        page.wait_for_selector("#models tr")
        found = {}
        for name, version, fields in (
            ("lead_scoring", "1", {"lead_source": 'it\'s a "test" $HOME', "annual_income": "79276.5"}),
            ("deep", "1", {"x": "[[1, 2, 3], [4, 5, NaN]]"}),
            ("wide", "1", {"x": "1.5 2e3, -Infinity"}),
            ("words", "1", {"x": '["a, b", "ü\\n\\\\"]'}),
            ("flag", "1", {"x": True}),
            ("whole", "1", None),
            ("large", "1", {"x": "0.25"}),
            ("exact", "1", {"x": "9007199254740993"}),
            ("running_sum", "1", {"x": "7"}),
            ("scale", "1", {"x": "1, 2, 3"}),
            ("odd name", "1", None),
        ):
            self.opened(page, name, version)
            found[f"{name}/{version}"] = self.called(page, fields)
        return found

    def wrong(self) -> Any:
        """A wrong value is said at its field, and errors that the server gives are shown."""
        page = self.watched(self.context(), f"{self.ops}/#lead_scoring/1")
        field = page.get_by_label("number_of_courses_viewed", exact=True)
        field.fill("1.5")
        page.get_by_role("button", name="Call the model").click()
        local = {
            "said": page.locator(".wrong:not([hidden])").first.text_content(),
            "focused": page.evaluate("() => document.activeElement.name"),
            "invalid": field.get_attribute("aria-invalid"),
            "command": page.locator("pre[data-command=curl]").text_content(),
            "answer": page.locator("#answer").text_content(),
        }
        field.fill("99999999999999999999")
        page.get_by_role("button", name="Call the model").click()
        page.locator("#answer .head").wait_for()
        remote = page.locator("#answer").inner_text()
        page.locator("#errors tr", has_text="lead_scoring").first.wait_for()
        return {"local": local, "remote": remote, "errors": page.locator("#errors").inner_text()}

    def narrow(self) -> Any:
        """At 360 pixels, nothing is wider than the window."""
        page = self.watched(self.context(360), f"{self.ops}/#lead_scoring/1")
        page.wait_for_selector("button.main")
        widths = {}
        for name in ("lead_scoring", "odd name", "large", "running_sum"):
            self.opened(page, name)
            self.called(page)
            widths[name] = page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
        page.evaluate(CHECKS)
        outside = page.evaluate("() => outside()")
        return {"widths": widths, "outside": outside}

    def contrast(self) -> Any:
        """The texts that stand out too little, in light and in dark."""
        found = {}
        for scheme in ("light", "dark"):
            page = self.watched(self.context(scheme=scheme), f"{self.ops}/#lead_scoring/1")
            page.get_by_role("button", name="Call the model").click()
            page.locator("#answer .head").wait_for()
            page.get_by_label("annual_income", exact=True).fill("x")
            page.evaluate(CHECKS)
            found[scheme] = page.evaluate("() => contrasts()")
        return found

    def keyboard(self) -> Any:
        """From the top of the page to an answer, and to a copied command, by keys only."""
        context = self.context()
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=self.ops)
        page = self.watched(context, f"{self.ops}/")
        page.wait_for_selector("button.main")
        describe = "() => document.activeElement.id || document.activeElement.textContent.slice(0, 40)"
        ring = "() => getComputedStyle(document.activeElement).outlineStyle"
        seen: list[str] = []
        rings: set[str] = set()

        def tab_to(wanted: Callable[[str], bool]) -> None:
            for _ in range(60):
                page.keyboard.press("Tab")
                seen.append(page.evaluate(describe))
                rings.add(page.evaluate(ring))
                if wanted(seen[-1]):
                    return
            raise AssertionError(f"not reached by Tab: {seen}")

        tab_to(lambda name: name == "Skip to the models")
        page.keyboard.press("Enter")
        tab_to(lambda name: name == "lead_scoring")
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.activeElement.id === 'model-title'")
        tab_to(lambda name: name == "input-0")
        page.keyboard.press("Control+a")
        page.keyboard.type("referral")
        tab_to(lambda name: name == "input-1")
        page.keyboard.press("Enter")
        page.locator("#answer .head").wait_for()
        tab_to(lambda name: name == "Copy")
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.querySelector('#said').textContent.includes('copied')")
        return {
            "answer": page.locator("#answer").inner_text(),
            "rings": sorted(rings),
            "copied": page.evaluate("() => navigator.clipboard.readText()"),
            "curl": page.locator("pre[data-command=curl]").text_content(),
        }

    def tree(self) -> Any:
        """The accessibility tree: roles and names, as a screen reader gets them."""
        page = self.watched(self.context(), f"{self.ops}/#running_sum/1")
        page.wait_for_selector("button.main")
        session = page.context.new_cdp_session(page)
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        return [
            (each["role"]["value"], each.get("name", {}).get("value", ""))
            for each in nodes
            if not each.get("ignored") and "role" in each
        ]

    def docs(self) -> Any:
        """The page of REST shows the operations and tries one."""
        page = self.watched(self.context(), f"{self.http}/docs")
        page.wait_for_selector(".opblock")
        summary = page.locator(".opblock-summary-path", has_text=re.compile("^/health$"))
        summary.first.click()
        page.get_by_role("button", name="Execute").click()
        page.locator(".live-responses-table .response-col_status", has_text="200").wait_for()
        return {"operations": page.locator(".opblock").count(), "title": page.title()}

    def lost(self) -> Any:
        """What is said while the server cannot be reached, and after it can be again."""
        context = self.context()
        page = self.watched(context, f"{self.ops}/")
        page.get_by_role("status").filter(has_text="Ready").wait_for()
        page.get_by_role("button", name="Pause").click()
        paused = page.locator("#status").inner_text()
        context.set_offline(True)
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("status").filter(has_text="No connection").wait_for()
        context.set_offline(False)
        page.get_by_role("status").filter(has_text="Ready").wait_for()
        self.console[:] = [each for each in self.console if "ERR_INTERNET_DISCONNECTED" not in each]
        return {"paused": paused}


ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]
STEPS = ("overview", "forms", "wrong", "narrow", "contrast", "keyboard", "tree", "docs", "lost")


def main() -> None:
    """Takes all steps, one after another."""
    chromium, ops, http = sys.argv[1:]
    seen: dict[str, Any] = {}
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            browser.new_page().close()
        except Error as error:  # such as on a machine that gives it no shared memory
            print(json.dumps({"cannot start": str(error).splitlines()[0]}))
            return
        looking = Looking(browser, ops, http)
        for name in STEPS:
            began = time.monotonic()
            try:
                seen[name] = getattr(looking, name)()
            except Exception:
                seen[name] = {"failed": traceback.format_exc()}
            print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr)
            for context in browser.contexts:
                context.close()
        browser.close()
    print(json.dumps({**seen, "console": looking.console, "foreign": looking.foreign}))


if __name__ == "__main__":
    main()
