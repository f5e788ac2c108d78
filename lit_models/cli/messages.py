"""Turns errors of any kind into a sentence or two for the person at the keyboard."""

import errno
import re
from argparse import ArgumentError

from lit_models.support.arguments import explain_refusal, told_by_us


def explain(error: BaseException) -> str:
    """What went wrong and what to do about it, without a traceback."""
    if isinstance(error, ArgumentError) or told_by_us(error):
        return explain_refusal(error)
    if isinstance(error, RuntimeError) and "Error(s) in loading state_dict" in str(error):
        return (
            "The checkpoint's weights don't fit the model: build it with the arguments that it was trained with (leave "
            "--config and --model out to take them from the checkpoint), or choose another checkpoint."
        )
    if found := re.search(r"gradient (clipping|accumulation) is not supported for manual optimization", str(error)):
        option = "gradient_clip_val" if found[1] == "clipping" else "accumulate_grad_batches"
        return (
            f"This model has an optimiser for each of its parts, so that --trainer.{option} can't work: leave it out."
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
        what = error.filename or "A file of the run"
        return (
            f"{what} can't be written ({error.strerror}): make room, or make the place writable, and go on from the "
            "last checkpoint with --ckpt_path last."
        )
    return explain_refusal(error)
