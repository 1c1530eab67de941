"""Publishing: the model as it stands becomes a version, another version is put in use, one is deleted.

All of it happens while nothing trains, under one kernel lock, by one durable plan.
"""
