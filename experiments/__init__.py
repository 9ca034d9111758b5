"""Commands, one file each, and the rooms of what they are made of."""
