"""Figures that say how good a model, or what it makes, is: by what a network sees in generated images, and by neighbours."""
