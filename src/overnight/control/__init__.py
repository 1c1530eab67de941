"""The operator's verbs: a wish in the database or a guarded change, for command line, live view and web page."""
