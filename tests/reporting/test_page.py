"""The page holds the figures, loads nothing, and survives hostile names and missing pieces."""

import html.parser
import json
import re
import shutil

import pytest

from potstill.errors import DataError
from potstill.reporting import comparison_verdict, read_results, render_report, write_json, write_report

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Outline(html.parser.HTMLParser):
    """Collects the text, tags and attributes, and checks that every element is closed in order."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(page)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def page(comparison):
    return write_report(comparison).read_text(encoding="utf-8")


def test_the_page_says_the_verdict_and_the_figures(page, comparison):
    outline, results = Outline(page), read_results(comparison)
    text = outline.words()
    assert comparison_verdict(results) in text
    assert "wheat-leaves" in text
    for figures in results["summary"].values():
        assert f"{100 * figures['mean']:.1f}" in text
    for part in ("Results", "Sources", "Mistakes by class", "Training", "Cost", "Settings and versions"):
        assert part in text
    assert "failed: the weights file is missing" in text
    assert "student: timm/mobilenetv3_small_100" in text


def test_the_page_loads_nothing_and_runs_nothing(page):
    outline = Outline(page)
    names = [tag for tag, _ in outline.tags]
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(names)
    for _, attributes in outline.tags:
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#")
    assert not re.search(r"@import|url\((?!#)", page)


def test_the_page_is_accessible(page):
    tags = Outline(page).tags
    assert ("html", {"lang": "en"}) in tags
    charts = [attributes for tag, attributes in tags if tag == "svg"]
    assert len(charts) == 2
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    assert all(attributes.get("scope") in {"row", "col"} for tag, attributes in tags if tag == "th")
    names = [tag for tag, _ in tags]
    assert names.count("table") == names.count("caption")
    assert names.count("h1") == 1


def test_ids_are_unique_and_links_lead_somewhere(page):
    tags = Outline(page).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes[name] for _, attributes in tags for name in ("href", "xlink:href") if name in attributes}
    targets |= set(re.findall(r"url\((#[^)]*)\)", page))
    assert targets <= {f"#{name}" for name in ids}


def test_charts_follow_the_theme(page):
    assert "currentColor" in page
    assert "var(--series-1)" in page
    assert not re.search(r"#0[123]0[123]0[0-9]", page)


def test_the_same_files_make_the_same_page(page, comparison):
    assert write_report(comparison).read_text(encoding="utf-8") == page


def test_names_are_text_wherever_they_stand(tmp_path, make_comparison):
    """Class, source, file, target and method names are the user's, and may be code, formulas or any script."""
    hostile = (
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(2)>',
        "$5 $\\frac{",
        "稲の葉",
        "{{ 7 * 7 }}",
        "a & b",
    )
    root = tmp_path / "run"
    results = make_comparison(root, methods=("transfer",), seeds=1, classes=hostile)
    method = "<script>$x_1"
    run = results["runs"][0]
    results["target"] = hostile[0]
    results["runs"] = [run, run | {"method": method}]
    results["summary"][method] = results["summary"]["transfer"]
    write_json(root / "results.json", results)
    ranking = json.loads((root / "ranking.json").read_text())
    ranking["sources"][0] |= {"name": hostile[0], "license": hostile[1]}
    ranking["sources"][-1]["error"] = hostile[1]
    write_json(root / "ranking.json", ranking)
    (root / "config.yaml").write_text("name: </pre><script>alert(3)</script>\n", encoding="utf-8")
    log = root / "transfer-seed0" / "metrics.jsonl"
    log.write_text('{"step": 0, "loss": 1.0, "<script>": 1.0}\n{"step": 1, "loss": 1.0, "<script>": 0.5}\n')
    page = write_report(root).read_text(encoding="utf-8")
    outline = Outline(page)
    assert not {"script", "img"} & {tag for tag, _ in outline.tags}
    text = outline.words()
    for name in (*hostile, method):
        assert name in text


@pytest.mark.parametrize(
    ("missing", "note", "gone"),
    [
        ("ranking.json", "without the ranking", "judged on"),
        ("environment.json", "without the versions", "made up"),
        ("config.yaml", "without the settings", "Configuration"),
        ("*/predictions.parquet", "without the mistakes by class", "Mistakes by class"),
        ("*/metrics.jsonl", "without learning curves", "Training"),
        ("results.json", "without the results", "macro F1"),
    ],
)
def test_a_missing_piece_becomes_a_note(tmp_path, comparison, missing, note, gone):
    root = tmp_path / "copy"
    shutil.copytree(comparison, root)
    for path in root.glob(missing):
        path.unlink()
    text = Outline(write_report(root).read_text(encoding="utf-8")).words()
    assert note in text
    assert gone not in text.replace("Training the student", "")


def test_damaged_pieces_become_notes(tmp_path, comparison):
    root = tmp_path / "copy"
    shutil.copytree(comparison, root)
    (root / "ranking.json").write_text("{")
    for path in root.glob("weighted-seed*/predictions.parquet"):
        path.write_bytes(b"PAR1")
    log = root / "weighted-seed0" / "metrics.jsonl"
    log.write_text(log.read_text()[:-20] + "\n[]\n")
    text = Outline(write_report(root).read_text(encoding="utf-8")).words()
    assert "The ranking: ranking.json could not be read as JSON" in text
    assert "predictions.parquet could not be read" in text
    assert "weighted, seed 0" in text


def test_a_single_run_directory(tmp_path, make_run):
    run = tmp_path / "run"
    make_run(run, "weighted", 0)
    write_json(run / "weights.json", {"scheme": "power", "weights": {"plants": 0.75, "birds": 0.25}})
    text = Outline(write_report(run).read_text(encoding="utf-8")).words()
    assert "weighted reaches" in text
    assert "Mistakes by class" in text
    assert "55.0 %" in text


def test_findings_and_missing_figures_of_a_run(tmp_path, make_run):
    run = tmp_path / "run"
    record, _ = make_run(run, "weighted", 0)
    record |= dict.fromkeys(("accuracy", "macro_f1", "balanced_accuracy", "ece", "nll"))
    write_json(run / "results.json", record | {"target": "leaves", "findings": ["The sources are <b>related</b>."]})
    (run / "predictions.parquet").unlink()
    text = Outline(write_report(run).read_text(encoding="utf-8")).words()
    assert "The sources are <b>related</b>." in text
    assert "no test images to judge it by" in text


def test_many_classes_are_shown_as_a_list(tmp_path, make_run):
    run = tmp_path / "run"
    make_run(run, "weighted", 0, tuple(f"class {number}" for number in range(60)))
    text = Outline(write_report(run).read_text(encoding="utf-8")).words()
    assert "The classes that are found least, of 60." in text
    assert "Rows: what the image shows" not in text


def test_a_ranking_alone_makes_a_page(tmp_path, ranking):
    write_json(tmp_path / "ranking.json", ranking)
    text = Outline(write_report(tmp_path).read_text(encoding="utf-8")).words()
    assert "plants is the most related source" in text


def test_negative_scores_have_bars(ranking):
    for row in ranking["sources"][:4]:
        row["score"] -= 2.0
    page = render_report({"title": "t", "ranking": ranking})
    widths = [float(width) for width in re.findall(r'<i style="width: ([\d.]+)%"', page)]
    assert len(widths) == 4
    assert all(0 <= width <= 100 for width in widths)


def test_a_path_that_leads_out_is_not_followed(tmp_path, make_comparison, make_run):
    make_run(tmp_path / "elsewhere", "transfer", 0)
    results = make_comparison(tmp_path / "run", methods=("transfer",), seeds=1)
    shutil.rmtree(tmp_path / "run" / "transfer-seed0")
    results["runs"][0]["path"] = "../elsewhere"
    write_json(tmp_path / "run" / "results.json", results)
    assert "Mistakes by class" not in Outline(write_report(tmp_path / "run").read_text(encoding="utf-8")).words()


def test_an_empty_directory_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"neither results\.json nor ranking\.json"):
        write_report(tmp_path)
