"""The composition root: the only room that knows every other. Each file composes one kind of process."""
