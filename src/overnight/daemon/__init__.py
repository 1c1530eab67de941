"""The loop that takes work from the queue."""
