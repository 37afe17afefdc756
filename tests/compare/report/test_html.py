"""One HTML file: complete without scripts, short at thousands of layers, and clicked through in a browser."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from layerdiff import UsageError
from layerdiff.compare.report.model import OutputResult
from layerdiff.compare.statistics.portrait import close_up, distribution

from support.reports import full, many_layers, output, report

pytest.importorskip("plotly")
pytest.importorskip("jinja2")

LIMIT = 5_000_000


def visible(found) -> str:
    """What stands in the page, without scripts and styles."""
    return re.sub(r"<(script|style)\b.*?</\1>", "", found.render("html"), flags=re.DOTALL)


def portrayed(number: int):
    """A report whose layers all have their values, and whose culprits have a close-up."""
    rng = np.random.default_rng(0)
    found = many_layers(number, outputs=3, culprits=2)
    layers = []
    for i, layer in enumerate(found.layers):
        one = rng.standard_normal((1, 8, 6, 6)).astype(np.float32)
        other = one * np.float32(1.01)
        told = {**distribution(one, other), **(close_up(one, other) if i < 2 else {})}
        read = (found.layers[i - 1].tensor,) if i else ("x",)
        layers.append(replace(layer, portrait=told, inputs=read))
    return replace(found, layers=tuple(layers))


@pytest.mark.parametrize("found", [full(), report(), report(output()), report(errors={"onnxrt": "no"})], ids=range(4))
def test_every_report_has_a_page(found):
    page = visible(found)
    assert f'<span class="word">{found.verdict}</span>' in page


def test_nothing_is_fetched():
    page = portrayed(20).render("html")
    assert "default-src 'none'" in page
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", visible(portrayed(20))) == []


def test_it_is_short_at_five_thousand_layers():
    assert len(portrayed(5000).render("html").encode()) < LIMIT


def test_what_was_not_compared_is_said():
    page = visible(report(output(), OutputResult("emulate:fp16", "z", "missing", "z is missing"), errors={"tf": "no"}))
    assert "Not compared" in page
    assert "output z of emulate:fp16" in page
    assert "Not compared" not in visible(report(output()))


def test_names_are_no_markup():
    page = visible(report(output("fail", tensor="<img src=x onerror=alert(1)>", reason="<b>no</b>")))
    assert "<img" not in page
    assert "<b>no</b>" not in page


def test_a_missing_package_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "layerdiff.compare.report.html.page", None)
    with pytest.raises(UsageError, match=r"pip install 'layerdiff\[html\]'"):
        report(output()).render("html")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 820, 390])
def test_a_browser_clicks_through_it(width, scheme, tmp_path):
    api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")
    path = tmp_path / "report.html"
    path.write_text(portrayed(300).render("html"), "utf-8")
    wrong: list[str] = []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "blob:", "data:")) else wrong.append(r.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]")
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        names = [page.inner_text("#layer-name")]
        for click in ("#next", "button.pick >> nth=1", "#previous", "#around g.node >> nth=2"):
            page.click(click)
            names.append(page.inner_text("#layer-name"))
        page.fill("#find", "layer.77/")
        page.press("#find", "Enter")
        names.append(page.inner_text("#layer-name"))
        page.click("#theme")
        page.click("#outputs tr[data-tensor] >> nth=1")
        assert page.locator("#values .plotly, #network .plotly").count() >= 2
        assert page.locator("#heatmap-figure").is_hidden()  # no culprit
        browser.close()
    assert names == [f"/encoder/layer.{n}/MatMul (Conv)" for n in (0, 1, 1, 0, 1, 77)]
    assert wrong == []
