"""``tests.json``: what the tests of a run's checkpoints have given."""

import json
import multiprocessing
from pathlib import Path

from lit_models.runs.record import add_test


def test_a_test_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    test = {"experiment": "x", "checkpoint": "last.ckpt", "settings": {"class_path": "Digits"}, "step": 1}
    for changes in ({}, {"step": 2}, {"checkpoint": "best.ckpt"}, {"settings": None}):
        add_test(tmp_path, {**test, **changes})
    kept = json.loads((tmp_path / "tests.json").read_text())
    assert [(one["step"], one["checkpoint"]) for one in kept] == [(2, "last.ckpt"), (1, "best.ckpt"), (1, "last.ckpt")]


def test_processes_that_end_their_tests_at_once_lose_none(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(6)

    def test(number: int) -> None:
        barrier.wait()
        for part in range(5):
            add_test(tmp_path, {"experiment": "x", "checkpoint": f"{number}-{part}.ckpt", "settings": None})

    processes = [context.Process(target=test, args=(number,)) for number in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(json.loads((tmp_path / "tests.json").read_text())) == 30
