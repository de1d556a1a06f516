"""What routers decided on a text: cuts, figures about them, references to compare with, pictures."""
