"""Unattended fine-tuning that is there in the morning."""

__version__ = "0.1.0"
