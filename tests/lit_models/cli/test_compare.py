import errno
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lit_models.__main__ import main
from lit_models.cli.compare import LEGEND_LINE, add_legend, shortest_ends
from lit_models.runs.reading import read_run
from tests.support.fixtures import Output, Patch, Relit
from tests.support.tables import rows_of
from tests.support.tiny import TINY, the_run


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two run folders: one with 6 epochs of two metrics, a test and a grid; one with 2 epochs of one metric."""
    first, second = tmp_path / "gan" / "a", tmp_path / "gan" / "b"
    for folder in (first, second):
        (folder / "samples").mkdir(parents=True)
    rows = [f"{epoch},{10 * epoch + half},{epoch + half},,\n" for epoch in range(6) for half in (0, 1)]
    rows += [f"{epoch},{10 * epoch + 9},,{8 - epoch if epoch < 5 else 4.5},\n" for epoch in range(6)]
    header = "epoch,step,train/loss,val/fid,test/fid\n"
    (first / "metrics.csv").write_text(header + "".join(rows) + "6,60,,,3.25\n")
    (first / "run.json").write_text(json.dumps({"training_seconds": 90.0}))
    Image.new("L", (8, 8), 255).save(first / "samples" / "epoch_0006.png")
    Image.new("L", (8, 8), 0).save(first / "samples" / "reconstructions_0006.png")
    (second / "metrics.csv").write_text("epoch,step,val/fid\n0,9,7.0\n1,19,nan\n")
    return [first, second]


def test_table_and_figures(runs: list[Path], tmp_path: Path, capsys: Output) -> None:
    output = tmp_path / "out"
    assert main(["compare", *map(str, runs), "--output", str(output)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["|", "run", "|", "test/fid", "|", "val/fid", "|", "training", "time", "|"]
    assert said[2].split() == ["|", "a", "|", "3.25", "|", "4.5", "(4", "–", "8)", "|", "1.5", "min", "|"]
    assert said[3].split() == ["|", "b", "|", "|", "7", "|", "|"]
    table = rows_of(output / "comparison.csv")
    assert {(row["run"], row["metric"], row["smallest"], row["largest"], row["final"]) for row in table} == {
        ("a", "test/fid", "3.25", "3.25", "3.25"),
        ("a", "val/fid", "4.0", "8.0", "4.5"),
        ("b", "val/fid", "7.0", "7.0", "7.0"),
    }
    assert Image.open(output / "metrics.png").size[0] > 500
    pixels = np.asarray(Image.open(output / "samples.png").convert("L"))
    assert pixels[pixels.shape[0] // 2, pixels.shape[1] // 2] == 255, "the sample grid, not the black reconstructions"


def test_a_reader_that_has_gone_leaves_all_files(runs: list[Path], tmp_path: Path, monkeypatch: Patch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    output, said = tmp_path / "out", io.StringIO()
    monkeypatch.setattr("sys.stdout", Gone())
    monkeypatch.setattr("sys.stderr", said)
    assert main(["compare", *map(str, runs), "--output", str(output)]) == 0
    assert said.closed  # without a word
    assert {path.name for path in output.iterdir()} == {
        *("comparison.csv", "comparison.md", "metrics.png", "samples.png")
    }


def test_chosen_metrics_and_names(runs: list[Path], tmp_path: Path, capsys: Output) -> None:
    arguments = ["--output", str(tmp_path / "out"), "--metrics", "train/loss", "--names", "DCGAN", "WGAN"]
    assert main(["compare", *map(str, runs), *arguments]) == 0
    assert "| DCGAN | 5.5 (0.5 – 5.5) | 1.5 min" in capsys.readouterr().out


@pytest.mark.parametrize(("length", "columns"), [(5, 4), (40, 2), (200, 1)])
def test_the_legend_is_no_wider_than_the_figure(length: int, columns: int) -> None:
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots()
    handles = {f"{number}{length * 'n'}": axes.plot([number])[0] for number in range(5)}
    legend = add_legend(figure, handles)
    assert figure.legends == [legend]
    assert figure.get_figheight() == pytest.approx(4 + LEGEND_LINE * -(-5 // columns))
    assert legend._ncols == columns
    assert columns == 1 or legend.get_window_extent().width <= figure.bbox.width


def test_the_last_test_counts(runs: list[Path]) -> None:
    with (runs[0] / "metrics.csv").open("a") as file:
        file.write("6,60,,,2.5\n")
    assert read_run(runs[0], "a").results == {"test/fid": 2.5}


def test_a_test_of_some_batches_stands_beside_others_only_with_a_mark(
    runs: list[Path], tmp_path: Path, capsys: Output
) -> None:
    def write_tests(run: Path, *tests: tuple[float, int | None]) -> None:
        entries = [
            {"figures": {"test/fid": fid}, "limit_test_batches": limit, "data": {"test_images": 1000}}
            for fid, limit in tests
        ]
        (run / "tests.json").write_text(json.dumps(entries))

    output = tmp_path / "out"
    command = ["compare", *map(str, runs), "--output", str(output)]
    write_tests(runs[0], (3.25, None), (1.5, 2))
    write_tests(runs[1], (2.5, 3), (2.25, 1))
    assert main(command) == 0
    said = capsys.readouterr().out
    assert [line.split()[3] for line in said.splitlines()[2:4]] == ["3.25", "2.25†"], "a test of all batches goes first"
    assert "† Tested on some batches only: b (limit_test_batches 1)." in said
    assert said.startswith((output / "comparison.md").read_text())
    limits = {(row["run"], row["metric"]): row["limit_test_batches"] for row in rows_of(output / "comparison.csv")}
    assert limits == {("a", "test/fid"): "", ("a", "val/fid"): "", ("b", "test/fid"): "1", ("b", "val/fid"): ""}
    write_tests(runs[1], (2.5, None))
    assert main(command) == 0
    assert "Tested on" not in capsys.readouterr().out
    other = json.loads((runs[1] / "tests.json").read_text())
    other[0]["data"]["test_images"] = 20
    (runs[1] / "tests.json").write_text(json.dumps(other))
    assert main(command) == 0
    assert "Tested on different numbers of images: a on 1,000, b on 20." in capsys.readouterr().out


def test_names_are_the_shortest_ends_that_differ() -> None:
    assert shortest_ends(["runs/dcgan/1", "runs/wgan/1"]) == ["dcgan/1", "wgan/1"]
    assert shortest_ends(["runs/dcgan/1", "runs/dcgan/2"]) == ["1", "2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "There is no folder nowhere"),
        (["{run}", "--metrics", "val/fit"], "No run has logged val/fit; they have test/fid, train/loss, val/fid"),
        (["{run}", "--output", "/proc/here"], "The folder /proc/here can't be written into"),
    ],
)
def test_errors_are_a_sentence(runs: list[Path], capsys: Output, arguments: list[str], message: str) -> None:
    assert main(["compare", *(argument.format(run=runs[0]) for argument in arguments)]) == 1
    assert message in capsys.readouterr().err


def test_a_real_run_is_found_by_its_experiment(relit: Relit, capsys: Output) -> None:
    assert relit("fit", *TINY, "--trainer.max_epochs=2", "--trainer.limit_train_batches=2") == 0
    record = json.loads((the_run() / "run.json").read_text())
    assert record["training_seconds"] > 0
    assert record["processes"] == 1
    capsys.readouterr()
    assert main(["compare", str(the_run().parent)]) == 0
    assert "val/discriminator_loss" in capsys.readouterr().out
    assert Path("comparison/samples.png").is_file()


def test_scores_carry_their_features_and_what_a_value_means(tmp_path: Path, capsys: Output, monkeypatch: Patch) -> None:
    """Runs that were scored over other features have other columns."""
    monkeypatch.chdir(tmp_path)
    calibration = {"other real images": {"fid": 0.5}, "ten training images repeated": {"fid": 9.5}}
    for name, features in {"a": "digits, block 2", "b": "Inception"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text("epoch,step,val/fid,val/loss\n0,9,7.0,1\n1,19,6.0,1\n")
        judge = {"features": features, "classifier": "c", "data": "MNIST", "real_images": 5000}
        judge |= {"generated_images": 1000, "calibration": calibration if name == "a" else {}}
        (tmp_path / name / "judge.json").write_text(json.dumps({"val": judge}))
    assert main(["compare", "a", "b", "--metrics", "val/fid"]) == 0
    header, _, a, b, real, ten = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("|")
    )
    assert header == ["run", "val/fid (Inception)", "val/fid (digits, block 2)", "training time"]
    assert a == ["a", "", "6 (6 – 7)", ""]
    assert b == ["b", "6 (6 – 7)", "", ""]
    assert real == ["MNIST: other real images, 1,000 to 5,000", "", "0.5", ""]
    assert ten == ["MNIST: ten training images repeated, 1,000 to 5,000", "", "9.5", ""]


def test_a_folder_that_is_no_run_is_left_out(runs: list[Path], tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "comparison").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.json").write_text("{}")
    folders = [str(runs[0]), str(tmp_path / "comparison"), str(tmp_path / "begun")]
    for command, output in (("compare", "out"), ("report", "page.html")):
        assert main([command, *folders, "--output", str(tmp_path / output)]) == 0
        said = capsys.readouterr().err
        assert "comparison is not the folder of a run" in said
        assert "begun hasn't logged anything yet" in said
    assert main(["compare", *folders[1:], "--output", str(tmp_path / "out")]) == 1


def test_the_newest_run_is_one_that_was_trained(runs: list[Path], tmp_path: Path) -> None:
    experiment = tmp_path / "experiment"
    for name in ("trained", "tested"):
        shutil.copytree(runs[0], experiment / name)
    (experiment / "trained" / "run.json").write_text("{}")
    (experiment / "tested" / "run.json").unlink(missing_ok=True)
    shutil.rmtree(experiment / "tested" / "checkpoints", ignore_errors=True)
    os.utime(experiment / "trained" / "metrics.csv", (1, 1))
    assert read_run(experiment, "x").folder == experiment / "trained"
