"""What the notebooks of these tests are about: a small book, and a model that trains in a second."""

from tiny import TINY

TOY = dict(assignment.split("=", 1) for assignment in TINY)
TEXT = "".join(f"Paragraph {i} of a small book, which says that {i} is {i * i} squared.\n\n" for i in range(400))
