"""`score()`: verdicts for any number of images, in units that survive interruptions, on one or many machines."""
