"""The costs of a run, estimated from a few of its steps before it begins."""
