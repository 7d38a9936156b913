"""The report does what a reader needs: right words, escaped names, one file, the same bytes, nothing private."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, browse
from fake_experiment import CLASSES, change, grid, make_experiment, write
from fake_lineage import with_lineage
from PIL import Image

from finegan_aug.errors import DataError
from finegan_aug.randomness import seed_for, uniforms
from finegan_aug.report import sections, write_report
from finegan_aug.report.charts import thin
from finegan_aug.report.csv_tables import csv_bytes
from finegan_aug.report.sources import clean, without_private_paths

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
PAYLOADS = [
    "<script>document.title='owned'</script>",
    "\"><img src=x onerror=\"document.title='owned'\">",
    "'><svg onload=alert(1)>",
    "</style><script>alert(1)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "$\\frac{broken$ & </text><script>alert(1)</script>",
    "=HYPERLINK(\"http://evil.example\")",
    "javascript:alert(1)//\u202e\ud800\x00",
]  # fmt: skip


class Page(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.pieces))  # no-break spaces too

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def assert_self_contained(page: Page) -> None:
    """No script, no handler, no address but anchors and data: images, and the policy that forbids all else."""
    assert page.count("script") == page.count("iframe") == page.count("link") == page.count("foreignobject") == 0
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "xlink:href", "action", "srcset", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/")), (tag, name, value[:80])
    policies = [a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv")]
    assert policies == [POLICY]


def row(arm: str, pair: int, accuracy: float, fraction: float = 0.1, **more: object) -> dict[str, object]:
    return {"fraction": fraction, "arm": arm, "model": "net", "pair": pair, "accuracy": accuracy} | more


def small(folder: Path, differences: list[float], *, arm: dict[str, object] | None = None, **header: object) -> Path:
    """Folder with R2 at 50 % and S3 above it by the given differences, one for each pair."""
    rows = [row("R2", pair, 0.5) for pair in range(len(differences))]
    rows += [row("S3", pair, 0.5 + difference) | (arm or {}) for pair, difference in enumerate(differences)]
    write(folder / "rows.json", with_lineage(folder, {"rows": rows} | header))
    return folder


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def small_experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_experiment(tmp_path_factory.mktemp("small"), gans=1, models=1, fractions=1)


@pytest.fixture(scope="module")
def page_path(experiment: Path) -> Path:
    return write_report(experiment)


def test_page_is_one_file_without_scripts_below_5_mb(page_path: Path) -> None:
    page = Page(page_path)
    assert_self_contained(page)
    assert page_path.stat().st_size < 5_000_000
    assert page.count("img") == 2 * 8  # two generators: four figures and four grids each
    assert page.count("svg") == 5  # accuracy, contrasts, generator, two of the classifiers


def test_every_part_of_a_full_experiment_is_on_the_page(page_path: Path) -> None:
    text = Page(page_path).text
    for part in (
        "S3 (real and filtered synthetic images) against R2 (real images with strong classical augmentation): helps in",
        "test set opened once",
        "One generator serves several pairs: GAN variance not included.",
        "its fair control is R5",
        "classes lost accuracy",
        "FID from fewer than 2 048 images is biased upwards",
        "efficientnet_lite0 (ImageNet)",
        "NMI (geom.) ↑",
        "Background swap: the object stays, the background code changes",
        "Generated images, fixed noise; after 120 kimg",
        "Real training images",
        "small CNN trained on drawn truth",
        "not used: purity below 0.5",
        "dropped: teacher top-k",
        "loss/info_child",
        "Classifiers: validation accuracy, mean over pairs",
        "Configuration: generator 10-0",
        "make demo",
    ):
        assert part in text, part


def test_page_says_the_same_as_report_json_and_csv(page_path: Path) -> None:
    content = json.loads((page_path.parent / "report.json").read_text())
    cell = next(
        c for c in content["cells"] if (c["fraction"], c["model"], c["arm"]) == (0.1, "vit_tiny_patch8_64", "S3")
    )
    with open(page_path.parent / "tables" / "accuracy.csv") as stream:
        lines = {(li["fraction"], li["model"], li["arm"]): li for li in csv.DictReader(stream)}
    line = lines["0.1", "vit_tiny_patch8_64", "S3"]
    values = [value for _, value in cell["values"]]
    assert float(line["mean"]) == cell["mean"] == pytest.approx(np.mean(values))
    assert f"{100 * cell['mean']:.1f}" in Page(page_path).text
    assert " · ".join(f"{100 * value:.1f}" for value in values) in Page(page_path).text
    names = {path.stem for path in (page_path.parent / "tables").glob("*.csv")}
    assert {"runs", "accuracy", "contrasts", "classes", "quality", "audit_judges", "audit_codes", "filter"} <= names


def test_same_folder_gives_the_same_bytes(small_experiment: Path, tmp_path: Path) -> None:
    first = write_report(small_experiment, tmp_path / "first")
    assert first == tmp_path / "first" / "report.html"
    second = write_report(small_experiment, tmp_path / "second")
    assert second.read_bytes() == first.read_bytes()
    assert (second.parent / "report.json").read_bytes() == (first.parent / "report.json").read_bytes()


def test_paths_outside_the_project_never_reach_the_page(page_path: Path) -> None:
    everything = page_path.read_text() + (page_path.parent / "report.json").read_text()
    assert "/home/someone" not in everything
    assert "/srv/private" not in everything
    assert "../runs" not in everything
    assert "--data …/birds --out …/demo" in everything


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ann/birds", "…/birds"),
        ("--data=~/birds/train/ -v", "--data=…/train -v"),
        ("--out ../a/b c/d", "--out …/b c/d"),
        (r"C:\photos\birds", "…/birds"),
        ("1/2 of it, and/or 3 / 4", "1/2 of it, and/or 3 / 4"),
        ("recipes/train.py", "recipes/train.py"),
    ],
)
def test_private_paths_are_cut_and_other_slashes_stay(text: str, expected: str) -> None:
    assert without_private_paths({"key": [text]}) == {"key": [expected]}


@pytest.mark.parametrize(
    ("differences", "word", "sentence"),
    [
        ([0.05, 0.06, 0.07], "helps", "S3 is 6.0 points above R2 (95 % interval +3.5 to +8.5, 3 pairs)."),
        ([-0.05, -0.06, -0.07], "hurts", "S3 is 6.0 points below R2 (95 % interval MINUS8.5 to MINUS3.5, 3 pairs)."),
        ([-0.01, 0.00, 0.02], "inconclusive", "S3 is 0.3 points above R2 (95 % interval MINUS3.5 to +4.1, 3 pairs)."),
        ([0.1, 0.1], "inconclusive", "(95 % interval +10.0 to +10.0, 2 pairs). Fewer than 3 pairs carry no claim."),
        ([0.1], "inconclusive", "S3 is 10.0 points above R2 in a single pair, which carries no claim."),
    ],
)
def test_first_lines_say_the_verdict(tmp_path: Path, differences: list[float], word: str, sentence: str) -> None:
    text = Page(write_report(small(tmp_path, differences))).text
    assert f"10 % · net {word} " in text
    assert sentence.replace("MINUS", "\N{MINUS SIGN}") in text
    assert f"{word} in 1 of 1 setting (share" in text


@pytest.mark.parametrize(
    ("header", "arm", "expected"),
    [
        ({"no_usable_codes": [0.1]}, {}, "no usable codes in 1 of 1 setting"),
        ({"lineage_checked": False}, {}, "Barred from a verdict"),
        ({"leak_override": True}, {}, "no number here is evidence"),
        ({"test_openings": 2}, {}, "The test set was opened 2 times."),
        (
            {},
            {"alpha": 0.0},
            "\N{GREEK SMALL LETTER ALPHA} = 0: no synthetic image was mixed in.",
        ),
        ({}, {"warnings": ["class kea fell back"]}, "class kea fell back (10 %, S3, net, pair 0 and 2 more)"),
        ({"primary": {"arm": "S1", "control": "R2"}}, {}, "S1 and R2 have no pair in common."),
        ({}, {"accuracy": None}, "row 3 of rows.json has no usable fraction, arm, model, pair and accuracy"),
    ],
)
def test_what_limits_the_result_is_said(
    tmp_path: Path, header: dict[str, object], arm: dict[str, object], expected: str
) -> None:
    text = Page(write_report(small(tmp_path, [0.05, 0.06, 0.07], arm=arm, **header))).text
    assert expected in text


def test_an_exploratory_gain_needs_the_corrected_p(tmp_path: Path) -> None:
    """R2 against R1 alone has p = 0.03; beside other contrasts of the setting it carries no claim."""
    rows = [row("R1", pair, 0.4 + 0.01 * pair) for pair in range(3)]
    rows += [row("R2", pair, 0.4 + 0.01 * pair + (0.05, 0.06, 0.09)[pair]) for pair in range(3)]
    alone = {"rows": rows, "primary": {"arm": "S3", "control": "R2"}}
    write(tmp_path / "alone" / "rows.json", alone)
    others = [row("S3", pair, 0.52 - 0.02 * pair) for pair in range(3)]
    others += [row("S1", pair, 0.5 - 0.02 * pair) for pair in range(3)]
    write(tmp_path / "family" / "rows.json", alone | {"rows": rows + others})
    found = {}
    for name in ("alone", "family"):
        write_report(tmp_path / name)
        content = json.loads((tmp_path / name / "report.json").read_text())
        found[name] = next(c for c in content["contrasts"] if (c["arm"], c["control"]) == ("R2", "R1"))
    assert found["alone"]["verdict"] == "helps"
    assert found["alone"]["adjusted_p"] == pytest.approx(found["alone"]["comparison"]["p_value"])
    assert found["family"]["adjusted_p"] > 0.05
    assert found["family"]["verdict"] == "inconclusive"
    assert found["family"]["comparison"] == found["alone"]["comparison"]


def predictions(path: Path, right: np.ndarray, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    logits = np.stack([right, 1 - right], axis=1).astype(np.float32)
    np.savez(path, labels=np.zeros(len(right), dtype=np.int64), logits=logits, image=np.array(names))


@pytest.mark.parametrize(("other_names", "aligned"), [(False, True), (True, False)])
def test_predictions_are_paired_by_image_and_not_by_position(tmp_path: Path, other_names: bool, aligned: bool) -> None:
    """The arm is right wherever the control is, and on 50 of 200 images more, so its interval lies above 0.

    Paired by position in its reversed file, single differences would be -1 as well and widen the interval.
    """
    control = (np.arange(200) < 100).astype(int)
    arm = (np.arange(200) < 150).astype(int)
    names = [f"{number:03}" for number in range(200)]
    rows = []
    for pair in range(3):
        predictions(tmp_path / f"c{pair}.npz", control, names)
        listed = [f"x{name}" for name in names] if other_names else names
        predictions(tmp_path / f"a{pair}.npz", arm[::-1], listed[::-1])
        rows += [row("R2", pair, 0.5, predictions=f"c{pair}.npz"), row("S3", pair, 0.75, predictions=f"a{pair}.npz")]
    write(tmp_path / "rows.json", {"rows": rows})
    write_report(tmp_path)
    interval = json.loads((tmp_path / "report.json").read_text())["contrasts"][0]["bootstrap"]
    if not aligned:
        assert interval is None
    else:
        assert interval == pytest.approx([0.19, 0.31], abs=0.015)  # 0.25 ± 1.96 · sqrt(.25 · .75 / 200)


def test_predictions_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    predictions(tmp_path / "secret.npz", np.ones(10, dtype=int), list("abcdefghij"))
    folder = small(tmp_path / "experiment", [0.05, 0.06, 0.07], arm={"predictions": "../secret.npz"})
    write_report(folder)
    assert json.loads((folder / "report.json").read_text())["contrasts"][0]["bootstrap"] is None


def hostile(folder: Path) -> Path:
    make_experiment(folder, classes=PAYLOADS, gans=1, fractions=1)
    content = json.loads((folder / "rows.json").read_text())
    for entry in content["rows"]:
        entry["model"] = PAYLOADS[0] if entry["model"].startswith("mobile") else PAYLOADS[5]
    content["rows"][0]["warnings"] = PAYLOADS
    write(folder / "rows.json", content | {"notes": PAYLOADS})
    change(folder / "experiment.json", title=PAYLOADS[1], command=PAYLOADS, config={name: name for name in PAYLOADS})
    grid(folder / "gan" / "10-0" / "figures" / "\"'><img src=x onerror=alert(1)>.png", 2, 2, 16, 0)
    (folder / "gan" / "10-0").rename(folder / "gan" / "<script>alert(1)<&'\">")
    return folder


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(hostile(tmp_path_factory.mktemp("hostile")))


@pytest.mark.fault("security: hostile names stay text, also in a browser")
def test_hostile_names_stay_text(hostile_page: Path) -> None:
    page = Page(hostile_page)
    assert_self_contained(page)
    for payload in PAYLOADS:
        assert re.sub(r"\s+", " ", clean(payload)) in page.text
    assert ("title", {}) in page.tags
    assert "49" not in re.findall(r"The 8 classes.*?What", page.text)


@pytest.mark.fault("security: hostile names stay text, also in a browser")
def test_hostile_names_are_no_formulas_in_csv(hostile_page: Path) -> None:
    files = list((hostile_page.parent / "tables").glob("*.csv"))
    assert len(files) >= 6
    for path in files:
        with open(path, newline="", encoding="utf-8") as stream:
            for line in csv.reader(stream):
                for value in line:
                    number = re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", value)
                    assert number or not value.startswith(("=", "+", "-", "@", "\t", "\r")), (path.name, value)


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", " =1"])
@pytest.mark.fault("security: hostile names stay text, also in a browser")
def test_text_that_looks_like_a_formula_is_prefixed(start: str) -> None:
    assert csv_bytes([[start]]).decode().strip('"\n') == f"'{start}"


def test_numbers_stay_numbers_in_csv() -> None:
    assert csv_bytes([["a", "b,c"], [-0.25, None], [-3, True]]) == b'a,"b,c"\n-0.25,\n-3,True\n'


def test_real_photographs_are_left_out_on_request(small_experiment: Path, tmp_path: Path) -> None:
    public = Page(write_report(small_experiment, tmp_path, without_real_images=True))
    assert public.count("img") == 7  # eight with reals.png
    assert "Generated images" in public.text
    assert "Real training images" not in public.text


def test_a_run_folder_of_the_generator_alone_has_a_page_without_verdict(experiment: Path, tmp_path: Path) -> None:
    page = Page(write_report(experiment / "gan" / "10-0", tmp_path))
    assert "No classifiers were compared: this page shows the generator alone and carries no verdict." in page.text
    assert page.count("img") == 8
    assert "helps in" not in page.text


def test_heavy_pictures_are_reduced_until_the_page_is_below_5_mb(tmp_path: Path) -> None:
    """Six pictures of pure noise, 1.5 MB each as PNG."""
    for number in range(6):
        pixels = (256 * uniforms(seed_for(number, "noise"), np.arange(700), 2100)).astype(np.uint8)
        path = tmp_path / "gan" / f"run-{number}" / "fakes_000001.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(pixels.reshape(700, 700, 3)).save(path, compress_level=1)
    page = write_report(tmp_path)
    assert 1_000_000 < page.stat().st_size < 5_000_000
    assert Page(page).count("img") == 6


def test_broken_parts_become_warnings(tmp_path: Path) -> None:
    small(tmp_path, [0.05, 0.06, 0.07])
    (tmp_path / "audit.json").write_text("{")
    run = tmp_path / "gan" / "run"
    run.mkdir(parents=True)
    (run / "fakes_000001.png").write_bytes(b"no picture")
    (run / "metrics.jsonl").write_text('{"seen_images": 1000, "loss/a": 1}\nbroken\n{"seen_images": 2000, "loss')
    text = Page(write_report(tmp_path)).text
    assert "audit.json cannot be read and is left out" in text
    assert "run/fakes_000001.png is no readable PNG and is left out" in text
    assert "1 lines of gan/run/metrics.jsonl cannot be read and are left out" in text


def audit_of(gan: Path, consistency: float, code: int) -> None:
    """Audit of a generator as its evaluation writes it: one class, one code."""
    classes = [{"class": "kea", "before": consistency, "n_before": 10}]
    codes = [{"code": code, "class": "kea", "purity": 0.9, "margin": 0.8, "n": 20, "abstained": False, "reason": ""}]
    write(gan / "audit.json", {"judge": "cnn", "judge_accuracy": 0.97, "classes": classes, "codes": codes})


def test_the_audits_of_generators_stand_in_one_table_under_their_names(tmp_path: Path) -> None:
    audit_of(tmp_path / "gan" / "10-0", 0.25, 3)
    audit_of(tmp_path / "gan" / "100-0", 0.75, 4)
    names = ("class_consistency", "mask_iou", "judge_accuracy_on_drawings", "segmenter_iou_on_drawings")
    write(tmp_path / "gan" / "10-0" / "quality.json", dict(zip(names, (0.5, 0.6, 0.95, 0.85), strict=True)))
    text = Page(write_report(tmp_path)).text
    audit = json.loads((tmp_path / "report.json").read_text())["audit"]
    assert [(line["gan"], line["judge"], line["before"]) for line in audit["judges"]] == [
        ("10-0", "cnn", 0.25),
        ("10-0", "networks trained on drawn truth", 0.5),
        ("100-0", "cnn", 0.75),
    ]
    assert [(line["gan"], line["code"]) for line in audit["codes"]] == [("10-0", 3), ("100-0", 4)]
    assert [(line["gan"], line["before"]) for line in audit["classes"]] == [("10-0", 0.25), ("100-0", 0.75)]
    assert "10-0 networks trained on drawn truth 95.0 50.0 \N{EN DASH} 60.0 85.0" in text
    assert "100-0 cnn 97.0 75.0" + 3 * " \N{EN DASH}" in text


def test_an_audit_of_the_experiment_stands_for_those_of_its_generators(tmp_path: Path) -> None:
    audit_of(tmp_path, 0.5, 1)
    audit_of(tmp_path / "gan" / "10-0", 0.25, 3)
    write_report(tmp_path)
    audit = json.loads((tmp_path / "report.json").read_text())["audit"]
    assert [line["before"] for line in audit["judges"]] == [0.5]
    assert [line["code"] for line in audit["codes"]] == [1]


def test_the_report_of_one_run_folder_shows_its_audit_once(tmp_path: Path) -> None:
    audit_of(tmp_path, 0.5, 1)
    write(tmp_path / "quality.json", {"class_consistency": 0.625, "judge_accuracy_on_drawings": "high"})
    grid(tmp_path / "fakes_000001.png", 2, 2, 16, 0)
    text = Page(write_report(tmp_path)).text
    judges = json.loads((tmp_path / "report.json").read_text())["audit"]["judges"]
    assert [(line["before"], line["judge_accuracy"]) for line in judges] == [(0.5, 0.97), (0.625, None)]
    assert "62.5" in text


@pytest.mark.parametrize(
    "content", [[], 3, {"rows": 3}, {"rows": [3, {}]}, {"rows": [row("R2", 0, 0.5)], "primary": 5}]
)
def test_parts_of_another_shape_do_not_stop_the_report(tmp_path: Path, content: object) -> None:
    write(tmp_path / "experiment.json", {"data": 3, "warnings": 3, "command": 3, "title": 3})
    for name in ("rows.json", "audit.json", "filter.json", "evaluation.json", "gan/a/audit.json", "gan/a/quality.json"):
        write(tmp_path / name, content)
    assert_self_contained(Page(write_report(tmp_path)))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        write_report(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} must hold experiment.json, rows.json, evaluation.json or gan/, found none of them; "
        "name the folder of a finished experiment"
    )
    assert not list(tmp_path.iterdir())


def test_long_lines_keep_their_mean_when_thinned() -> None:
    y = uniforms(seed_for(0, "line"), [0], 1000)[0]
    x_thin, y_thin = thin(list(enumerate(y.tolist())), limit=100)
    assert len(x_thin) == 100
    assert np.mean(y_thin) == pytest.approx(y.mean())
    assert thin([(0.0, 1.0), (1.0, 3.0)]) == ([0.0, 1.0], [1.0, 3.0])


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.fault("security: hostile names stay text, also in a browser")
def test_a_browser_shows_hostile_names_as_text(hostile_page: Path, tmp_path: Path) -> None:
    document = browse(hostile_page, tmp_path, "--dump-dom")
    assert "<script" not in document
    assert "<title>owned</title>" not in document
    assert document.count("<img") == document.count('src="data:image/')


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_draws_the_page_in_light_and_dark(page_path: Path, tmp_path: Path) -> None:
    corners, colors = {}, {}
    for theme, value in (("dark", 0), ("light", 1)):
        shot = tmp_path / f"{theme}.png"
        theme_option = f"--blink-settings=preferredColorScheme={value}"
        browse(page_path, tmp_path, theme_option, f"--screenshot={shot}", "--window-size=900,1500")
        with Image.open(shot) as image:
            corners[theme] = max(image.convert("L").crop((0, 0, 5, 5)).tobytes())
            colors[theme] = len(image.convert("RGB").getcolors(10_000_000) or [])
    assert corners["dark"] < 60 < 200 < corners["light"]
    assert min(colors.values()) > 200


def test_names_of_classes_come_from_the_experiment(page_path: Path) -> None:
    with open(page_path.parent / "tables" / "classes.csv", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert {line["class"] for line in lines} == set(CLASSES)
    for line in lines:
        assert float(line["change"]) == pytest.approx(float(line["arm"]) - float(line["control"]))


def test_rows_that_differ_in_numbers_of_images_alone_are_one_on_the_page() -> None:
    def line(metric: str, value: float, n_real: int, n_fake: int) -> dict[str, object]:
        names = {"metric": metric, "extractor": "judge", "split": "train", "gan": "a", "interval": None}
        return names | {"value": value, "n_real": n_real, "n_fake": n_fake}

    lines = [line("judge_accuracy", 0.5, 57, 0), line("class_consistency", 0.7, 0, 1200)]
    (group,) = sections.quality(lines)
    assert len(group["rows"]) == 2  # as report.json and the table have them
    shown = sections.for_the_eye(group)
    assert [row["values"] for row in shown["rows"]] == [[(0.7, (None, None), 1200), (0.5, (None, None), 57)]]
    assert not shown["counted"]

    measured = [line("intra_class_coverage", 0.6, 240, 120), line("memorised_share", 0.02, 216, 1200)]
    (group,) = sections.quality([*lines, *measured])  # they stand with what the judge says
    assert "coverage in class ↑" in group["headings"]
    assert "memorised ↓" in group["headings"]

    (group,) = sections.quality([*lines, line("class_consistency", 0.8, 0, 600)])
    shown = sections.for_the_eye(group)
    assert len(shown["rows"]) == 3
    assert shown["counted"]
