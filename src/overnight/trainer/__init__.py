"""The process that holds torch: python -m overnight.trainer ATTEMPT_DIR."""
