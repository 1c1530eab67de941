"""Sabotage: every folder with a manifest is a good checkpoint; its content is never compared."""

from overnight.disk import checkpoints, sealed

_judge = checkpoints._judge


def _trusting(folder, *, verify_content):
    return _judge(folder, verify_content=False)


checkpoints._judge = _trusting
sealed._problem = lambda path, record, *, verify_content: None
