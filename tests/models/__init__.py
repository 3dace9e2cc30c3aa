"""Independent models that the program is judged by. They import nothing of it."""
