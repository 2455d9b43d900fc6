"""A project of Uliweb."""
