"""HAProxy as the engine: text from the model, the binary, its sockets, and a supervisor that never leaves it dead."""
