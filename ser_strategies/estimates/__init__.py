"""What a run will take, told by a few of its steps before it begins."""
