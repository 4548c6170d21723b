"""Open a target and turn its images into arrays and views."""
