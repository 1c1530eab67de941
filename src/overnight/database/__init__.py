"""The truth of the work: jobs, attempts, intents, events."""
