"""Each claim on score tables whose answer is known, turned round, and lacking what it needs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from baselines.published import published
from bench import claimfiles, claims
from bench.claims import Evidence
from bench.expressions import Condition, Term, parse
from bench.report import beside, verdicts
from bench.report.blocks import markdown
from bench.runs.results import read_results
from tests.bench import synthetic
from uqseg.errors import FileError, UsageError
from uqseg.metrics import Scores, figure

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
SOME = {label: synthetic.METHODS[label] for label in ("segnet", "unet")}
WEIGHTED = "segnet[pos_weight=99]"


def table(sensitivity: float, false: float, low: float = 0.0, split: str = "test", **columns: float) -> Scores:
    """120 images of 60 patients, 100 lesion pixels of 10,000: `sensitivity` of them found and `false` others marked.

    low: added to the sensitivity at threshold 0.1. columns: means of further statistics.
    """
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 2, 120)
    cells = []
    for t in THRESHOLDS:
        hits = 100 * (sensitivity + low * (t == 0.1)) + noise
        wrong = false + rng.normal(0, 1, 120)
        cells.append(np.stack([hits, wrong, 100 - hits, 9900 - wrong], -1))
    means = {"hit_three_quarters": 0.5, "ncc_std": 0.0, "agreement": 0.0} | columns
    values = {"cells": np.stack(cells, 1)} | {n: mean + rng.normal(0, 0.05, 120) for n, mean in means.items()}
    values["reader_std_mean"] = readers = rng.normal(0, 1, 120)
    values["std_mean"] = means["agreement"] * readers + rng.normal(0, 0.3, 120)
    names = [np.array([f"{split}{i // k}" for i in range(120)]) for k in (1, 2)]
    return Scores(names[0], names[1], values, 1, "support")


NO_CASES = pd.DataFrame()
GROUPS = claimfiles.read("seed2020", Evidence({}, {}, NO_CASES))[1]


def examine(scores: claims.ScoresBySplit, histories: claims.Histories) -> pd.DataFrame:
    return claims.examine(GROUPS, Evidence(scores, histories, NO_CASES))


def answers(table: pd.DataFrame) -> dict[int, str]:
    return claims.verdicts(GROUPS, table)


def run(sign: float = 1.0) -> dict[str, dict[str, list[Scores]]]:
    """A run for which every claim holds; sign −1: for which none does."""
    hits = {"hit_three_quarters": 0.5 + 0.3 * sign}
    agree = {"ncc_std": 0.4 * sign, "agreement": sign}
    test = {
        "background": table(0.0, 50 - 49 * sign),
        "segnet": table(0.6 - 0.05 * sign, 20, 0.02 * sign),
        "unet": table(0.6 + 0.05 * sign, 20, 0.02 * sign),
        "ensemble": table(0.6 + 0.15 * sign, 20, **hits),
        "mcdropout": table(0.6, 20, **agree),
        "probunet": table(0.6, 20, **agree),
        WEIGHTED: table(0.6 + 0.2 * sign, 20 + 80 * (sign > 0)),
    }
    if sign < 0:  # background, marking 99 wrong, still beats networks that mark 200 wrong
        test["segnet"], test["unet"] = table(0.65, 200, -0.1), table(0.5, 200, -0.1)
        test[WEIGHTED] = table(0.6, 20)
        test["ensemble"] = table(0.4, 200, **hits)
    higher = {s: {n: [table(0.6 + d * sign, 20 if sign > 0 else 200, split=s)] for n in ("segnet", "unet")}
              for s, d in (("val", 0.15), ("train", 0.3))}  # fmt: skip
    return {"test": {label: [part] for label, part in test.items()}, **higher}


def history(first: float) -> list[dict[str, float]]:
    return [{"step": step, "loss": first if step <= 100 else 0.1} for step in range(10, 1001, 10)]


def starts(sign: int = 1) -> dict[str, list[list[dict[str, float]]]]:
    apart, alike = [0.1, 0.4, 1.6, 0.2, 0.9], [9.9, 10.0, 10.1, 10.05, 9.95]
    losses = (
        {"unet": apart, "unet[pos_weight=99]": alike} if sign > 0 else {"unet": alike, "unet[pos_weight=99]": apart}
    )
    return {label: [history(x) for x in values] for label, values in losses.items()}


def test_every_claim_is_supported_where_it_holds() -> None:
    examined = examine(run(), starts())
    assert answers(examined) == dict.fromkeys(range(1, 9), "supported"), examined.to_string()
    assert (examined["low"] <= examined["difference"]).all()
    assert (examined["difference"] <= examined["high"]).all()
    by = examined.set_index("compared")["difference"]
    assert by["sensitivity_mean of unet − sensitivity_mean of segnet"] == pytest.approx(0.1, abs=1e-9)
    assert by["hit_three_quarters of ensemble − 0.5"] == pytest.approx(0.3, abs=0.02)


def test_every_claim_is_refuted_where_the_opposite_holds() -> None:
    examined = examine(run(-1), starts(-1))
    assert answers(examined) == dict.fromkeys(range(1, 9), "not supported"), examined.to_string()


def test_equal_methods_and_small_differences_are_undecided() -> None:
    images = run()
    images["test"]["unet"] = images["test"]["segnet"]
    examined = examine(images, starts())
    assert (examined.loc[examined["claim"] == 1, "verdict"] == "undecided").all()


def test_what_a_run_lacks_is_said() -> None:
    examined = examine({"test": {"unet": run()["test"]["unet"]}}, {"unet": starts()["unet"]})
    assert set(examined["verdict"]) - {"undecided"} == {"supported"}  # threshold 0.1 of the U-Net alone
    notes = set(examined["note"])
    assert {"add segnet to --methods", f"add {WEIGHTED}, segnet to --methods"} <= notes
    assert "no scores of unet on train and unet on val" in notes
    assert "needs unet[pos_weight=99] with at least 2 repetitions (--seeds 0,1)" in notes
    assert answers(examined)[7] == "undecided"


def test_a_split_without_scores_is_no_missing_method() -> None:
    some = Evidence({"test": run()["test"]}, {}, NO_CASES)
    alone = parse("dice_mean(segnet)[split=train] > dice_mean(segnet)[split=test]")
    assert claims.test(alone, some).note == "no scores of segnet on train"
    both = parse("dice_mean(segnet)[split=val] > dice_mean(swag)")
    assert claims.test(both, some).note == "add swag to --methods"


def test_the_margin_of_equivalence() -> None:
    within = [
        claims.verdict(*x, "within", 0.02) for x in ((-0.01, 0.019), (-0.03, 0.01), (0.021, 0.03), (-0.05, -0.02))
    ]
    assert within == ["supported", "undecided", "not supported", "not supported"]
    assert claims.verdict(float("nan"), 1, "above") == "undecided"


def test_the_spread_of_starts_by_hand() -> None:
    # ln losses 0, 2 (variance 2) and 0, 1 (variance 1/2): half of ln 4; F(1,1) at 0.975 is 647.789.
    losses = {"unet": [1, np.e], "unet[pos_weight=99]": [1, np.e**2]}
    examined = examine({}, {k: [history(x) for x in v] for k, v in losses.items()})
    row = examined[examined["compared"].str.startswith("start_spread")].iloc[0]
    assert row["difference"] == pytest.approx(np.log(2))
    assert [row["low"], row["high"]] == pytest.approx(
        [np.log(2) - np.log(647.789) / 2, np.log(2) + np.log(647.789) / 2]
    )
    assert row["verdict"] == "undecided"


def test_the_published_tables_contradict_themselves() -> None:
    oddities = claims.published_oddities(published())
    assert "half the published Dice in 37 of 37 rows, and the Jaccard index Dice/(2 − Dice) in 0" in oddities["iou"]
    assert "unet test 0.4587 at 0.5, 0.5156 at 0.7" in oddities["sensitivity"]


def test_too_few_patients_decide_nothing() -> None:
    some = {
        split: {n: [t.take(range(18)) for t in each] for n, each in labels.items()} for split, labels in run().items()
    }
    examined = examine(some, {})
    assert set(answers(examined).values()) == {"undecided"}
    assert "too few patients" in set(examined["note"])


def test_the_section_names_every_verdict() -> None:
    text = markdown(verdicts.section("Title", GROUPS, examine(run(), starts())))
    for n, group in enumerate(GROUPS, 1):
        assert f"<summary>{n}. {group.text}: <b>supported</b></summary>".replace("'", "&#x27;") in text.replace(
            "'", "&#x27;"
        )


def test_claims_are_read_from_a_results_folder(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "run", methods=SOME, gallery=False, yardsticks=("background",))
    written, page = verdicts.write(folder, tmp_path / "to")
    table = pd.read_csv(tmp_path / "to/seed2020.csv")
    assert list(answers(table).values()) == list(written.values())
    assert table["claim"].unique().tolist() == list(range(1, 9))
    above = table.set_index("compared")["difference"]["iou_mean of unet − iou_mean of segnet"]
    results = read_results(folder)
    values = {n: np.mean([figure("iou_mean").value(c.scores["test"]) for c in results.cells[n]])
              for n in ("unet", "segnet")}  # fmt: skip
    assert above == pytest.approx(values["unet"] - values["segnet"])
    assert "The claims of the 2020 student report" in page.read_text(encoding="utf-8")


def test_a_claim_is_parsed() -> None:
    claim = parse("ged(probunet) < ged(unet[target=fraction,presence=true]+levels) - 0.02 [marked=4]")
    where = (Condition("marked", "=", "4"),)
    assert claim.terms == (
        (1, Term("ged", "probunet", where)), (-1, Term("ged", "unet[target=fraction,presence=true]+levels", where)),
    )  # fmt: skip
    assert (claim.constant, claim.expected) == (0.02, "below")
    assert claim.compared == ("ged of probunet − ged of unet[target=fraction,presence=true]+levels + 0.02 on marked=4")
    near = parse("| dice@0.1(unet) - dice@0.5(unet) | < .02")
    assert (near.expected, near.margin, near.constant) == ("within", 0.02, 0)
    apart = parse("dice_mean(a)[split=train, subtlety>=3.5] > 1 - dice_mean(b)[split=val]")
    assert [(sign, term.split) for sign, term in apart.terms] == [(1, "train"), (1, "val")]
    assert apart.constant == -1
    assert apart.compared == "dice_mean of a on train, subtlety>=3.5 + dice_mean of b on val − 1"
    assert parse("ged(a)[split!=train] < 1").compared == "ged of a − 1 on split!=train"
    scaled = parse("brier(a) <= 1.02 * brier(b) - 2*nll(c) + 3")
    assert [(factor, term.label) for factor, term in scaled.terms] == [(1, "a"), (-1.02, "b"), (2, "c")]
    assert scaled.compared == "brier of a − 1.02 × brier of b + 2 × nll of c − 3"


@pytest.mark.parametrize(
    ("text", "splits"),
    [
        ("ged(a) < ged(b)[split=train]", ["train", "train"]),
        ("|ged(a) - ged(b)| < 0.1 [split=train] ", ["train", "train"]),
        ("ged(a) - ged(b)[split=train] < -0.1", ["test", "train"]),
        ("ged(a) < ged(b)[split=train] - 0.1", ["test", "train"]),
        ("|ged(a) - ged(b)[split=train]| < 0.1", ["test", "train"]),
    ],
)
def test_a_bracket_holds_for_all_terms_only_at_the_end_of_the_claim(text: str, splits: list[str]) -> None:
    assert [term.split for _, term in parse(text).terms] == splits


@pytest.mark.parametrize(
    "text",
    ["", "ged(a)", "ged(a) = ged(b)", "ged(a < 3", "ged() < 3", "ged(a) < ", "1 < 2", "ged(a) < 3 4", "|ged(a)| > 1",
     "ged(a)[marked] < 3", "ged(a)[marked=4 < 3", "ged(a) < 2 * 3", "ged(a) < 2 ged(b)", "ged(a) < 2 * "],
)  # fmt: skip
def test_what_is_no_claim_is_refused_in_words(text: str) -> None:
    with pytest.raises(UsageError, match=r"^claim: ") as error:
        parse(text)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write(tmp_path_factory.mktemp("claims") / "run", methods=SOME, gallery=False, source="lidc-slices",
                           yardsticks=("background",))  # fmt: skip


def test_one_claim_in_words(folder: Path) -> None:
    lines = dict(line.split(maxsplit=1) for line in verdicts.of_claim("dice@0.5(unet) > 0.9", folder))
    results = read_results(folder)
    value = np.mean([figure("dice@0.5").value(c.scores["test"]) for c in results.cells["unet"]]) - 0.9
    assert float(lines["difference"].split(" = ")[1].split()[0]) == pytest.approx(value, abs=0.01)
    assert lines["verdict"] == "not supported: the whole interval lies on the other side of 0"
    assert lines["p"].startswith("≤")
    assert "24 patients" in lines["p"]
    found = claims.test(parse("dice@0.5(unet) > dice@0.5(segnet)"), claims.of_results(results))
    more = list(verdicts.of_claim("dice@0.5(unet) > dice@0.5(segnet)", folder, difference=found.detectable / 2))
    assert f"{4 * 24} to see one of" in next(line for line in more if line.startswith("patients"))


def test_a_subgroup_counts_its_cases_alone(folder: Path) -> None:
    results = read_results(folder)
    evidence = claims.of_results(results)
    answer = claims.test(parse("dice@0.5(unet)[marked>=3] > 0"), evidence)
    cases = results.cases[results.cases["split"] == "test"].set_index("case")
    cells = [cell.scores["test"] for cell in results.cells["unet"]]
    rows = (cases.loc[cells[0].cases, "marked"] >= 3).to_numpy()
    value = np.mean([figure("dice@0.5").value(scores.take(rows)) for scores in cells])
    assert answer.difference == pytest.approx(value)
    assert answer.compared == "dice@0.5 of unet on marked>=3"
    assert "no case has marked=9" in claims.test(parse("ged(unet)[marked=9] < 1"), evidence).note
    for text, words in (
        ("ged(unet)[colour=red] < 1", "unknown column of cases 'colour'"),
        ("ged(unet)[marked=many] < 1", "marked: expected a number, got 'many'"),
        ("ged(unet)[patient<3] < 1", "patient holds text: expected = or !="),
        ("dce(unet) < 1", "unknown figure 'dce'"),
        ("__import__(unet) < 3", "unknown figure '__import__'"),
    ):
        with pytest.raises(UsageError, match=words):
            claims.test(parse(text), evidence)
    with pytest.raises(UsageError, match=r"has no 'u' on test. It has: segnet, unet, background"):
        list(verdicts.of_claim("ged(u) < 1", folder))


def test_a_claim_of_many_labels_over_some_cases_and_few_over_others() -> None:
    labels = [f"m{k}" for k in range(13)]
    some = {split: {label: [table(0.6, 20, split=split)] for label in labels} for split in ("test", "train")}
    text = " + ".join(f"dice_mean({label})" for label in labels) + " > dice_mean(m0)[split=train] - 0"
    answer = claims.test(parse(text), Evidence(some, {}, NO_CASES))
    assert (answer.verdict, answer.patients) == ("supported", 60)


def test_an_equivalence_and_kinds_of_samples(tmp_path: Path) -> None:
    methods = {"unet": ("support", 1, 1.5, 0.0), "mcdropout": ("independent", 4, 1.5, 0.1)}
    path = synthetic.write(tmp_path / "run", methods=methods, gallery=False, yardsticks=())
    evidence = claims.of_results(read_results(path))
    near = claims.test(parse("|brier(unet) - brier(unet)| < 0.01"), evidence)
    assert (near.verdict, near.difference) == ("supported", 0)
    assert claims.test(parse("|brier(unet)| < 0.0001"), evidence).verdict == "not supported"
    tenth = claims.test(parse("brier(unet) < 1.1 * brier(unet)"), evidence)
    assert tenth.difference == pytest.approx(-0.1 * figure("brier").value(evidence.scores["test"]["unet"][0]), rel=0.2)
    assert tenth.verdict == "supported"
    assert "depends on the number and kind" in claims.test(parse("ged(unet) < ged(mcdropout)"), evidence).note
    assert claims.test(parse("ged_limit(unet) < ged_limit(mcdropout)"), evidence).note == ""


def test_a_file_of_claims_of_ones_own(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    head = 'title = "Mine"\n[[claims]]\ntext = "small"\nparts = '
    file.write_text(f'{head}["brier(unet) < 0.9"]\n', encoding="utf-8")
    written, page = verdicts.write(folder, tmp_path, str(file))
    assert written == {"1. small": "supported"}
    assert "## Mine" in page.read_text(encoding="utf-8")
    assert page == tmp_path / f"{file.stem}.md", "each file of claims has a page of its own"
    with pytest.raises(UsageError, match=r"would overwrite a run's report\.md"):
        verdicts.write(folder, tmp_path, str(tmp_path / "report.toml"))
    for parts, words in (
        ('["brier(unet)"]', "claim: not understood at its end"),
        ('["brier({best}) < 1"]', "claim: {best} stands for nothing: expected {method}, {sampler} or a name under"),
        ("[]", "claims.0: parts: Tuple should have at least 1 item"),
        ('["brier(unet) < 1"]\n[methods]\nbest = []', "methods.best: Tuple should have at least 1 item"),
        ('["brier(unet) < 1"]\nnote = 3', "claims.0: note: Extra inputs are not permitted"),
    ):
        file.write_text(f"{head}{parts}\n", encoding="utf-8")
        with pytest.raises(FileError, match=rf"mine.toml: {words}"):
            verdicts.write(folder, tmp_path, str(file))
    with pytest.raises(FileError, match=r"none.toml.*give a TOML file or one of goals, levels, seed2020"):
        verdicts.write(folder, tmp_path, str(tmp_path / "none.toml"))


def test_names_in_braces_stand_for_methods_of_the_run(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'title = "Mine"\nmethods.best = ["a+tta", "a+levels", "a"]\n[[claims]]\ntext = "best"\n'
        'parts = ["ged({best}) < ged({sampler})", "ged({method}) < 1"]\n',
        encoding="utf-8",
    )
    several = table(0.5, 20)
    several = replace(several, samples=4)
    scores = {"test": {"a": [table(0.5, 20)], "a+levels": [several], "b": [several], "oracle": [several]}}
    some = Evidence(scores, {"a": [], "a+levels": [], "b": []}, NO_CASES)
    assert [part.text for part in claimfiles.read(str(file), some)[1][0].parts] == [
        "ged(a+levels) < ged(b)", "ged(a) < 1", "ged(a+levels) < 1", "ged(b) < 1",
    ]  # fmt: skip
    title, groups = claimfiles.read(str(file), Evidence({}, {}, NO_CASES))
    notes = claims.examine(groups, Evidence({}, {}, NO_CASES))["note"]
    assert (title, *notes) == (
        "Mine", "add a+tta, a method of several samples to --methods", "add any method to --methods"
    )  # fmt: skip


LEVELS = "unet[target=fraction,presence=true]+levels"


def test_level_sets_against_every_sampler_of_the_run(tmp_path: Path) -> None:
    methods = {
        "unet": ("support", 1, 1.5, 0.0), LEVELS: ("stratified", 4, 1.0, 0.25), "ssn": ("independent", 4, 6.0, 0.9),
        "energy": ("independent", 4, 1.0, 0.25),
    }  # fmt: skip
    path = synthetic.write(tmp_path / "run", methods=methods, gallery=False, yardsticks=("oracle",))
    verdicts.write(path, tmp_path, "levels")
    table = pd.read_csv(tmp_path / "levels.csv").query("claim == 1").set_index("compared")
    assert [name.split(" of ")[2] for name in table.index] == ["ssn − 0.01", "energy − 0.01"]
    boot = claims.of_results(read_results(path)).scores["test"]
    value = {n: np.mean([figure("ged_limit").value(s) for s in boot[n]]) for n in (LEVELS, "ssn")}
    first = table.iloc[0]
    assert first["difference"] == pytest.approx(value[LEVELS] - value["ssn"] - 0.01)
    assert first["verdict"] == "supported"
    page = markdown(verdicts.of_levels(read_results(path))[0])
    assert page.startswith("## Level sets against trained samplers")
    assert "plain U-Net" not in page, "whose level sets are not in the run"
    without = synthetic.write(tmp_path / "few", methods=SOME, gallery=False, yardsticks=())
    assert verdicts.of_levels(read_results(without)) == ([], None)


def test_the_goals_name_the_best_method_that_the_run_has(tmp_path: Path) -> None:
    methods = {"unet": ("support", 1, 1.5, 0.0), LEVELS: ("stratified", 4, 1.0, 0.25)}
    path = synthetic.write(tmp_path / "run", methods=methods, gallery=False, yardsticks=("background",))
    written, _ = verdicts.write(path, tmp_path, "goals")
    table = pd.read_csv(tmp_path / "goals.csv")
    assert f"ged_limit of {LEVELS} − 0.165" in set(table["compared"])
    assert f"nll of {LEVELS} − 1.02 × nll of unet" in set(table["compared"])
    assert len(written) == table["claim"].nunique() > 8


def test_only_rows_of_the_same_data_and_protocol_contradict_each_other() -> None:
    rows = published()
    ccdm = rows[(rows["method"] == "CCDM") & (rows["metric"] == "ged") & (rows["samples"] == 16)]
    assert ccdm["protocol"].str[:4].tolist() == ["Kneg", "HPU-"], "0.212 and 0.239 of two data sets"
    against = beside._against(rows)
    assert not any(i in against for i in ccdm.index)
    report = rows[rows["source"].str.endswith("2020, text") & (rows["metric"] == "dice") & (rows["method"] == "segnet")]
    assert any("elsewhere 0.5889" in text for i in report.index for text in against[i])


def test_published_numbers_are_shown_as_they_were_printed() -> None:
    assert [beside._number(value) for value in (0.31, 0.1811, 0.00045)] == ["0.310", "0.1811", "0.00045"]


def test_a_run_stands_beside_published_rows(folder: Path, tmp_path: Path) -> None:
    methods = {"mcdropout": ("independent", 16, 1.5, 0.1), "fifty": ("independent", 50, 1.5, 0.1),
               "sets": ("stratified", 16, 1.5, 0.1)}  # fmt: skip
    path = synthetic.write(tmp_path / "run", methods=methods, gallery=False, source="lidc-slices", yardsticks=())
    run = path / "run.json"
    run.write_text(run.read_text(encoding="utf-8").replace('"simulated": true', '"simulated": false'), encoding="utf-8")
    text = beside.of_results(path)
    ged = text[text.index("### GED") : text.index("### HM-IoU")]
    ged, apart = ged.split("**Not comparable with these**")
    assert "| **sets** |" in apart
    assert "16 stratified" in apart
    rows = [line.split("|")[1:-1] for line in ged.splitlines() if line.startswith("|")][2:]
    assert any(row[0].strip() == "**mcdropout**" and row[2].strip() == "16 independent" for row in rows)
    assert {row[2].strip() for row in rows} == {"16", "16 independent", "50", "50 independent"}
    assert not any("MedicalMatting" in line for line in text.splitlines() if line.startswith("|"))
    values = [float(row[1].split()[0]) for row in rows]
    assert values == sorted(values)
    mose = next(row for row in rows if row[0].strip() == "MoSE" and "MedFM" in row[3])
    assert mose[5].strip() == "quoted by others"
    assert not any("Flow-SSN" in row for row in text[text.index("### HM-IoU") :].splitlines())
    with pytest.raises(UsageError, match="are of LIDC-IDRI's CT"):
        beside.of_results(folder)
