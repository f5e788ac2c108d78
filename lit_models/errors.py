"""Errors in a sentence for the person who started the run."""


class ModelError(Exception):
    """Arguments that no model can be built or run with; the message names what is wrong and what to change."""


class RunError(Exception):
    """A run folder or checkpoint that can't be used as asked; the message names the remedy."""


class UsageError(Exception):
    """Arguments that can't be meant so; the message says what to type."""


class RunWarning(UserWarning):
    """What a run does otherwise than asked, and why."""
