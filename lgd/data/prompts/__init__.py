"""Images with captions, and what networks read in place of a caption."""
