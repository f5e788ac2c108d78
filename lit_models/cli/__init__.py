"""The ``relit`` command: what a person at a keyboard calls, and nothing that anything else imports."""
