"""What methods and the machinery around them have in common, and the one door to Lightning's private names."""
