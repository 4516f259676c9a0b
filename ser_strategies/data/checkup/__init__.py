"""What is wrong with a corpus on a disk, and what to do about it."""
