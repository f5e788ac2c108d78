"""How good generated images are, by what a network sees in them."""
