"""Units of frames: k-means over what an encoder makes of speech, kept beside a run."""
