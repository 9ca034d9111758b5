"""Data sets that TFDS prepared, without TensorFlow."""
