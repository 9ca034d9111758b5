"""Data sets as arrays, and mixtures whose denoisers are exact."""
