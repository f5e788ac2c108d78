"""Figures that say how good a model is, or what it generates."""
