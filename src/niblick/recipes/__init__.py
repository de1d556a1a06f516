"""Configs that have a name, and recipe files of users."""
