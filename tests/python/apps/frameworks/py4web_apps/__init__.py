"""A folder of py4web applications."""
