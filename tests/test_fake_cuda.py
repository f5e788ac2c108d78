"""Every method's steps on a CUDA device that isn't there: the tests of fake_cuda_steps.py, in a process of their own.

Fake CUDA tensors make autograd start a thread for a device, after which a process can't be forked any more.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = Path(__file__).with_name("fake_cuda_steps.py")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_steps_on_a_fake_cuda_device() -> None:
    options = ("-q", "-p", "no:xdist", "-p", "no:cacheprovider", "--tb=short")
    command = [sys.executable, "-m", "pytest", *options, str(STEPS)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=STEPS.parents[1])
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None
    assert int(passed[1]) >= 300
