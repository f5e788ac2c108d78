"""What is read of a run folder's judge.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from lit_models.support.judge import calibration_rows, printed_name, read_judge

WHOLE = {
    "features": "digits, block 2",
    "classifier": "digits",
    "data": "MNIST",
    "real_images": 5000,
    "generated_images": 1000,
    "calibration": {"other real images": {"fid": 0.5, "generated_images": 800.0}},
}


def test_a_row_that_has_fewer_images_says_so(tmp_path: Path) -> None:
    (tmp_path / "judge.json").write_text(json.dumps({"val": WHOLE}))
    rows = calibration_rows(read_judge(tmp_path))
    assert rows == {
        "MNIST: other real images, 800 to 5,000": {"val/fid (digits, block 2)": 0.5, "val/generated_images": 800.0}
    }


@pytest.mark.parametrize(
    "stage",
    [
        3,
        [WHOLE],
        {**WHOLE, "calibration": 3},
        {**WHOLE, "calibration": {"other real images": 3}},
        {**WHOLE, "generated_images": None},
        {name: value for name, value in WHOLE.items() if name != "data"},
    ],
    ids=str,
)
def test_an_entry_that_is_not_readable_is_left_out(stage: Any, tmp_path: Path) -> None:
    (tmp_path / "judge.json").write_text(json.dumps({"val": WHOLE, "test": stage}))
    judge = read_judge(tmp_path)
    assert judge == {"val": WHOLE}
    assert printed_name("test/fid", judge) == "test/fid"
    assert len(calibration_rows(judge)) == 1


@pytest.mark.parametrize("text", ["", "[]", "{", "3"])
def test_a_file_that_is_not_readable_holds_nothing(text: str, tmp_path: Path) -> None:
    assert read_judge(tmp_path) == {}
    (tmp_path / "judge.json").write_text(text)
    assert read_judge(tmp_path) == {}
