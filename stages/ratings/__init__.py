"""Ratings: a file from elsewhere, checked, and the table that the stages hand on."""
